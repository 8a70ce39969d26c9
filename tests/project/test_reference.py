"""The API reference of the site is complete: every public name has a page and a docstring."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest

import xpnet

EXTENSIONS = Path(__file__).parents[2] / "docs" / "extensions"
sys.path.insert(0, str(EXTENSIONS))
reference = importlib.import_module("reference")
public = importlib.import_module("public")
sys.path.remove(str(EXTENSIONS))


def test_every_name_in_an_all_is_public():
    """A new package is not forgotten. Names of layers, losses, ... are also names of xpnet."""
    known = {id(value) for value in public.public().values()}
    for found in pkgutil.iter_modules(xpnet.__path__, "xpnet."):
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            assert inspect.ismodule(value) or id(value) in known, f"{found.name}.{name}"


def test_every_public_name_has_a_page():
    """In PAGES of docs/extensions/public.py."""
    assert [path for path in public.public() if not public.place(path)] == []


def test_every_public_name_has_a_docstring():
    assert [path for path, what in public.public().items()
            if path not in public.CONSTANTS and not what.__doc__] == []


def test_every_public_method_has_a_docstring():
    """Methods that override one of a base class have its docstring."""
    missing = [f"{path}.{name}" for path, what in public.public().items()
               if inspect.isclass(what) for name, member in vars(what).items()
               if name[0] != "_" and (inspect.isroutine(member) or isinstance(member, property))
               and not inspect.getdoc(getattr(what, name))]
    assert missing == []


@pytest.mark.parametrize("page", public.PAGES)
def test_every_page_of_the_reference_has_its_names_once(page):
    names = public.names_of(page)
    text = reference.text(page)
    assert names and all(text.count(f":: {name}\n") <= 1 for name in names)
    assert not {name for name in names if f":: {name}\n" not in text} - public.CONSTANTS.keys()
