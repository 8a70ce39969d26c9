"""Bringing raw numbers, such as the bytes of pictures, to the size that networks learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import items, wrong
from xpnet.layer import PREDICT, Array, Layer, Shape


class Rescale(Layer):
    """Fixed scaling of the input: Y = (X - mean) / std, dX = dY / std.

    X (C, ..., N), Y the same; mean and std are numbers, or one for each channel. As the first
    layer, Rescale(std=255) lets pictures stay bytes until they are on the backend, and the saved
    network knows how its input is to be read. ValueError for a std of 0, and for lists of another
    length than the channels.
    """

    kind = "rescale"

    def __init__(self, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0, *,
                 name: str | None = None
                 ) -> None:
        super().__init__(name=name)
        self.mean, self.std = self._numbers("mean", mean), self._numbers("std", std)
        if 0.0 in (self.std if isinstance(self.std, list) else [self.std]):
            raise wrong(self.who, "a std other than 0", "std", std)

    def _numbers(self, name: str, value: float | Sequence[float]) -> float | list[float]:
        if (numbers := items(value)) is not None:
            return [self.expect_number(f"each of {name}", number) for number in numbers]
        return self.expect_number(name, value)

    def build(self, in_shape: Shape) -> Shape:
        for name, value in (("mean", self.mean), ("std", self.std)):
            if isinstance(value, list) and len(value) != in_shape[0]:
                raise ValueError(f"{self.who}: expected a {name} for each of {in_shape[0]} "
                                 f"channels. Received: {len(value)}.")
        return in_shape

    def bind(self, backend: Backend, seed: int, index: int, counters: Array) -> None:
        super().bind(backend, seed, index, counters)
        self._mean, self._std = (self._per_channel(value) for value in (self.mean, self.std))

    def _per_channel(self, value: float | list[float]) -> float | Array:
        """A number, or (C, 1, .., 1) on the backend."""
        if not isinstance(value, list):
            return value
        return (self.backend.asarray(np.array(value),
                                     self.buffers.dtype).reshape(-1,
                                                                 *(1,) * len(self.in_shapes[0])))

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        y = x - self._mean
        y /= self._std
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        self.recall()
        return dy / self._std if self.needs_dx else None
