"""How an element of a value is computed: what it reads of each input, and the products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpnet.backends import activations
from xpnet.layer import Layer

Region = list[list[int]]        # [first, after the last one] of each axis; may lie outside
MOST_PRODUCTS = 64              # of a long sum that are listed


@dataclass
class Part:
    """What an element reads of one input of its layer.

    `values` are those of the taps, 0 on padding; `weights` and `products` have their shape. Of a
    long sum along the first axis only the largest products are there, with their `indices`, and
    `rest` is the sum of the others. `chosen` is the element that a maximum took. `inside` says
    that what is read is no input: "previous", the layer's own state of the step before, or "below",
    the states of the layer below inside a recurrent layer of several.
    """

    input: int
    region: Region
    values: np.ndarray | None = None
    weights: np.ndarray | None = None
    products: np.ndarray | None = None
    chosen: list[int] | None = None
    indices: list[int] | None = None
    rest: float | None = None
    inside: str | None = None

    def __post_init__(self) -> None:
        if self.products is None and self.values is not None and self.weights is not None:
            self.products = self.values * self.weights

    def shortened(self) -> Part:
        """With the largest products only."""
        values, weights, products = self.values, self.weights, self.products
        if values is None or weights is None or products is None or not (
                MOST_PRODUCTS < len(products) == products.size):
            return self
        values, weights, products = values.ravel(), weights.ravel(), products.ravel()
        order = np.argsort(-np.abs(products), kind="stable")
        first, others = order[:MOST_PRODUCTS], order[MOST_PRODUCTS:]
        return Part(self.input, self.region, values[first], weights[first], products[first],
                    indices=first.tolist(), rest=float(products[others].sum()),
                    inside=self.inside)


@dataclass
class Computed:
    """How a layer computes one element: value = f(total), total = sum of the products + bias."""

    kind: str
    formula: str
    parts: list[Part]
    bias: float | None = None
    total: float | None = None
    activation: str | None = None
    more: dict[str, Any] = field(default_factory=dict)      # gates, numbers of a batch norm

    @classmethod
    def summed(cls, layer: Layer, kind: str, formula: str, parts: list[Part],
               bias: float | None = None) -> Computed:
        """A sum of products, to which the layer's activation is applied if it has one."""
        total = sum(float(part.products.sum()) for part in parts if part.products is not None)
        activation = getattr(layer, "activation", None)
        if bias is not None:
            total, formula = total + bias, f"{formula} + b"
        if activation is not None:
            formula = f"{activation}({formula})"
        return cls(kind, formula, parts, bias, total, activation)


def host(layer: Layer, a: Any) -> np.ndarray:
    """An array of the layer's backend as float64 on the host."""
    return np.asarray(layer.backend.to_numpy(a)).astype(np.float64)


def activated(name: str | None, z: Any, constants: Sequence[float] | None = None) -> np.ndarray:
    """f(z) in float64."""
    z = np.asarray(z, np.float64)
    if name is None:
        return z
    entry = activations.ACTIVATIONS[name]
    given = entry.constants.values() if constants is None else constants
    with np.errstate(all="ignore"):
        return np.asarray(entry.forward(np, z, *given), np.float64)


def finite(value: Any) -> float | None:
    """A number as JSON has it: None for NaN and infinity."""
    return float(value) if value is not None and math.isfinite(value) else None


def element(x: np.ndarray, at: Sequence[int]) -> np.ndarray:
    """One element as an array with as many axes."""
    return x[tuple(slice(i, i + 1) for i in at)]


def region_of(at: Sequence[int]) -> Region:
    """The region that is one element."""
    return [[int(i), int(i) + 1] for i in at]
