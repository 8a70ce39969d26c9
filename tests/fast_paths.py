"""Windows near the conditions of fast paths, and a record of which path a call takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest

from xpnet.backends import Window

BATCHES = (1, 3, 4, 8, 17)
CHANNELS = (1, 2, 5)


class Axis(NamedTuple):
    """One axis of a map and of a window on it."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int = 1

    @property
    def extent(self) -> int:
        return self.dilation * (self.kernel - 1) + 1

    @property
    def outputs(self) -> int:
        return (self.size + self.before + self.after - self.extent) // self.stride + 1

    @property
    def usable(self) -> bool:
        """Whether there are windows, and each sees an element of the map."""
        starts = range(-self.before, self.size + self.after - self.extent + 1, self.stride)
        return len(starts) > 0 and all(
            any(0 <= start + k * self.dilation < self.size for k in range(self.kernel))
            for start in starts)


def axes() -> list[Axis]:
    """Small axes: kernels of 1 to 4, strides of 1 to 4, every padding on either side, dilations."""
    found = []
    for kernel, stride, dilation in product((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3)):
        if dilation > 1 and kernel not in (2, 3):
            continue
        extent = dilation * (kernel - 1) + 1
        for before, after, size in product(range(extent), range(extent), (1, 2, 3, 4, 6, 7, 8)):
            axis = Axis(size, kernel, stride, before, after, dilation)
            if axis.usable and (dilation == 1 or (before + 2 * after + size) % 4 == 0):
                found.append(axis)
    return found


def nearly_tiled() -> list[Axis]:
    """Axes whose windows lie side by side and are together as long as the map.

    With padding in front they lie beside the map, and do not tile it.
    """
    return [axis for axis in axes() if axis.kernel == axis.extent == axis.stride
            and axis.outputs * axis.kernel == axis.size]


def pairs(some: list[Axis], step: int, most: int) -> Iterator[tuple[Axis, Axis]]:
    """At most `most` pairs (rows, columns): the columns lie elsewhere in the list than the rows."""
    for k in range(0, len(some), -(-len(some) // most)):
        yield some[k], some[(k * step + step) % len(some)]


def windows() -> list[tuple[tuple[int, int, int, int], Window]]:
    """(shape of x, window) of axes in pairs, so that rows and columns differ in everything."""
    tiled = nearly_tiled()
    chosen = [*pairs(axes(), 7, 450), *pairs(axes(), 11, 150), *pairs(tiled, 5, 60),
              *pairs(tiled, 1, 60), *((axis, axis) for axis in tiled)]
    found = []
    for k, (rows, columns) in enumerate(chosen):
        window = Window((rows.kernel, columns.kernel), (rows.stride, columns.stride),
                        (rows.before, rows.after, columns.before, columns.after),
                        (rows.dilation, columns.dilation))
        C, N = CHANNELS[k % len(CHANNELS)], BATCHES[k % len(BATCHES)]
        found.append(((C, rows.size, columns.size, N), window))
    return found


class Trace:
    """Words about the calls of functions, in their order: trace.watch(owner, "name", "word")."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.words: list[str] = []
        self._monkeypatch = monkeypatch

    def watch(self, owner: Any, name: str, about: str | Callable[..., str]) -> None:
        """Each call of owner.name adds `about`, or what about(result, *arguments) says."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def watched(*args: Any, **options: Any) -> Any:
            place = len(self.words)
            self.words.append("")
            result = function(*args, **options)
            self.words[place] = about if isinstance(about, str) else about(result, *args, **options)
            return result
        self._monkeypatch.setattr(owner, name, watched)

    def take(self) -> str:
        """What was said since the last call: each word once, in the order of first calls."""
        words, self.words = self.words, []
        return ", ".join(dict.fromkeys(word for word in words if word))
