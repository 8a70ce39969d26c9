"""Windows near the conditions of fast paths, and a record of the path that a call takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from parity import distance, normal

from xpnet.backends import Backend, Window

Ways = tuple[str, str, str]         # of the output, the input gradient, the filters' gradient

BASE = Backend()
BATCHES = (1, 3, 4, 8, 17)
CHANNELS = (1, 2, 5)


U = Window((3, 2), padding=(1, 0, 0, 1))                # different in everything
W3 = Window((3, 3), padding=(0, 1, 2, 0))


class Case(NamedTuple):
    """A convolution of feature maps (C, H, W, N) with F filters, and the paths of its output and
    gradients."""

    shape: tuple[int, int, int, int]
    window: Window
    F: int
    ways: Ways
    groups: int = 1


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
        """Whether there are windows, and each contains an element of the map."""
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


def side_by_side() -> tuple[list[Axis], list[Axis]]:
    """Axes with adjacent windows that together are as long as the map, and others.

    If the first ones have padding in front, they are shifted and do not tile the map.
    """
    alike = [axis for axis in axes() if axis.kernel == axis.extent == axis.stride]
    as_long = [axis.outputs * axis.kernel == axis.size for axis in alike]
    return ([axis for axis, yes in zip(alike, as_long, strict=True) if yes],
            [axis for axis, yes in zip(alike, as_long, strict=True) if not yes])


def pairs(some: list[Axis], step: int, most: int) -> Iterator[tuple[Axis, Axis]]:
    """At most `most` pairs (rows, columns), taken from different positions of the list."""
    for k in range(0, len(some), -(-len(some) // most)):
        yield some[k], some[(k * step + step) % len(some)]


def windows() -> list[tuple[tuple[int, int, int, int], Window]]:
    """(shape of x, window) of pairs of axes, so that rows and columns differ in everything."""
    tiled, others = side_by_side()
    mixed = [(axis, others[5 * k % len(others)]) for k, axis in enumerate(tiled)]
    chosen = [*pairs(axes(), 7, 400), *pairs(axes(), 11, 100), *pairs(tiled, 5, 60),
              *pairs(tiled, 1, 60), *((axis, axis) for axis in tiled), *mixed,
              *((columns, rows) for rows, columns in mixed)]
    found = []
    for k, (rows, columns) in enumerate(chosen):
        window = Window((rows.kernel, columns.kernel), (rows.stride, columns.stride),
                        (rows.before, rows.after, columns.before, columns.after),
                        (rows.dilation, columns.dilation))
        C, N = CHANNELS[k % len(CHANNELS)], BATCHES[k % len(BATCHES)]
        found.append(((C, rows.size, columns.size, N), window))
    return found


def larger_windows() -> Iterator[tuple[tuple[int, int, int, int], Window, int, int]]:
    """(shape of x, window, filters, groups); rows that are cut into parts, and much padding."""
    for k, ((_, H, W, N), window) in enumerate(windows()[::8]):
        groups = (1, 1, 2, 5)[k % 4]
        C, F = groups * (17, 3, 5)[k % 3], groups * (2, 9, 13)[k // 3 % 3]
        yield (C, H + 6, W + 5, N), window, F, groups
    for k, stride in enumerate([(1, 1), (2, 1), (1, 2), (3, 1), (2, 3)]):
        for dilation in ((1, 1), (2, 1), (1, 3)):
            window = Window((3, 2), stride, (1, 2, 1, 0), dilation)
            yield (6, 5, 15, (131, 70)[k % 2]), window, 4, 1 + k % 2
    for stride in ((1, 1), (1, 2), (3, 2)):                             # padding above the extent
        for padding in ((4, 1, 0, 5), (0, 3, 6, 1)):
            yield (6, 3, 4, 9), Window((2, 3), stride, padding), 4, 1 + padding[0] % 3


class Trace:
    """Records a word for each call of a function, in order: trace.watch(owner, "name", "word")."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.words: list[str] = []
        self._monkeypatch = monkeypatch

    def watch(self, owner: Any, name: str, about: str | Callable[..., str]) -> None:
        """Each call of owner.name adds `about`, or the result of about(result, *arguments)."""
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
        """The words since the last call of `take`, each once, in the order of first calls."""
        words, self.words = self.words, []
        return ", ".join(dict.fromkeys(word for word in words if word))


def ways_of(backend: Backend, shape: tuple[int, ...], window: Window, F: int, groups: int,
            dtype: Any, trace: Trace, bound: float = 1e-5) -> Ways:
    """Compare a convolution and both gradients with base.py in float64. Returns the path of
    each."""
    OH, OW = window.output_size(*shape[1:3])
    exact = [normal(*shape), normal(F, shape[0] // groups, *window.kernel, seed=1),
             normal(F, seed=2), normal(F, OH, OW, shape[3], seed=3)]
    exact.append(normal(*exact[1].shape, seed=4))
    x, W, bias, dy, before = (a.astype(np.float64) for a in exact)
    expected = (BASE.conv2d(x, W, window, groups=groups, bias=bias, activation="relu"),
                BASE.conv2d_dx(dy, W, shape, window, groups=groups),
                BASE.conv2d_dW(x, dy, window, groups=groups) + before)
    x, W, bias, dy, out = (backend.asarray(a, dtype) for a in exact)
    calls = (lambda: backend.conv2d(x, W, window, groups=groups, bias=bias, activation="relu"),
             lambda: backend.conv2d_dx(dy, W, shape, window, groups=groups),
             lambda: backend.conv2d_dW(x, dy, window, groups=groups, out=out, accumulate=True))
    ways = []
    for call, right in zip(calls, expected, strict=True):
        result = call()
        ways.append(trace.take())
        assert result.dtype == dtype and result.flags.c_contiguous
        most = bound if dtype == np.float32 else 1e-12
        assert distance(backend.to_numpy(result), right) < most, (shape, window, F, groups, ways)
    return ways[0], ways[1], ways[2]
