"""Convolution: dense, flipped, by a connection table, depthwise, separable, transposed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpnet.backends import Backend, Window, activations
from xpnet.backends.window import Padding, Pair
from xpnet.checks import expect_choice, items, wrong
from xpnet.initializers import for_activation, zeros
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.activations import Activated

__all__ = [
    "Conv2d", "ConvTranspose2d", "DepthwiseConv2d", "SeparableConv2d", "TableConv2d", "TrueConv2d",
]


class Conv2d(Activated):
    """Convolution as a sliding dot product: Y[f] = act(b[f] + sum over c of W[f, c] * X[c]).

    X (C, H, W, N), W (filters, C/groups, KH, KW), b (filters,), Y (filters, OH, OW, N).
    dZ = dY act'(Y), db = sum of dZ, dW = dZ im2col(X)^T, dX = col2im(W^T dZ).

    Args:
        filters: number of output channels F.
        padding: an int, a pair (rows, columns), four ints (top, bottom, left, right), "valid",
            "half" or "full". It may be larger than the window: if a window is entirely in the
            padding, Y is act(b).
        groups: number of groups of channels and of filters; a filter reads the channels of its own
            group.
        bias: True for one bias for each filter, False for none, or "map" for one for each filter
            and output position, b (filters, OH, OW), as in a formula that has b[f, y, x].
        init: name of an initializer; by default the one that fits the activation.

    Raises:
        ValueError: groups does not divide both the channels and the filters, or a window is larger
            than the padded input.

    LeCun et al. 1989; groups: Krizhevsky et al. 2012; dilation: Yu and Koltun 2016; as matrix
    products: Chellapilla et al. 2006.
    """

    kind = "conv"
    window: Window
    make_window: Callable[..., Window] = staticmethod(Window.make)      # another one for signals
    kernel_axes = 2

    def __init__(self, filters: int, kernel_size: Pair, *, stride: Pair = 1, padding: Padding = 0,
                 dilation: Pair = 1, groups: int = 1, bias: bool | str = True,
                 activation: str | None = None, init: str | None = None, name: str | None = None
                 ) -> None:
        super().__init__(activation, name=name)
        self.filters = self.expect_integer("filters", filters)
        self.groups = self.expect_integer("groups", groups)
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.dilation = padding, dilation
        self.window = self.make_window(kernel_size, stride, padding, dilation, who=self.who)
        self.bias, self.init = expect_bias(self.who, bias), init
        self.initializer = for_activation(init, activation, self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.check_groups(C)
        OH, OW = self.window.output_size(H, W, who=self.who)
        per_group, taps = C // self.groups, self.window.taps
        self.W = self.parameter("W", (self.filters, per_group, *self.kernel_shape(self.window)),
                                self.initializer, decay=True, fan_in=per_group * taps,
                                fan_out=self.filters // self.groups * taps)
        self.declare_bias(OH, OW)
        return self.filters, OH, OW

    def declare_bias(self, OH: int, OW: int) -> None:
        """b (filters,); with bias="map" b (filters, OH, OW), or (filters, OT) of a Conv1d."""
        places = (OH, OW)[-self.kernel_axes:] if self.bias == "map" else ()
        self.b = (self.parameter("b", (self.filters, *places), zeros, decay=False)
                  if self.bias else None)

    def add_bias(self, z: Array) -> None:
        """z (filters, OH, OW, N) += b."""
        if self.b:
            b = self.b.data
            z += b.reshape(z.shape[:3] + (1,) if self.bias == "map" else (-1, 1, 1, 1))

    def backward_to_z(self, dy: Array, kept: Array, accumulate: bool) -> Array:
        """The gradient with respect to Z, and that with respect to b."""
        by_filter = self.b.grad if self.b and self.bias != "map" else None
        dz = self.backend.activation_backward(dy, kept, self.activation, bias_grad=by_filter,
                                              accumulate=accumulate)
        if self.b and self.bias == "map":
            db = dz.sum(axis=-1).reshape(self.b.shape)
            self.backend.store(db, self.b.grad, accumulate)
        return dz

    def check_groups(self, C: int) -> None:
        """Raises ValueError if the groups do not divide the C channels and the filters."""
        if C % self.groups or self.filters % self.groups:
            raise ValueError(f"{self.who}: expected groups={self.groups} to divide the channels "
                             f"and the filters. Received: {C} channels, {self.filters} filters.")

    def kernel_shape(self, window: Window) -> Shape:
        """The last axes of W: (KH, KW), or (K,) of a Conv1d."""
        return window.kernel[-self.kernel_axes:]

    def kernel(self) -> Array:
        """The filters (F, C/groups, KH, KW) that slide over x; a subclass may make them from W."""
        return of_maps(self.W.data)

    def kernel_backward(self, x: Array, dz: Array, accumulate: bool) -> None:
        """Gradient with respect to W, from the gradient with respect to the filters."""
        self.backend.conv2d_dW(x, dz, self.window, groups=self.groups, out=of_maps(self.W.grad),
                               accumulate=accumulate)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        W, by_map = self.kernel(), self.bias == "map"
        done = None if by_map else self.fused
        z = self.backend.conv2d(x, W, self.window, groups=self.groups, activation=done,
                                bias=self.b.data if self.b and not by_map else None)
        if by_map:                      # the kernel adds only one number for each filter
            self.add_bias(z)            # (F, OH, OW, N)
        y, kept = self.activated(z, done)
        self.remember(mode, x, kept, W)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        x, kept, W = self.recall()
        dz = self.backward_to_z(dy, kept, accumulate)
        self.kernel_backward(x, dz, accumulate)
        if not self.needs_dx:
            return None
        return self.backend.conv2d_dx(dz, W, x.shape, self.window, groups=self.groups)

    def multiply_adds(self) -> int:
        return (math.prod(self.out_shape) * self.in_shapes[0][0] // self.groups
                * self.window.taps)


def expect_bias(who: str, bias: Any) -> bool | str:
    """One bias for each filter (True), none (False), or one for each output element ("map")."""
    given = bool(bias) if isinstance(bias, np.bool_) else bias
    found: bool | str = expect_choice(who, "bias", given, (True, False, "map"))
    return found


def of_maps(W: Array) -> Array:
    """W (F, C/groups, KH, KW) itself; W (F, C/groups, K) of a Conv1d as filters of one row."""
    return W if W.ndim == 4 else W.reshape(*W.shape[:2], 1, *W.shape[2:])


class TrueConv2d(Conv2d):
    """Convolution with a flipped kernel: Y[f, p, q] = act(b[f] + sum over c, i, j of W[f, c, i, j]
    X[c, p - i, q - j]).

    This is the convolution of mathematics. What networks call convolution, Conv2d too, is
    cross-correlation: the kernel is not flipped. The indices above are those of padding="full",
    where every overlap counts; with less padding the first rows and columns of that Y are missing.
    A TrueConv2d with W computes what a Conv2d with the flipped W computes, so each learns the
    mirror image of the other's filters. Shapes, arguments and errors are those of Conv2d; dW is
    that of Conv2d, flipped.

    LeCun et al. 1989; both operations side by side: Goodfellow et al. 2016, eq. 9.5 and 9.6.
    """

    def kernel(self) -> Array:
        return self.backend.asarray(self.W.data[:, :, ::-1, ::-1])

    def kernel_backward(self, x: Array, dz: Array, accumulate: bool) -> None:
        dW = self.backend.conv2d_dW(x, dz, self.window, groups=self.groups)
        self.backend.store(dW[:, :, ::-1, ::-1], self.W.grad, accumulate)


class TableConv2d(Conv2d):
    """Convolution by a connection table: Y[f] = act(b[f] + sum over c in table[f] of W[f, c] *
    X[c]).

    X (C, H, W, N), W (connections, KH, KW), b (filters,), Y (filters, OH, OW, N). The weights are
    spread into a dense W (F, C, KH, KW), which is 0 where there is no connection; dW is gathered
    from the dense dW. Other arguments as in Conv2d.

    Args:
        table: the channels that each filter reads, [[0, 1], [2]]. Or a binary matrix (filters, C)
            that is 1 where there is a connection: an array of 0 and 1, or lists of booleans,
            [[True, True, False], [False, False, True]]. Numbers in lists are always channels.

    Raises:
        ValueError: a filter has no channel or the same one twice, or the input does not have the
            channels of the table.

    LeCun et al. 1998, table I.
    """

    def __init__(self, table: Sequence[Sequence[int]] | np.ndarray, kernel_size: Pair, *,
                 stride: Pair = 1, padding: Padding = 0, activation: str | None = None,
                 init: str | None = None, name: str | None = None) -> None:
        super().__init__(1, kernel_size, stride=stride, padding=padding, activation=activation,
                         init=init, name=name)
        given = table
        if (isinstance(table, np.ndarray) and table.ndim == 2 and table.dtype.kind in "buif"
                and np.isin(table, (0, 1)).all()):
            table = table.astype(bool).tolist()
        lists = [items(row) for row in items(table) or []]
        rows = [row for row in lists if row is not None] if None not in lists else []
        self.binary = (all(isinstance(c, bool) for row in rows for c in row)
                       and len({len(row) for row in rows}) == 1)
        self.table = [[c if self.binary else self.expect_integer("a channel of table", c, 0)
                       for c in row] for row in rows]
        self.channels = [[c for c, connected in enumerate(row) if connected] if self.binary else row
                         for row in self.table]
        if not self.channels or not all(row and len(set(row)) == len(row) for row in self.channels):
            raise wrong(self.who, "table to list, for each filter, the channels it reads, "
                                  "none twice", "table", given)
        self.filters = len(self.table)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        needed = len(self.table[0]) if self.binary else 1 + max(max(row) for row in self.channels)
        if C < needed or (self.binary and C > needed):
            raise ValueError(f"{self.who}: expected {needed} input channels, as in the table. "
                             f"Received: input shape {in_shape}.")
        OH, OW = self.window.output_size(H, W, who=self.who)
        self.connections = sum(len(row) for row in self.channels)
        fan = self.connections * self.window.taps // self.filters           # of an average filter
        self.W = self.parameter("W", (self.connections, *self.window.kernel), self.initializer,
                                decay=True, fan_in=fan, fan_out=fan)
        self.b = self.parameter("b", (self.filters,), zeros)
        return self.filters, OH, OW

    def bind(self, backend: Backend, seed: int, counters: Array) -> None:
        super().bind(backend, seed, counters)
        filters = np.repeat(np.arange(self.filters), [len(row) for row in self.channels])
        channels = np.concatenate(self.channels)
        self.connected = backend.asarray(filters), backend.asarray(channels)

    def kernel(self) -> Array:
        W = self.backend.zeros((self.filters, self.in_shapes[0][0], *self.window.kernel),
                               self.W.data.dtype)
        W[self.connected] = self.W.data
        return W  # (F, C, KH, KW)

    def kernel_backward(self, x: Array, dz: Array, accumulate: bool) -> None:
        dW = self.backend.conv2d_dW(x, dz, self.window)  # (F, C, KH, KW)
        self.backend.store(dW[self.connected], self.W.grad, accumulate)  # (connections, KH, KW)

    def multiply_adds(self) -> int:
        _, OH, OW = self.out_shape
        return self.connections * self.window.taps * OH * OW


class DepthwiseConv2d(Conv2d):
    """Depthwise convolution: Y[c m + k] = act(b[c m + k] + W[c m + k] * X[c]), with m filters for
    each channel.

    X (C, H, W, N), W (C m, 1, KH, KW), b (C m,), Y (C m, OH, OW, N). It is a Conv2d with groups=C
    and has its other arguments, its gradients and errors.

    Args:
        depth_multiplier: m.

    Howard et al. 2017, section 3.1; Chollet 2017.
    """

    def __init__(self, kernel_size: Pair, *, depth_multiplier: int = 1, stride: Pair = 1,
                 padding: Padding = 0, dilation: Pair = 1, bias: bool | str = True,
                 activation: str | None = None, init: str | None = None, name: str | None = None
                 ) -> None:
        super().__init__(1, kernel_size, stride=stride, padding=padding, dilation=dilation,
                         bias=bias, activation=activation, init=init, name=name)
        self.depth_multiplier = self.expect_integer("depth_multiplier", depth_multiplier)

    def build(self, in_shape: Shape) -> Shape:
        self.groups, _, _ = self.expect_axes(in_shape, "channels, height, width")
        self.filters = self.groups * self.depth_multiplier
        return super().build(in_shape)


class SeparableConv2d(Layer):
    """Depthwise separable convolution: Y[f] = act(b[f] + sum over q of P[f, q] D[q] * X[q // m]), q
    from 0 to C m - 1.

    X (C, H, W, N), Y (filters, OH, OW, N). The layer has two children: a DepthwiseConv2d without
    bias and activation, D (C m, 1, KH, KW), and a 1x1 Conv2d, P (filters, C m, 1, 1) and b
    (filters,). An output position takes C m (KH KW + filters) multiply-adds; a Conv2d takes C KH KW
    filters. There is no activation between the two: Chollet 2017, section 4.7, found none to be
    better. Howard et al. 2017 have batch norm and ReLU there, which is a DepthwiseConv2d, a
    BatchNorm2d and a 1x1 Conv2d. Other arguments as in Conv2d.

    Args:
        depth_multiplier: m, filters for each channel.
    """

    kind = "conv"
    window: Window

    def __init__(self, filters: int, kernel_size: Pair, *, depth_multiplier: int = 1,
                 stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1,
                 bias: bool | str = True, activation: str | None = None, init: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(name=name)
        self.filters = self.expect_integer("filters", filters)
        self.depth_multiplier = self.expect_integer("depth_multiplier", depth_multiplier)
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.dilation = padding, dilation
        self.window = Window.make(kernel_size, stride, padding, dilation, who=self.who)
        self.bias, self.init = expect_bias(self.who, bias), init
        self.activation = activations.check(activation, self.who)
        for_activation(init, activation, self.who)

    def build(self, in_shape: Shape) -> Shape:
        _, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.window.output_size(H, W, who=self.who)
        self.depthwise = DepthwiseConv2d(
            self.kernel_size, depth_multiplier=self.depth_multiplier, stride=self.stride,
            padding=self.padding, dilation=self.dilation, bias=False, init=self.init)
        self.pointwise = Conv2d(self.filters, 1, bias=self.bias, activation=self.activation,
                                init=self.init)
        between = self.child("depthwise", self.depthwise, in_shape)
        return self.child("pointwise", self.pointwise, between)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.pointwise.forward(self.depthwise.forward(x, mode=mode), mode=mode)

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        self.recall()
        self.depthwise.needs_dx = self.needs_dx
        return self.depthwise.backward(self.pointwise.backward(dy, accumulate), accumulate)

    def multiply_adds(self) -> int:
        return self.depthwise.multiply_adds() + self.pointwise.multiply_adds()


class ConvTranspose2d(Conv2d):
    """Transposed convolution: Y[k, y s - top + i d, x s - left + j d] += W[c, k, i, j] X[c, y, x];
    act(b[k] + Y[k]).

    X (C, H, W, N), W (C, filters/groups, KH, KW), b (filters,), Y (filters, OH, OW, N). With stride
    s and dilation d, OH = (H - 1) s - top - bottom + d (KH - 1) + 1 + output_padding. It is the
    product with the transposed matrix of the convolution that leads from Y's shape to X's, in other
    words the input gradient of that convolution:
    Z = col2im(W^T X), dX = W * dZ, dW = X im2col(dZ)^T.
    Other arguments as in Conv2d.

    Args:
        output_padding: rows and columns that Y has in addition. With a stride, windows fit H times
            into several OH; output_padding chooses one of them. It is smaller than the stride or,
            as in PyTorch, smaller than the dilation: the last rows and columns, to which no element
            of X contributes, are then act(b).

    Raises:
        ValueError: groups does not divide both the channels and the filters, padding leaves
            nothing, or output_padding is neither smaller than the stride nor smaller than the
            dilation.

    Zeiler et al. 2010, eq. 1; Dumoulin and Visin 2016, relationship 14.
    """

    kind = "deconv"

    def __init__(self, filters: int, kernel_size: Pair, *, stride: Pair = 1, padding: Padding = 0,
                 output_padding: Pair = 0, dilation: Pair = 1, groups: int = 1,
                 bias: bool | str = True, activation: str | None = None, init: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(filters, kernel_size, stride=stride, padding=padding, dilation=dilation,
                         groups=groups, bias=bias, activation=activation, init=init, name=name)
        self.output_padding = output_padding
        # an element of Y depends on ceil(extent / stride) rows and columns of X
        over_y = self.window_over_y = self.window
        rows, columns = ((extent - 1) // s + 1
                         for extent, s in zip(over_y.extent, over_y.stride, strict=True))
        self.window, self.upsampling = Window((rows, columns)), over_y.stride

    @property
    def extra(self) -> Pair:
        """output_padding, for rows and columns."""
        return self.output_padding

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.check_groups(C)
        self.transposed = self.window_over_y.transposed(H, W, self.extra, who=self.who)
        self.slide = self.transposed.window
        per_group, taps = self.filters // self.groups, self.slide.taps
        # of stride x stride taps only one meets an element of X, so an output has fewer terms
        met = max(taps // math.prod(self.slide.stride), 1)
        self.W = self.parameter("W", (C, per_group, *self.kernel_shape(self.slide)),
                                self.initializer, decay=True, fan_in=C // self.groups * met,
                                fan_out=per_group * taps)
        self.declare_bias(*self.transposed.size)
        return self.filters, *self.transposed.size

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        read = (self.filters, *self.transposed.read, x.shape[3])
        z = self.backend.conv2d_dx(x, of_maps(self.W.data), read, self.slide, groups=self.groups)
        z = self.transposed.grown(self.backend, z)
        self.add_bias(z)                # (filters, OH, OW, N)
        y, kept = self.activated(z)
        self.remember(mode, x, kept)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        x, kept = self.recall()
        dz = self.transposed.cut(self.backend, self.backward_to_z(dy, kept, accumulate))
        self.backend.conv2d_dW(dz, x, self.slide, groups=self.groups, out=of_maps(self.W.grad),
                               accumulate=accumulate)
        if not self.needs_dx:
            return None
        return self.backend.conv2d(dz, of_maps(self.W.data), self.slide, groups=self.groups)

    def multiply_adds(self) -> int:
        return math.prod(self.in_shapes[0]) * self.filters // self.groups * self.slide.taps
