"""The classes of a model: how many there are, or their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from xpnet.checks import expect_class_names, items
from xpnet.network import Network

Classes = int | Sequence[str]
Net = TypeVar("Net", bound=Network)


def count(who: str, classes: Classes) -> Any:
    """The number of classes; what is no list is checked by the layer that gets it."""
    return classes if items(classes) is None else len(expect_class_names(who, classes))


def named(net: Net, classes: Classes) -> Net:
    """The network, which knows the names of its classes if there are some."""
    if items(classes) is not None:
        net.classes = classes           # type: ignore[assignment]
    return net
