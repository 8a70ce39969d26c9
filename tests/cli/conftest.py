"""Images and labels in files, for the command."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xpnet.cli import networks

COLOURS = {"daisy": (240, 240, 250), "poppy": (220, 30, 30), "thistle": (110, 60, 160)}


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """An empty folder to work in, and another one for what is kept of image files."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def imports_as_before(monkeypatch):
    """The folders of Python files stay in the path as long as the command runs."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in (networks.MODULE, "sizes_of_mine"):
        sys.modules.pop(name, None)


@pytest.fixture
def said(capsys) -> Callable[[], str]:
    """A function that returns the last line of stderr."""
    return lambda: capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture
def photos() -> Path:
    """Ten images of 12 x 15 pixels for each of three classes, which differ in their colours."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install pillow")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        folder = Path("photos", name)
        folder.mkdir(parents=True)
        for number in range(10):
            pixels = rng.normal(colour, 20, (12, 15, 3)).clip(0, 255).astype(np.uint8)
            image.fromarray(pixels).save(folder / f"{number}.png")
    return Path("photos")


@pytest.fixture
def csv_file() -> Path:
    """60 images of 4 x 6 pixels in three classes; those of class k have a bright row k."""
    rng = np.random.default_rng(0)
    lines = ["label," + ",".join(f"pixel{k}" for k in range(24))]
    for number in range(60):
        image = rng.integers(0, 60, (4, 6))
        image[number % 3] += 180
        lines.append(",".join(map(str, [number % 3, *image.ravel()])))
    Path("rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path("rows.csv")


@pytest.fixture
def network() -> Path:
    """A Python file with a network and a layer of its own, which imports a file beside it."""
    Path("models").mkdir()
    Path("models", "sizes_of_mine.py").write_text("UNITS = 16\n", encoding="utf-8")
    file = Path("models", "net.py")
    file.write_text('''
import sizes_of_mine
import xpnet as xn


class Twice(xn.Layer):
    """Y = 2 X."""

    def build(self, in_shape):
        return in_shape

    def forward(self, x, mode=xn.PREDICT):
        return 2 * x

    def backward(self, dy, accumulate=False):
        return 2 * dy


def build(input_shape, classes, seed=0):
    return xn.Sequential([
        xn.Flatten(), xn.Linear(sizes_of_mine.UNITS, activation="relu"), Twice(),
        xn.Linear(classes),
    ], input_shape=input_shape, seed=seed)


if __name__ == "__main__":
    raise SystemExit("a command does not run this")
''', encoding="utf-8")
    return file
