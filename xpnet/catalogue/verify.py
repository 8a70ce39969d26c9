"""The gradient checks of the whole catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from xpnet.backends import Backend
from xpnet.catalogue import FAMILIES, Item
from xpnet.losses import Loss
from xpnet.testing import check_gradients, check_loss

BATCH = 3


def gradient_error(item: Item, backend: Backend) -> float:
    """The relative error of the item's gradient against finite differences; AssertionError where it is too large."""
    assert item.make is not None
    example, rng = item.make(), np.random.default_rng(0)
    inputs = None if item.inputs is None else item.inputs(rng, BATCH)
    if isinstance(example, Loss):
        assert item.target is not None
        return check_loss(example, item.shapes[0], item.target(rng, BATCH), backend=backend,
                          y=None if inputs is None else inputs[0])
    return check_gradients(example, *item.shapes, batch=BATCH, backend=backend, inputs=inputs)


def verify(backends: Mapping[str, Backend]) -> Iterator[tuple[str, str, dict[str, float | str]]]:
    """(family, item, {backend: relative error, or what went wrong}) of each item that has a gradient, as they are checked."""
    for family, items in FAMILIES.items():
        for item in items:
            if item.make is None:
                continue
            row: dict[str, float | str] = {}
            for name, backend in backends.items():
                try:
                    with backend.scope():
                        row[name] = gradient_error(item, backend)
                except Exception as error:      # one item's failure is its row; the others are checked all the same
                    row[name] = f"{item.name} on {name}: {error}"
            yield family, item.name, row
