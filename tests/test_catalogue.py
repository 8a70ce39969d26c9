"""The catalogue: every class of the library is in it, with a formula and a source, and its gradient is right."""

import re
from pathlib import Path

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
