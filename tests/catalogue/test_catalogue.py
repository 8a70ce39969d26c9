"""The catalogue contains every class of the library, with a formula and a source, and all gradients
are right."""

import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import xpnet as xn
from xpnet.catalogue import FAMILIES, OTHERS, Item, page
from xpnet.catalogue import verify as verify_module
from xpnet.catalogue.verify import gradient_error, precision, verify

ITEMS = [item for items in FAMILIES.values() for item in items]
BASES = {"Layer", "Loss", "Optimizer", "Schedule"}

every_item = pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name)


def test_it_contains_every_class_once():
    public = [name for module in (xn.layers, xn.losses, xn.optim, xn.schedules)
              for name in module.__all__]
    classes = [item.name for item in ITEMS
               if isinstance(item.what, type) and hasattr(xn, item.name)]
    assert sorted(classes) == sorted(set(public) - BASES)


@every_item
def test_every_docstring_has_a_title_a_formula_and_a_source(item: Item):
    assert item.title and item.formula, item.what.__doc__
    assert re.search(r"[=:(]", item.formula) or item.common
    assert item.sources or item.common


with_gradient = pytest.mark.parametrize("item", [item for item in ITEMS if item.make],
                                        ids=lambda item: item.name)


@with_gradient
def test_gradients(item: Item):
    assert gradient_error(item, xn.Backend()) < 1e-6


@with_gradient
def test_every_backend_computes_the_same(item: Item, backend):
    """In float32, which most kernels are for, and in float64."""
    assert precision(item, backend).error <= 1e-6
    assert precision(item, backend, "float64").error <= 1e-12


def test_a_row_names_the_implementation_that_ran():
    """Pooling has a float32 kernel. So has batch norm, but its running statistics are plain array
    code."""
    pytest.importorskip("numba", reason="Numba is not installed")
    items, numba = {item.name: item for item in ITEMS}, xn.get_backend("numba")
    assert precision(items["AvgPool2d"], numba).ran == ("numba",)
    assert precision(items["AvgPool2d"], numba, "float64").ran == ("numpy",)
    assert precision(items["BatchNorm2d"], numba).ran == ("numba", "plain")
    assert precision(items["Flatten"], numba).ran == ()


def test_verify_checks_every_item():
    rows = list(verify({"numpy": xn.get_backend("numpy")}))
    assert [row.failures for row in rows if row.failures] == []
    assert [(row.family, row.name) for row in rows] == [
        (family, item.name) for family, items in FAMILIES.items() for item in items if item.make]


def test_verify_finds_a_kernel_that_is_wrong_in_float32_alone(monkeypatch):
    """Its float64 gradient is right, because NumPy computes it."""
    pytest.importorskip("numba", reason="Numba is not installed")
    from xpnet.backends.numba.kernels import pooling
    monkeypatch.setattr(verify_module, "FAMILIES", {"Pooling": FAMILIES["Pooling"]})
    kernel = pooling.avg_pool_dx
    monkeypatch.setattr(pooling, "avg_pool_dx",
                        lambda *args: (kernel(*args), args[-1].__imul__(1.01)))
    failing = {row.name: row.failures for row in verify({"numba": xn.get_backend("numba")})
               if row.failures}
    assert "AvgPool2d" in failing and all(len(failures) == 1 for failures in failing.values())
    assert failing["AvgPool2d"][0].startswith(
        "AvgPool2d on numba: check_precision: AvgPool2d: expected dx0 ")


def test_the_page_is_up_to_date():
    docs = Path(__file__).parents[2] / "docs"
    assert (docs / "catalogue.md").read_text(
        encoding="utf-8") == page.text(), "`make catalogue` regenerates the page"
    assert {path.stem for path in (docs / page.PICTURES).glob("*.png")} == {
        item.name for item in ITEMS if page.drawn(item)}


def test_the_command_writes_the_page_and_its_plots(tmp_path, monkeypatch):
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
    # Maxout is not elementwise
    assert {path.name for path in pictures} == {"Stair.png", "PReLU.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_a_curve_is_the_function_and_its_gradient():
    x = np.array([-2.0, -0.5, 0.5, 3.0])
    y, gradient = page.curve(xn.LeakyReLU(0.1), x)
    assert y.tolist() == [-0.2, -0.05, 0.5, 3.0] and gradient.tolist() == [0.1, 0.1, 1.0, 1.0]


@pytest.mark.parametrize("item", [item for item in ITEMS if item.pytorch],
                         ids=lambda item: item.name)
def test_names_in_pytorch(item: Item):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; it knows its own names")
    places = (torch.nn, torch.nn.functional, torch.nn.utils, torch.optim, torch.optim.lr_scheduler,
              torch)
    for name in re.sub(r"\(.*?\)", "", item.pytorch).split(", "):
        assert any(found(place, name.removeprefix("torch.")) for place in places), name


def found(place, name):
    """Whether the module has an attribute of this dotted name."""
    for part in name.split("."):
        place = getattr(place, part, None)
    return place is not None


def test_names_of_other_libraries_lead_to_names_that_exist():
    for other, ours in OTHERS.items():
        assert not hasattr(xn, other)
        for name in ours:
            module, _, last = (name if "." in name else f"xpnet.{name}").rpartition(".")
            if module == "xpnet.sklearn":
                pytest.importorskip("sklearn", reason="scikit-learn is not installed")
            assert getattr(import_module(module), last)
