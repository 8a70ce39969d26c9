"""Draw the PNG files that a page shows: python docs/draw_pictures.py [docs/pictures.md]

The Python blocks of the page run one after another. An image that is linked after a block is the
`figure` which that block made.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

PARTS = re.compile(r"^```python\n(.*?)^```$|^!\[[^\]]*\]\(([^)]+\.png)\)$",
                   re.MULTILINE | re.DOTALL)


def draw(page: Path) -> list[Path]:
    """Draw the images of a page, and return their files."""
    names: dict[str, Any] = {}
    written = []
    for code, picture in PARTS.findall(page.read_text(encoding="utf-8")):
        if code:
            names.pop("figure", None)
            exec(compile(code, str(page), "exec", dont_inherit=True), names)
        else:
            path = page.parent / picture
            path.parent.mkdir(parents=True, exist_ok=True)
            names["figure"].savefig(path, dpi=100, metadata={"Software": None})
            written.append(path)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, default=Path(__file__).parent / "pictures.md")
    for file in draw(parser.parse_args().page):
        print(file)
