"""docs/draw_pictures.py writes the figures that a page makes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the figures")

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("draw_pictures", DOCS / "draw_pictures.py")
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

PAGE = """
```python
from matplotlib.figure import Figure
figure = Figure(figsize=(2, 1))
```

![a](pictures/a.png)

```python
figure = Figure(figsize=(1, 2))
```

```python
other = 3
```
{more}
"""


def size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG file."""
    content = path.read_bytes()
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


def test_an_image_is_the_figure_of_the_block_before_it(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(more=""))
    path, = script.draw(page)
    assert path == tmp_path / "pictures" / "a.png" and size(path) == (200, 100)


def test_an_image_that_no_block_makes_must_exist(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(more="\n![b](pictures/b.png)\n"))     # the last block makes none
    with pytest.raises(FileNotFoundError, match="before pictures/b.png that makes `figure`"):
        script.draw(page)
    (tmp_path / "pictures" / "b.png").write_bytes(b"drawn elsewhere")
    assert [path.name for path in script.draw(page)] == ["a.png"]
    assert (tmp_path / "pictures" / "b.png").read_bytes() == b"drawn elsewhere"


def test_the_code_of_a_page_runs_in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("""
```python
import os
from pathlib import Path
from matplotlib.figure import Figure
assert os.listdir() == []
Path("made.txt").write_text("a file")
figure = Figure(figsize=(1, 1))
```

![a](a.png)
""")
    assert script.draw(Path("page.md")) == [page.with_name("a.png")]
    assert not (tmp_path / "made.txt").exists()


def test_every_picture_of_the_page_follows_a_block():
    page = DOCS / "pictures.md"
    text = page.read_text(encoding="utf-8")
    found = [picture for code, picture in script.PARTS.findall(text) if picture]
    assert found == re.findall(r"!\[[^]]*\]\(([^)]+)\)", text) and len(found) > 20
    assert {path.name for path in (DOCS / "pictures" / "viz").iterdir()} == {
        Path(picture).name for picture in found}
