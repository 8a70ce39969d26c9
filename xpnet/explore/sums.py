"""How convolutions, pooling and products compute an element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpnet import layers as xl
from xpnet.explore.parts import Computed, Part, Region, host
from xpnet.layers.pooling import spans
from xpnet.layers.signals import OneRow

Place = tuple[int, ...]
Rule = Callable[[Any, Sequence[np.ndarray], Place], Computed]


def of_rows(rule: Rule) -> Rule:
    """The rule of a layer of maps, for a layer of signals as well, which are maps of one row."""

    def signal(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
        if not isinstance(layer, OneRow):
            return rule(layer, xs, at)
        found = rule(layer, [x[:, None] if x.ndim == 2 else x for x in xs],
                     (at[0], 0, at[1]) if len(at) == 2 else at)
        for part in found.parts:
            part.region = [part.region[0], part.region[2]]
            for name in ("values", "weights", "products"):
                if (a := getattr(part, name)) is not None:
                    setattr(part, name, a[:, 0])
            if part.chosen is not None:
                part.chosen = [part.chosen[0], part.chosen[2]]
        return found

    return signal


def taken(x: np.ndarray, channels: slice, rows: np.ndarray, columns: np.ndarray
          ) -> tuple[np.ndarray, np.ndarray]:
    """x (C, H, W) at these rows and columns, 0 outside, and (rows, columns) whether it is inside.
    """
    inside = np.outer((rows >= 0) & (rows < x.shape[1]), (columns >= 0) & (columns < x.shape[2]))
    found = x[channels][:, np.clip(rows, 0, x.shape[1] - 1)][
        :, :, np.clip(columns, 0, x.shape[2] - 1)]
    return np.where(inside, found, 0.0), inside


def taps(window: Any, y: int, x: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and the columns that the window of an output element reads."""
    top, _, left, _ = window.padding
    return (y * window.stride[0] - top + np.arange(window.kernel[0]) * window.dilation[0],
            x * window.stride[1] - left + np.arange(window.kernel[1]) * window.dilation[1])


def around(channels: slice, rows: np.ndarray, columns: np.ndarray) -> Region:
    """The region from the first to the last of them."""
    spans = [[int(a[0]), int(a[-1]) + 1] if len(a) else [0, 0] for a in (rows, columns)]
    return [[channels.start, channels.stop], *spans]


# --- convolution ----------------------------------------------------------------------------------

@of_rows
def convolution(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    f, y, x = at
    W, x0 = host(layer, layer.kernel()), xs[0]                          # (F, C/groups, KH, KW)
    per_group = W.shape[1]
    first = f // (len(W) // layer.groups) * per_group
    return _windowed(layer, x0, slice(first, first + per_group), layer.window, (y, x), W[f],
                     _bias(layer, at))


def separable(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """The two convolutions have no activation between them: their product is one filter."""
    f, y, x = at
    D, P = host(layer, layer.depthwise.W.data), host(layer, layer.pointwise.W.data)
    m = layer.depth_multiplier
    combined = (P[f, :, :, 0, None] * D[:, 0]).reshape(-1, m, *D.shape[2:]).sum(axis=1)
    return _windowed(layer.pointwise, xs[0], slice(0, len(combined)), layer.window, (y, x),
                     combined, _bias(layer.pointwise, at))


def local(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    f, y, x = at
    W = host(layer, layer.W.data[y, x, f])                              # (C, KH, KW)
    b = None if layer.b is None else float(host(layer, layer.b.data[y, x, f]))
    return _windowed(layer, xs[0], slice(0, len(W)), layer.window, (y, x), W, b)


def _windowed(layer: Any, x: np.ndarray, channels: slice, window: Any, place: Place,
              W: np.ndarray, b: float | None) -> Computed:
    rows, columns = taps(window, *place)
    values, _ = taken(x, channels, rows, columns)
    part = Part(0, around(channels, rows, columns), values, W)
    return Computed.summed(layer, "convolution", "sum of w x", [part], b)


def _bias(layer: Any, at: Place) -> float | None:
    """b[f], or b[f, y, x] of a map of biases."""
    if layer.b is None:
        return None
    b = host(layer, layer.b.data)
    return float(b.reshape(len(b), -1)[at[0], 0] if layer.bias != "map" else
                 b.reshape(layer.filters, *b.shape[1:] if b.ndim == 3 else (1, b.shape[1]))[at])


@of_rows
def transposed(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """y[k, oy, ox] = sum over the rows r and columns q of W[c, k, i, j] x[c, r, q], with i = (oy +
    top - r s) / d where that is a tap, j likewise; all other weights are 0."""
    k, oy, ox = at
    x, window = xs[0], layer.slide
    W = host(layer, layer.W.data)                                       # (C, F/groups, KH, KW)
    W = W.reshape(*W.shape[:2], *window.kernel)
    per_group = W.shape[1]
    C = len(W) // layer.groups
    channels = slice(k // per_group * C, (k // per_group + 1) * C)
    axes = [_meeting(place + window.padding[2 * axis], window.stride[axis], window.dilation[axis],
                     window.kernel[axis]) for axis, place in enumerate((oy, ox))]
    (rows, i), (columns, j) = axes
    met = np.outer(i >= 0, j >= 0)
    weights = np.where(met, W[channels, k % per_group][:, np.maximum(i, 0)][:, :, np.maximum(j, 0)],
                       0.0)
    values, _ = taken(x, channels, rows, columns)
    part = Part(0, around(channels, rows, columns), values, weights)
    return Computed.summed(layer, "convolution", "sum of w x", [part], _bias(layer, at))


def _meeting(place: int, stride: int, dilation: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The elements r of x from the first to the last that add to the output at `place`, with the
    tap that each of them meets it with; -1 for none."""
    first = -(-(place - (size - 1) * dilation) // stride)
    r = np.arange(first, place // stride + 1)
    tap, rest = np.divmod(place - r * stride, dilation)
    return r, np.where((rest == 0) & (tap < size), tap, -1)


# --- pooling --------------------------------------------------------------------------------------

def _window_of(layer: Any, x: np.ndarray, at: Place) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns that are pooled."""
    _, H, W = x.shape
    if isinstance(layer, xl.GlobalAvgPool2d | xl.GlobalMaxPool2d):
        return np.arange(H), np.arange(W)
    if isinstance(layer, xl.AdaptiveAvgPool2d | xl.AdaptiveMaxPool2d):
        rows, columns = (spans(size, count)[i] for size, count, i
                         in zip((H, W), layer._size, at[1:], strict=True))
        return np.arange(*rows), np.arange(*columns)
    return taps(layer.window, *at[1:])


@of_rows
def largest(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """The first of equal values wins, and a NaN over everything; padding never wins."""
    c, x = at[0], xs[0]
    rows, columns = _window_of(layer, x, at)
    values, inside = taken(x, slice(c, c + 1), rows, columns)
    candidates = np.where(inside, values[0], -np.inf)
    if not np.isnan(candidates).any() and (candidates == -np.inf).all():
        best = int(np.flatnonzero(inside)[0])       # all of them are -infinity
    else:
        best = int(candidates.argmax())
    i, j = divmod(best, len(columns))
    part = Part(0, around(slice(c, c + 1), rows, columns), values,
                chosen=[c, int(rows[i]), int(columns[j])])
    return Computed("pooling", "max of x", [part], total=float(values[0, i, j]))


@of_rows
def mean(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    c, x = at[0], xs[0]
    rows, columns = _window_of(layer, x, at)
    values, counted = taken(x, slice(c, c + 1), rows, columns)
    if isinstance(layer, xl.AvgPool2d) and layer.count_include_pad:
        _, bottom, _, right = layer._given_padding      # what ceil_mode added does not count
        counted = np.outer(rows < x.shape[1] + bottom, columns < x.shape[2] + right)
    part = Part(0, around(slice(c, c + 1), rows, columns), values,
                np.where(counted, 1.0 / counted.sum(), 0.0)[None])
    return Computed.summed(layer, "pooling", "mean of x", [part])


def subsampling(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    c = at[0]
    rows, columns = taps(layer.window, *at[1:])
    values, _ = taken(xs[0], slice(c, c + 1), rows, columns)
    part = Part(0, around(slice(c, c + 1), rows, columns), values,
                np.full(values.shape, host(layer, layer.a.data)[c]))
    return Computed.summed(layer, "pooling", "a sum of x", [part],
                           float(host(layer, layer.b.data)[c]))


@of_rows
def interpolated(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """Borders and interpolation: Y[c] = A X[c] B^T."""
    c, *place = at
    axes = [(m.column[m.row == i], m.weight[m.row == i])
            for m, i in zip(layer.matrices(*xs[0].shape[1:]), place, strict=True)]
    (rows, a), (columns, b) = ((np.arange(at.min(), at.max() + 1), _dense(at, w)) for at, w in axes)
    values, _ = taken(xs[0], slice(c, c + 1), rows, columns)
    part = Part(0, around(slice(c, c + 1), rows, columns), values, np.outer(a, b)[None])
    return Computed.summed(layer, "elementwise", "sum of w x" if values.size > 1 else "x", [part])


def _dense(at: np.ndarray, weights: np.ndarray) -> np.ndarray:
    found = np.zeros(at.max() + 1 - at.min())
    found[at - at.min()] = weights
    return found


# --- products -------------------------------------------------------------------------------------

def linear(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """Of a sequence (D, T) the features of the same step."""
    unit, *step = at
    x = xs[0] if not step else xs[0][:, step[0], None]                  # (D,) or (D, 1)
    W = host(layer, layer.W.data[unit]).reshape(x.shape)
    b = None if layer.b is None else float(host(layer, layer.b.data)[unit])
    part = Part(0, [[0, len(x)], *([t, t + 1] for t in step)], x, W)
    return Computed.summed(layer, "linear", "sum of w x", [part], b)


def whitened(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """W (X - mean), as w x + b with b = -w mean."""
    shape = xs[0].shape
    row = at[0] if layer.method == "pca" else int(np.ravel_multi_index(at, shape))
    w = host(layer, layer.W.data[row])
    part = Part(0, [[0, n] for n in shape], xs[0], w.reshape(shape))
    return Computed.summed(layer, "linear", "sum of w x", [part],
                           -float(w @ host(layer, layer.mean.data)))


def distances(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    code = host(layer, layer.C.data[at[0]])
    part = Part(0, [[0, len(code)]], xs[0], code, -(xs[0] - code)**2)
    return Computed.summed(layer, "linear", "-sum of (x - w)^2", [part])


def product(layer: Any, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """Y = X Z of two matrices: a row of X and a column of Z."""
    *front, m, p = at
    here: Any = tuple(front)
    row, column = xs[0][here][m], xs[1][here][:, p]
    before, ones = [[i, i + 1] for i in front], (1,) * len(front)
    row, column = (a.reshape(*ones, 1, -1) for a in (row, column))
    return Computed.summed(layer, "linear", "sum of x z", [
        Part(0, [*before, [m, m + 1], [0, row.size]], row, column),
        Part(1, [*before, [0, row.size], [p, p + 1]], column.reshape(*ones, -1, 1))])


RULES: dict[type, Rule] = (
    dict.fromkeys((xl.Conv2d, xl.Conv1d, xl.TrueConv2d, xl.TableConv2d, xl.DepthwiseConv2d),
                  convolution)
    | dict.fromkeys((xl.ConvTranspose2d, xl.ConvTranspose1d), transposed)
    | dict.fromkeys((xl.MaxPool2d, xl.MaxPool1d, xl.GlobalMaxPool2d, xl.GlobalMaxPool1d,
                     xl.AdaptiveMaxPool2d, xl.AdaptiveMaxPool1d), largest)
    | dict.fromkeys((xl.AvgPool2d, xl.AvgPool1d, xl.GlobalAvgPool2d, xl.GlobalAvgPool1d,
                     xl.AdaptiveAvgPool2d, xl.AdaptiveAvgPool1d), mean)
    | dict.fromkeys((xl.Upsample2d, xl.Upsample1d, xl.ReflectionPad2d, xl.ReflectionPad1d,
                     xl.ReplicationPad2d, xl.ReplicationPad1d, xl.CircularPad2d, xl.CircularPad1d),
                    interpolated)
    | dict.fromkeys((xl.Linear, xl.DropConnect), linear)
    | {xl.SeparableConv2d: separable, xl.LocallyConnected2d: local, xl.Subsampling2d: subsampling,
       xl.RBF: distances, xl.MatMul: product, xl.Whitening: whitened})
