"""Checks of im2col, max_pool and dropout: to the bit like base.py, over a grid of problems; of
depthwise convolution, like base.py in norm; and mistakes they must notice."""

from __future__ import annotations

import numpy as np
from fused_checks import activation, double, drawn, near, near_enough
from kernel_setting import Mutant, Setting, base, wide
from parity import ties

from xpnet.backends import Window
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.backend import CupyBackend


def check_im2col(s: Setting) -> None:
    x = s.array(s.shape)
    s.agree(s.backend.im2col(s.to_device(x), s.window), base.im2col(x, s.window))


def check_col2im(s: Setting) -> None:
    C, OH, OW, N = s.output()
    cols = s.array((C * s.window.taps, OH * OW * N))
    s.agree(s.backend.col2im(s.to_device(cols), s.shape, s.window),
            base.col2im(wide(s, cols), s.shape, s.window).astype(s.dtype))


def check_max_pool2d(s: Setting) -> None:
    if not all(taps.any(axis=1).all() for taps in s.window.inside(*s.shape[1:3])):
        return  # a window that is all padding: the layers refuse it, the contract leaves it open
    x = s.array(s.shape)
    s.agree(s.backend.max_pool2d(s.to_device(x), s.window), base.max_pool2d(x, s.window))


def check_max_pool2d_dx(s: Setting) -> None:
    dy = s.array(s.output())
    # any tap, on padding too
    taps = np.random.default_rng(dy.size).integers(0, s.window.taps, dy.shape)
    argmax = taps.astype(base.argmax_dtype(s.window))
    s.agree(s.backend.max_pool2d_dx(s.to_device(dy), s.to_device(argmax), s.shape, s.window),
            base.max_pool2d_dx(wide(s, dy), argmax, s.shape, s.window).astype(s.dtype))


def check_dropout(s: Setting) -> None:
    x, (key, step, use, p) = s.array(s.shape), ((2**64 - 1, x_size := int(np.prod(s.shape))),
                                                x_size, 2**64 - 1, 0.3)
    counter = np.array([step, use], np.uint64)
    s.agree(s.backend.dropout(s.to_device(x), p, key, s.to_device(counter)),
            base.dropout(x, p, key, counter))
    n = max(x_size - s.offset, 1)
    s.agree(s.backend.random_bits(n, key, s.to_device(counter)), base.random_bits(n, key, counter))


def check_depthwise(s: Setting) -> None:
    """Up to four filters for each channel, with a bias and an activation; every gradient."""
    _, H, W, N = s.shape
    C, per = s.shape[0] + 1, 1 + N % 4                 # one channel is no group of its own
    x, dy = drawn(s, C, H, W, N), drawn(s, per * C, *s.output()[1:], seed=1)
    filters, bias = drawn(s, per * C, 1, *s.window.kernel, seed=2), drawn(s, per * C, seed=3)
    on = [s.to_device(a) for a in (x, dy, filters)]
    f, groups = activation(s), {"groups": C}
    near(s, s.backend.conv2d(on[0], on[2], s.window, **groups, bias=s.to_device(bias),
                             activation=f),
         base.conv2d(double(x), double(filters), s.window, **groups, bias=double(bias),
                     activation=f))
    near(s, s.backend.conv2d(on[0], on[2], s.window, **groups),
         base.conv2d(double(x), double(filters), s.window, **groups))
    near(s, s.backend.conv2d_dx(on[1], on[2], x.shape, s.window, **groups),
         base.conv2d_dx(double(dy), double(filters), x.shape, s.window, **groups))
    right = base.conv2d_dW(double(x), double(dy), s.window, **groups)
    for accumulate in (False, True):
        before = drawn(s, *filters.shape, seed=4)
        out = s.to_device(before)
        s.backend.conv2d_dW(on[0], on[1], s.window, **groups, out=out, accumulate=accumulate)
        near_enough(s, out, right + double(before) * accumulate, right)


GRIDS = {"im2col": check_im2col, "col2im": check_col2im, "max_pool2d": check_max_pool2d,
         "max_pool2d_dx": check_max_pool2d_dx, "dropout": check_dropout,
         "depthwise": check_depthwise}


def every_instantiation(backend: CupyBackend) -> None:
    """Asks for each kernel of these families once."""
    for dtype in cuda_launch.TYPES:
        for N in (*cuda_launch.widths(dtype), 3):
            for window in (Window.make(2, padding=1), Window.make(2, stride=2),
                           Window.make((16, 17), padding=(15, 0, 16, 0)),
                           Window.make((16, 17), stride=17, padding=(15, 0, 16, 0))):
                s = Setting(backend, (1, 3, 3, N), window, dtype, ties, 0, False)
                for check in GRIDS.values():
                    check(s)
        for H in range(1, len(cuda_launch.ACTIVATIONS) + 1):        # each activation
            for N in (1, cuda_launch.widths(dtype)[-1]):
                check_depthwise(Setting(backend, (1, H, 2, N), Window.make(1), dtype, ties, 0,
                                        False))


# Mistakes: the file, what stands there, what stands there instead, and the check that has to
# notice.
MUTANTS: dict[str, Mutant] = {
    "im2col reads one column to the right": ("im2col", "ix = column - w.left;",
                                             "ix = column - w.left + 1;", "im2col"),
    "im2col reads one row further down": ("im2col", "iy = (int)line - w.top, ix",
                                          "iy = (int)line - w.top + 1, ix", "im2col"),
    "a cell's last element belongs to the next tap": (
        "max_pool", "i < w.KH && j < w.KW ?", "i < w.KH && j <= w.KW ?", "max_pool2d_dx"),
    "im2col takes padding for input": ("im2col", "inside(ix, w.W);", "inside(ix, w.W + 1);",
                                       "im2col"),
    "im2col writes one element later": ("im2col", "store(cols + column_at(c, i, j, oy, ox, w) + n",
                                        "store(cols + column_at(c, i, j, oy, ox, w) + n + 1",
                                        "im2col"),
    "im2col leaves out the last column": ("im2col", "FOR_COLUMNS(column, columns)",
                                          "FOR_COLUMNS(column, columns - 1)", "im2col"),
    "col2im counts one window too many": ("taps", "return o < windows", "return o <= "
                                                                        "windows", "col2im"),
    "col2im ignores dilation": ("taps", "tap * dilation == distance ?", "tap * dilation >= 0 "
                                                                        "?", "col2im"),
    "col2im reads another row": ("im2col", "load<V>(cols + column_at(c, i, j, oy,",
                                 "load<V>(cols + column_at(c, i, j, oy + 1,", "col2im"),
    "the last of equal values wins": ("max_pool", "v > best", "v >= best", "max_pool2d"),
    "a NaN does not win": ("max_pool", "v != v &&", "v == v &&", "max_pool2d"),
    "-inf is not taken": ("max_pool", "bool first = true;", "bool first = false;", "max_pool2d"),
    "the winner is the next tap": ("max_pool", "Index(tap + u)", "Index(tap + u + 1)",
                                   "max_pool2d"),
    "the second row of a window begins at its second tap": (
        "taps", "j = 0, i++", "j = 1, i++", "max_pool2d"),
    "dy goes to the next tap": ("max_pool", "== i * w.KW + j)", "== i * w.KW + j + 1)",
                                "max_pool2d_dx"),
    "dy of another window": ("max_pool", "w.OH + oy) * w.OW + ox) * w.N + n;\n                "
                                         "const Vec<Index",
                             "w.OH + oy) * w.OW + ox + 1) * w.N + n;\n                const "
                             "Vec<Index", "max_pool2d_dx"),
    "the counter is not incremented": ("dropout", "block + 1, 0", "block, 0", "dropout"),
    "the high half comes first": ("dropout", "(h % 2)", "(1 - h % 2)", "dropout"),
    "the end is one word early": ("dropout", "block * 8 + h < n)", "block * 8 + h < n - 1)",
                                  "dropout"),
    "rows between two strides are left out": ("common", "row += gridDim.y * blockDim.z",
                                              "row += gridDim.y * blockDim.z + 1", "small_grids"),
    "columns between two strides are left out": (
        "common", "column += gridDim.x * blockDim.y", "column += gridDim.x * blockDim.y + 1",
        "small_grids"),
    "words of the next thread": ("dropout", "vector / PARTS)", "(vector / PARTS + 1) % lanes)",
                                 "dropout"),
}
MUTANTS |= {
    "a strip leaves out its last row": ("depthwise", "if (oy + r >= w.OH)",
                                        "if (oy + r + 1 >= w.OH)", "depthwise"),
    "a row is read with the tap of another output": ("depthwise", "tap_at(t, r,",
                                                     "tap_at(t, r > 1 ? 1 : r,", "depthwise"),
    "the filters of an input gradient are not flipped": (
        "depthwise", "flipped ? -1 : 1", "flipped ? 1 : 1", "depthwise"),
    "each filter of a channel reads the next map": ("depthwise", "(i64)(f / per) * w.H * w.W * "
                                                                 "w.N;\n            for",
                                                    "(i64)(f / per % 2) * w.H * w.W * "
                                                    "w.N;\n            for", "depthwise"),
    "an input gradient with stride takes the first row of the filter": (
        "depthwise", "(f * w.KH + i) * w.KW + j]", "f * w.KH * w.KW + j]", "depthwise"),
    "a piece goes on to the last row": ("depthwise", "min(begin + length, w.OH)",
                                        "w.OH + 0 * length", "depthwise"),
    "every tile of taps is the first one": ("depthwise", "tile / across * HIGH",
                                            "0 * (tile / across)", "depthwise"),
}
READS_TOO_MUCH = "im2col reads from padding, then forgets it"
MUTANTS[READS_TOO_MUCH] = ("im2col", "if (on_input) value = load<V>(x + (((i64)c * w.H + iy) * w.W "
                                     "+ ix) * w.N + n);",
                           "value = load<V>(x + (((i64)c * w.H + iy) * w.W + ix) * w.N + n); "
                           "if (!on_input) value = {};", "im2col")
