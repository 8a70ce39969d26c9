"""Checks of the whole catalogue: every gradient, and the results of every backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.tracing import trace
from xpnet.catalogue import FAMILIES, Item
from xpnet.losses import Loss
from xpnet.testing import check_gradients, check_loss, check_loss_precision, check_precision

BATCH = 3
TF32 = 2e-3     # relative error of float32 operands rounded to TF32, with 10 bits of fraction


class Precision(NamedTuple):
    """The error of a backend's float32 results relative to the float64 reference, and the
    implementations that computed them."""

    error: float
    ran: tuple[str, ...]    # of "numpy", "numba", "cupy", "plain"; () if the item is array code


class Row(NamedTuple):
    """The results of one item; a string if a check failed."""

    family: str
    name: str
    gradient: float | str
    backends: dict[str, Precision | str]

    @property
    def failures(self) -> list[str]:
        return [result for result in (self.gradient, *self.backends.values())
                if isinstance(result, str)]


def gradient_error(item: Item, backend: Backend) -> float:
    """The relative error of the item's gradient in float64 against finite differences.

    Raises AssertionError if it is too large.
    """
    example, inputs, target = _example(item)
    if isinstance(example, Loss):
        y = None if inputs is None else inputs[0]
        return check_loss(example, item.shapes[0], target, backend=backend, y=y)
    return check_gradients(example, *item.shapes, batch=BATCH, backend=backend, inputs=inputs)


def precision(item: Item, backend: Backend, dtype: str = "float32") -> Precision:
    """The relative error of the item's output and gradients on a backend against the float64
    reference.

    Raises AssertionError if it is too large.
    """
    example, inputs, target = _example(item)
    rounded = dtype == "float32" and getattr(backend, "tf32", "never") != "never"
    tolerance = TF32 if rounded else None
    with trace(backend) as ran:
        if isinstance(example, Loss):
            y = None if inputs is None else inputs[0]
            error = check_loss_precision(example, item.shapes[0], target, backend=backend,
                                         dtype=dtype, y=y, tolerance=tolerance)
        else:
            error = check_precision(example, *item.shapes, backend=backend, batch=BATCH,
                                    dtype=dtype, inputs=inputs, tolerance=tolerance)
    return Precision(error, tuple(sorted({implementation for _, implementation in ran})))


def _example(item: Item) -> tuple[Any, tuple[np.ndarray, ...] | None, np.ndarray | None]:
    """The item's example, its inputs if it has special ones, and its targets if it is a loss."""
    assert item.make is not None
    rng = np.random.default_rng(0)
    inputs = None if item.inputs is None else item.inputs(rng, BATCH)
    return item.make(), inputs, None if item.target is None else item.target(rng, BATCH)


def verify(backends: Mapping[str, Backend]) -> Iterator[Row]:
    """Check each item that has a gradient, and yield its row.

    The gradient is that of the reference implementation. Each backend is then compared with it, in
    float32, which most kernels are for, and in float64.
    """
    for family, items in FAMILIES.items():
        for item in items:
            if item.make is None:
                continue
            gradient: float | str
            try:
                gradient = gradient_error(item, Backend())
            # a failure is the result of its row; the other items are still checked
            except Exception as error:
                gradient = f"{item.name}: {error}"
            row: dict[str, Precision | str] = {}
            for name, backend in backends.items():
                try:
                    with backend.scope():
                        precision(item, backend, "float64")
                        row[name] = precision(item, backend)
                except Exception as error:
                    row[name] = f"{item.name} on {name}: {error}"
            yield Row(family, item.name, gradient, row)
