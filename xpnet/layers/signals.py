"""Layers of one-dimensional signals: those of feature maps, on maps of one row.

A signal (C, T, N) is seen as a map (C, 1, T, N) of one row. Both are the same bytes, so nothing is
copied, and the kernels of the maps compute everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.backends import Window
from xpnet.backends.window import Pair, along, ends
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.convolution import Conv2d, ConvTranspose2d
from xpnet.layers.dropout import Dropout2d
from xpnet.layers.normalization import InstanceNorm2d
from xpnet.layers.pooling import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    MaxPool2d,
    to_winner,
)
from xpnet.layers.resize import (
    CircularPad2d,
    ConstantPad2d,
    Crop2d,
    ReflectionPad2d,
    ReplicationPad2d,
    Upsample2d,
    ZeroPad2d,
)
from xpnet.layers.scan import expect_lengths, expect_steps
from xpnet.lengths import CAUSAL, LENGTHS

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveMaxPool1d", "AvgPool1d", "CircularPad1d", "ConstantPad1d",
    "Conv1d", "ConvTranspose1d", "Crop1d", "Dropout1d", "GlobalAvgPool1d", "GlobalMaxPool1d",
    "InstanceNorm1d", "MaxPool1d", "ReflectionPad1d", "ReplicationPad1d", "Upsample1d", "ZeroPad1d",
]


class OneRow(Layer):
    """Base class that comes before a layer of feature maps: its input and output have no rows."""

    in_steps = True                 # of sizes in errors
    make_window: Callable[..., Window] = staticmethod(Window.in_row)
    make_pair: Callable[..., tuple[int, int]] = staticmethod(along)
    make_sides: Callable[..., tuple[int, int, int, int]] = staticmethod(ends)

    def build(self, in_shape: Shape) -> Shape:      # type: ignore[override]
        C, T = self.expect_axes(in_shape, "channels, steps")
        shape = super().build((C, 1, T))
        return shape[:1] + shape[2:]

    def forward(self, x: Array, mode: str = PREDICT) -> Array:      # type: ignore[override]
        return without_row(super().forward(with_row(x), mode=mode))

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        dx = super().backward(with_row(dy) if dy.ndim == 3 else dy, accumulate)
        return None if dx is None else without_row(dx)


def with_row(x: Array) -> Array:
    """The map (C, 1, T, N) of a signal (C, T, N). The row of x[:, None] would have stride 0."""
    return x.reshape(len(x), 1, *x.shape[1:])


def without_row(y: Array) -> Array:
    """The signal (C, T, N) in a map (C, 1, T, N); features (C, N) as they are."""
    return y[:, 0] if y.ndim == 4 else y


class Conv1d(OneRow, Conv2d):
    """Convolution of a signal: Y[f, t] = act(b[f] + sum over c, k of W[f, c, k] X[c, t s - before +
    k d]).

    X (C, T, N), W (filters, C/groups, K), b (filters,), Y (filters, OT, N), with stride s and
    dilation d. It is a Conv2d on a map of one row: gradients, errors and the arguments that are not
    described here are those of Conv2d. kernel_size, stride and dilation are ints.

    Args:
        padding: an int, a pair (before, after), "valid", "half" or "full". The pair
            (d (K - 1), 0) makes the convolution causal: Y[t] reads nothing after X[t].

    Waibel et al. 1989 (time-delay networks); causal and dilated: van den Oord et al. 2016.
    """

    kernel_axes = 1

    def build(self, in_shape: Shape) -> Shape:
        *_, before, after = self.window.padding
        causal = self.window.stride[1] == 1 and (before, after) == (self.window.extent[1] - 1, 0)
        self.steps = CAUSAL if causal else None
        return super().build(in_shape)


class ConvTranspose1d(OneRow, ConvTranspose2d):
    """Transposed convolution of a signal: Y[f, t s - before + k d] += W[c, f, k] X[c, t]; act(b[f]
    + Y[f]).

    X (C, T, N), W (C, filters/groups, K), b (filters,), Y (filters, OT, N), OT = (T - 1) s - before
    - after + d (K - 1) + 1 + output_padding. It is a ConvTranspose2d on a map of one row:
    gradients, errors and other arguments are described there. kernel_size, stride, dilation and
    output_padding are ints.

    Args:
        padding: an int, a pair (before, after), "valid", "half" or "full".

    Dumoulin and Visin 2016, relationship 14.
    """

    kernel_axes = 1

    @property
    def extra(self) -> Pair:
        return along(self.output_padding, "output_padding", 0, self.who)


class MaxPool1d(OneRow, MaxPool2d):
    """Largest element of each window of a signal: Y[c, t] = max over k of X[c, t s - before + k d];
    its dY goes back to the element that won.

    X (C, T, N), Y (C, OT, N). Of equal values the first wins, a NaN wins over everything, padding
    never wins. Errors and other arguments are those of MaxPool2d; kernel_size, stride and dilation
    are ints.

    Args:
        padding: an int or a pair (before, after), smaller than the window.

    Collobert et al. 2011, section 3.3.
    """


class AvgPool1d(OneRow, AvgPool2d):
    """Mean of each window of a signal: Y[c, t] = sum over k of X[c, t s - before + k d] / number of
    elements; dY is shared equally.

    X (C, T, N), Y (C, OT, N). Errors and other arguments are those of AvgPool2d; kernel_size,
    stride and dilation are ints.

    Args:
        padding: an int or a pair (before, after), smaller than the window.

    LeCun et al. 1989.
    """


class _GlobalPool1d(OneRow):
    """Base class that comes before global pooling of maps: of the real steps, if there are lengths.
    """

    steps = LENGTHS

    def __init__(self, *, lengths: bool = False, name: str | None = None) -> None:
        super().__init__(name=name)
        self.lengths = self.expect_flag("lengths", lengths)

    def build(self, in_shape: Shape, *more: Shape) -> Shape:        # type: ignore[override]
        if expect_lengths(self, more):
            raise ValueError(f"{self.who}: expected {2 if self.lengths else 1} input(s). Received: "
                             f"{1 + len(more)}.")
        return super().build(in_shape)

    def expect_values(self, x: Array, number: int = 0) -> None:
        expect_steps(self, x, number)

    def forward(self, x: Array, *lengths: Array, mode: str = PREDICT) -> Array:     # type: ignore[override]
        if not lengths:
            return super().forward(x, mode=mode)
        real = self.xp.arange(x.shape[1])[:, None] < lengths[0]                     # (T, N)
        return self.of_steps(x, real, lengths[0], mode)

    def backward(self, dy: Array, accumulate: bool = False) -> Any:
        if not self.lengths:
            return super().backward(dy, accumulate)
        dx = self.of_steps_backward(dy)
        return dx, self.backend.zeros((1, dy.shape[-1]), dy.dtype)  # steps have no gradient

    def of_steps(self, x: Array, real: Array, lengths: Array, mode: str) -> Array:
        """The output of the real steps."""
        raise NotImplementedError

    def of_steps_backward(self, dy: Array) -> Array:
        """dX after `of_steps`."""
        raise NotImplementedError


class GlobalAvgPool1d(_GlobalPool1d, GlobalAvgPool2d):
    """Mean of each channel over time: Y[c] = mean over t of X[c, t] (Lin et al. 2013).

    X (C, T, N), Y (C, N); dX = dY / T.

    Args:
        lengths: whether the second input is the number of steps of each sample, (1, N): the mean
            is over these steps, dX = dY / their number, and 0 behind them.
    """

    def of_steps(self, x: Array, real: Array, lengths: Array, mode: str) -> Array:
        self.remember(mode, real, lengths)
        return self.xp.where(real, x, x.dtype.type(0)).sum(axis=1) / lengths

    def of_steps_backward(self, dy: Array) -> Array:
        real, lengths = self.recall()
        return self.xp.where(real, (dy / lengths)[:, None], dy.dtype.type(0))


class GlobalMaxPool1d(_GlobalPool1d, GlobalMaxPool2d):
    """Largest element of each channel over time: Y[c] = max over t of X[c, t]; its dY goes to the
    element that won (Collobert et al. 2011, section 3.3).

    X (C, T, N), Y (C, N). Of equal values the first wins; a NaN wins over everything.

    Args:
        lengths: whether the second input is the number of steps of each sample, (1, N): the maximum
            is over these steps.
    """

    def of_steps(self, x: Array, real: Array, lengths: Array, mode: str) -> Array:
        x = self.xp.where(real, x, x.dtype.type(-np.inf))
        self.remember(mode, self.backend.argmax(x, 1) if self.keeps(mode) else None, x.shape)
        return x.max(axis=1)

    def of_steps_backward(self, dy: Array) -> Array:
        argmax, (C, T, N) = self.recall()
        return without_row(to_winner(self.xp, dy, argmax, (C, 1, T, N)))


class AdaptiveAvgPool1d(OneRow, AdaptiveAvgPool2d):
    """Adaptive average pooling of a signal: Y[c, i] = mean of X[c] over part i of the steps (He et
    al. 2015, section 2.2).

    X (C, T, N), Y (C, OT, N). Part i goes from floor(i T / OT) to ceil((i + 1) T / OT). The
    gradient is that of AdaptiveAvgPool2d.

    Args:
        output_size: OT, 1 or larger.
    """


class AdaptiveMaxPool1d(OneRow, AdaptiveMaxPool2d):
    """Adaptive max pooling of a signal: Y[c, i] = max of X[c] over part i of the steps; its dY goes
    to the element that won (He et al. 2015, section 2.2).

    X (C, T, N), Y (C, OT, N); the parts are those of AdaptiveAvgPool1d. Of equal values the first
    wins; a NaN wins over everything.

    Args:
        output_size: OT, 1 or larger.
    """


class Upsample1d(OneRow, Upsample2d):
    """Interpolated signal: Y[c, t] = sum over i of k(u - i) X[c, i], where u is the position of t
    in X.

    X (C, T, N), Y (C, floor(T s), N) for a scale factor s, or Y (C, size, N) with s = size / T.
    u = (t + 1/2) / s - 1/2, or t (T - 1) / (OT - 1) with align_corners. The gradient and the
    kernels k are those of Upsample2d.

    Args:
        scale_factor: s > 0.
        mode: "nearest", "nearest-exact", "linear" or "cubic".
        align_corners: only for "linear" and "cubic".
        size: steps of the output, instead of a scale factor.

    Raises:
        ValueError: not exactly one of scale_factor and size is given.

    Keys 1981.
    """

    reads = {"nearest": 1, "nearest-exact": 1, "linear": 2, "cubic": 4}

    def scales(self, scale_factor: Any) -> tuple[float, float]:
        return 1.0, self.expect_number("scale_factor", scale_factor, 1e-6)


class ZeroPad1d(OneRow, ZeroPad2d):
    """Zeros before and after a signal: Y[c, t + before] = X[c, t], and 0 elsewhere.

    X (C, T, N), Y (C, before + T + after, N); dX is dY without the zeros.

    Args:
        padding: an int or a pair (before, after).

    Dumoulin and Visin 2016, section 2.
    """


class ConstantPad1d(OneRow, ConstantPad2d):
    """One number before and after a signal: Y[c, t + before] = X[c, t], and value elsewhere.

    X (C, T, N), Y (C, before + T + after, N); dX is dY without the border. Padding as in ZeroPad1d.

    Dumoulin and Visin 2016, section 2.
    """


class ReflectionPad1d(OneRow, ReflectionPad2d):
    """A border that mirrors the signal: Y[c, before - k] = X[c, k], Y[c, before + T - 1 + k] = X[c,
    T - 1 - k].

    X (C, T, N), Y (C, before + T + after, N); dX sums the dY of an element and of its mirror
    images. The ends themselves are not repeated: abcd becomes cb abcd cb. Padding as in ZeroPad1d.

    Raises:
        ValueError: the border is not smaller than the input.

    Gonzalez and Woods 2018, section 3.5.
    """


class ReplicationPad1d(OneRow, ReplicationPad2d):
    """A border that repeats the ends: Y[c, t + before] = X[c, t] with t moved to the nearest step.

    X (C, T, N), Y (C, before + T + after, N); dX of an end sums the dY of all its copies: abcd
    becomes aa abcd dd. Padding as in ZeroPad1d.

    Gonzalez and Woods 2018, section 3.5.
    """


class CircularPad1d(OneRow, CircularPad2d):
    """A border that continues at the opposite end: Y[c, t + before] = X[c, t mod T], a periodic
    signal.

    X (C, T, N), Y (C, before + T + after, N); dX sums the dY of an element and of its copies. With
    such a border a convolution is diagonal in the Fourier basis. Padding as in ZeroPad1d.

    Raises:
        ValueError: the border is larger than the input.

    Gray 2006, section 3.1.
    """


class Crop1d(OneRow, Crop2d):
    """A signal without its ends: Y[c, t] = X[c, t + before], the adjoint of zeros before and after.

    X (C, T, N), Y (C, T - before - after, N); dX is dY with zeros before and after.

    Args:
        cropping: an int or a pair (before, after).

    Raises:
        ValueError: nothing would be left.

    Ronneberger et al. 2015, section 2.
    """


class Dropout1d(OneRow, Dropout2d):
    """Spatial dropout of signals: in training Y = X keep / (1 - p), whole channels being kept or
    dropped; in prediction Y = X.

    X (C, T, N), keep (C, 1, N). dX = dY keep / (1 - p). Arguments are those of Dropout.

    Tompson et al. 2015, section 3.2.
    """

    kind = "dropout1d"


class InstanceNorm1d(OneRow, InstanceNorm2d):
    """Instance normalisation of signals: Y = gamma (X - mean) / sqrt(var + eps) + beta, each
    channel of each sample by itself (Ulyanov et al. 2016, eq. 3).

    X and Y (C, T, N), gamma and beta (C,); mean and var are over T. dX is that of SampleNorm.

    Args:
        affine: True adds gamma and beta.

    Raises:
        ValueError: a signal has a single step.
    """
