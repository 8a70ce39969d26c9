"""Checks of the convolutions by warpgroups: like base.py in norm, for every tile, with windows that
end anywhere; and mistakes they must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from kernel_setting import Mutant, base
from parity import distance, normal
from tiers import Number

from xpnet.backends import Window
from xpnet.backends.cupy import conv, plans, warpgroups
from xpnet.backends.cupy.backend import CupyBackend

TOLERANCE = 2e-6                # ||a - b|| / ||b|| against float64, with operands rounded to TF32
# x (C, H, W, N), filters, window, groups: rows of several tiles, channels and samples that do not
# fill one, pixels outside of the last tile, strides with and without windows for all pixels.
PROBLEMS: dict[str, tuple[tuple[int, int, int, int], int, Window, int]] = {
    "3x3": ((20, 3, 4, 32), 70, Window.make(3, padding=1), 1),
    "two tiles of samples": ((16, 1, 2, 512), 16, Window.make((1, 2)), 1),
    "points": ((40, 2, 3, 96), 24, Window.make(1), 1),
    "stride 2": ((32, 5, 4, 32), 16, Window.make(3, stride=2, padding=1), 1),
    "points, stride 2": ((16, 5, 5, 64), 32, Window.make(1, stride=2), 1),
    "5x5, stride 3": ((16, 7, 8, 32), 16, Window.make(5, stride=3, padding=2), 1),
    "dilated": ((16, 6, 5, 32), 20, Window.make(3, padding=2, dilation=2), 1),
    "groups": ((64, 3, 3, 32), 64, Window.make(3, padding=1), 2),
}


def tf32(a: np.ndarray) -> np.ndarray:
    """In float64, rounded to TF32 as these kernels do it: to nearest, ties to even."""
    bits = a.view(np.uint32)
    rounded = bits + np.uint32(0xfff) + (bits >> np.uint32(13) & np.uint32(1))
    rounded &= np.uint32(0xffffe000)
    return rounded.view(np.float32).astype(np.float64)


@contextmanager
def told(backend: CupyBackend, tile: warpgroups.Tile | None = None,
         gradient: warpgroups.Gradient | None = None, splits: int = 1) -> Iterator[None]:
    """Convolutions of every size are by warpgroups; with these tiles, if they are given."""
    def plan_gradient(F: int, C: int, taps: int, P: int, groups: int) -> Any:
        return gradient, plans.cut((0, 0), splits, P // warpgroups.LANES)

    with mock.patch.object(backend, "tf32", "always"), mock.patch.object(warpgroups, "WORTH", 0), \
            mock.patch.object(warpgroups, "plan_convolution",
                              (lambda *sizes: tile) if tile else warpgroups.plan_convolution), \
            mock.patch.object(warpgroups, "plan_gradient",
                              plan_gradient if gradient else warpgroups.plan_gradient):
        yield


def check(backend: CupyBackend, name: str,
          to_device: Callable[[np.ndarray], Any]) -> list[np.ndarray]:
    """One problem: y with bias and activation, dx, and dW, alone and added to what was there."""
    shape, F, window, groups = PROBLEMS[name]
    x, W = normal(*shape), normal(F, shape[0] // groups, *window.kernel, seed=1)
    dy, bias = normal(F, *window.output_size(*shape[1:3]), shape[3], seed=2), normal(F, seed=3)
    before = normal(*W.shape, seed=4)
    on = [to_device(a) for a in (x, W, dy, bias)]
    out = to_device(before)
    asked: list[str] = []
    faster = backend._faster

    def noted(method: str, ways: Any, *about: Any) -> str:
        asked.append(faster(method, ways, *about))
        return asked[-1]

    with mock.patch.object(backend, "_faster", noted):
        made = (backend.conv2d(on[0], on[1], window, groups=groups),
                backend.conv2d(on[0], on[1], window, groups=groups, bias=on[3], activation="tanh"),
                backend.conv2d_dx(on[2], on[1], shape, window, groups=groups),
                backend.conv2d_dW(on[0], on[2], window, groups=groups),
                backend.conv2d_dW(on[0], on[2], window, groups=groups, out=out, accumulate=True))
    assert set(asked) == {conv.WARPGROUPS}, f"{name}: {asked}"
    x, W, dy = (tf32(a) for a in (x, W, dy))
    dW = base.conv2d_dW(x, dy, window, groups=groups)
    y = base.conv2d(x, W, window, groups=groups)
    right = (y, np.tanh(y + bias[:, None, None, None]),
             base.conv2d_dx(dy, W, shape, window, groups=groups), dW, before + dW)
    results = [backend.to_numpy(a) for a in made]
    for what, result, exact in zip(("y", "tanh(y + b)", "dx", "dW", "dW +="), results, right,
                                   strict=True):
        error = distance(result, exact.astype(np.float32))
        assert error <= TOLERANCE, f"{name}: {what} is {error:.1e} away in norm"
    return results


GRIDS: dict[str, Any] = {}


def warpgroups_agree(backend: CupyBackend, words: list[str], number: Number) -> None:
    if any(word in kernel for word in words for kernel in warpgroups.kernels()["warpgroups"]):
        with told(backend):
            for name in PROBLEMS:
                try:
                    check(backend, name, backend.asarray)
                except RuntimeError as error:           # threads that wait forever
                    raise AssertionError(str(error)) from error


def every_instantiation(backend: CupyBackend) -> list[list[np.ndarray]]:
    """Each tile, with one split and with three."""
    made = []
    gradients = [(tile, splits) for tile in (warpgroups.NARROW, warpgroups.BROAD)
                 for splits in (1, 3)]
    for k, (gradient, splits) in enumerate(gradients):
        tile = warpgroups.CONVOLUTION[k % len(warpgroups.CONVOLUTION)]
        with told(backend, tile, gradient, splits):
            made.append(check(backend, "3x3", backend.asarray))
    return made


MUTANTS: dict[str, Mutant] = {
    "a slot is filled before all warps have read it": (
        "warpgroups", "- 1);\n            barrier_expect(full + slot, PAIR * sizeof(float));\n"
        "            copy_bulk", "- 2);\n            barrier_expect(full + slot, PAIR * "
        "sizeof(float));\n            copy_bulk", "warpgroups_agree"),
    "tiles are read before they have arrived": (
        "warpgroups", "barrier_wait(full + slot, round);\n#pragma",
        "barrier_wait(full + slot, round + 1);\n#pragma", "warpgroups_agree"),
    "the box of the next channel": ("warpgroups", "group * p.K + block * TILE_K",
                                    "group * p.K + block * TILE_K + 1", "warpgroups_agree"),
    "channels of filters and image in different order": (
        "warpgroups", "place % 4 * 2 + place % 8 / 4;", "place % 8;", "warpgroups_agree"),
    "filters are not rounded": ("warpgroups", "float_of(nearest_tf32(v));\n    }\n}",
                                "v;\n    }\n}", "warpgroups_agree"),
    "a tap of the filter gradient is one too far": (
        "warpgroups", "tap - i * w.KW) * w.dilation_w", "tap - i * w.KW + 1) * w.dilation_w",
        "warpgroups_agree"),
    "a gradient replaces what is there": ("warpgroups", "*to = accumulate ? *to + sum",
                                          "*to = accumulate ? sum", "warpgroups_agree"),
    "the pixels of a cell are one too far": ("warpgroups", "group * p.c_group + spread.first;",
                                             "group * p.c_group;", "warpgroups_agree"),
}
