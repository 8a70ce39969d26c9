"""The catalogue: every class of the library is in it, with a formula and a source, and its gradient is right."""

import re
from pathlib import Path

import numpy as np
import pytest

import xpnet as xn
from xpnet.catalogue import FAMILIES, Item, page
from xpnet.catalogue.verify import gradient_error, verify

ITEMS = [item for items in FAMILIES.values() for item in items]
BASES = {"Layer", "Loss", "Optimizer", "Schedule"}

every_item = pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name)


def test_every_class_is_in_it_once():
    public = [name for module in (xn.layers, xn.losses, xn.optim, xn.schedules) for name in module.__all__]
    assert sorted(item.name for item in ITEMS if hasattr(xn, item.name)) == sorted(set(public) - BASES)


@every_item
def test_a_title_a_formula_and_a_source(item: Item):
    assert item.title and item.formula, item.what.__doc__
    assert re.search(r"[=:(]", item.formula) or item.common
    assert item.sources or item.common


@pytest.mark.parametrize("item", [item for item in ITEMS if item.make], ids=lambda item: item.name)
def test_gradients(item: Item, backend):
    assert gradient_error(item, backend) < 1e-6


def test_verify_goes_through_all_of_it():
    rows = [(family, name) for family, name, row in verify({"numpy": xn.get_backend("numpy")}) if isinstance(row["numpy"], float)]
    assert rows == [(family, item.name) for family, items in FAMILIES.items() for item in items if item.make]


def test_the_page_is_up_to_date():
    docs = Path(__file__).parents[1] / "docs"
    assert (docs / "catalogue.md").read_text(encoding="utf-8") == page.text(), "make catalogue writes it anew"
    assert {path.stem for path in (docs / page.PICTURES).glob("*.png")} == {item.name for item in ITEMS if page.drawn(item)}


def test_the_command_writes_the_page_and_its_pictures(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the pictures")
    few = {"Activations": [item for item in ITEMS if item.name in ("Stair", "PReLU", "Maxout")]}
    monkeypatch.setattr(page, "FAMILIES", few)
    monkeypatch.setattr("sys.argv", ["page", str(tmp_path)])
    left_over = tmp_path / page.PICTURES / "Gone.png"
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    page.main()
    assert (tmp_path / "catalogue.md").read_text(encoding="utf-8") == page.text()
    pictures = list((tmp_path / page.PICTURES).iterdir())
    assert {path.name for path in pictures} == {"Stair.png", "PReLU.png"}           # Maxout is no function of one number
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_a_curve_is_the_function_and_its_gradient():
    x = np.array([-2.0, -0.5, 0.5, 3.0])
    y, gradient = page.curve(xn.LeakyReLU(0.1), x)
    assert y.tolist() == [-0.2, -0.05, 0.5, 3.0] and gradient.tolist() == [0.1, 0.1, 1.0, 1.0]


@pytest.mark.parametrize("item", [item for item in ITEMS if item.pytorch], ids=lambda item: item.name)
def test_what_pytorch_calls_it(item: Item):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; it knows its own names")
    places = (torch.nn, torch.nn.functional, torch.nn.utils, torch.optim, torch.optim.lr_scheduler, torch)
    for name in re.sub(r"\(.*?\)", "", item.pytorch).split(", "):
        assert any(found(place, name.removeprefix("torch.")) for place in places), name


def found(place, name):
    """Whether the module has an attribute of this dotted name."""
    for part in name.split("."):
        place = getattr(place, part, None)
    return place is not None
