"""Draw the PNG files that pages show: python docs/draw_pictures.py [docs/pictures.md ...]

The Python blocks of a page run one after another, in an empty folder. An image that is linked after
a block is the `figure` which that block made. If the block made none, the file must exist already:
it is drawn elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
from pathlib import Path
from typing import Any

PARTS = re.compile(r"^```python\n(.*?)^```$|^!\[[^\]]*\]\(([^)]+\.png)\)$",
                   re.MULTILINE | re.DOTALL)


def draw(page: Path) -> list[Path]:
    """Draw the images of a page, and return their files.

    Raises:
        FileNotFoundError: an image does not exist, and the block before it makes no figure.
    """
    names: dict[str, Any] = {}
    written = []
    page = page.resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for code, picture in PARTS.findall(page.read_text(encoding="utf-8")):
            path = page.parent / picture
            if code:
                names.pop("figure", None)
                exec(compile(code, str(page), "exec", dont_inherit=True), names)
            elif "figure" in names:
                path.parent.mkdir(parents=True, exist_ok=True)
                names.pop("figure").savefig(path, dpi=100, metadata={"Software": None})
                written.append(path)
            elif not path.exists():
                raise FileNotFoundError(f"{page.name}: expected a block before {picture} that "
                                        "makes `figure`. Received: none, and no such file.")
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="*", type=Path,
                        default=[Path(__file__).parent / "pictures.md"])
    for page in parser.parse_args().page:
        for file in draw(page):
            print(file)
