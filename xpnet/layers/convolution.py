"""Convolution, dense or by a connection table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xpnet.backends import Backend, Window
from xpnet.backends.window import Padding, Pair
from xpnet.initializers import for_activation, zeros
from xpnet.layer import PREDICT, Array, Shape
from xpnet.layers.activated import Activated


class Conv2d(Activated):
    """Convolution as a sliding dot product: Y[f] = act(b[f] + sum over c of W[f, c] * X[c]).

    X (C, H, W, N), W (filters, C/groups, KH, KW), b (filters,), Y (filters, OH, OW, N).
    dZ = dY act'(Y), db = sum of dZ, dW = dZ im2col(X)^T, dX = col2im(W^T dZ).
    Padding is an int, a pair (rows, columns), four ints (top, bottom, left, right), "valid", "half" or "full".
    ValueError for groups that divide neither channels nor filters, and for a window larger than the padded input.
    LeCun et al. 1989; as matrix products: Chellapilla et al. 2006.
    """

    kind = "conv"
    window: Window

    def __init__(self, filters: int, kernel_size: Pair, *, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1,
                 groups: int = 1, bias: bool = True, activation: str | None = None, init: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(activation, name=name)
        self.filters = self.expect_integer("filters", filters)
        self.groups = self.expect_integer("groups", groups)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.window = Window.make(kernel_size, stride, padding, dilation, who=self.who)
        self.bias, self.init = bias, init
        self.initializer = for_activation(init, activation, self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        if C % self.groups or self.filters % self.groups:
            raise ValueError(f"{self.who}: expected groups={self.groups} to divide the channels and the filters. "
                             f"Received: {C} channels, {self.filters} filters.")
        OH, OW = self.window.output_size(H, W, who=self.who)
        per_group, taps = C // self.groups, self.window.taps
        self.W = self.parameter("W", (self.filters, per_group, *self.window.kernel), self.initializer, decay=True,
                                fan_in=per_group * taps, fan_out=self.filters // self.groups * taps)
        self.b = self.parameter("b", (self.filters,), zeros) if self.bias else None
        return self.filters, OH, OW

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        z = self.backend.conv2d(x, self.W.data, self.window, groups=self.groups, activation=self.fused,
                                bias=self.b.data if self.b else None)                          # (F, OH, OW, N)
        y, kept = self.activated(z, self.fused)
        self.remember(mode, x, kept)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        x, kept = self.recall()
        dz = self.backend.activation_backward(dy, kept, self.activation, bias_grad=self.b.grad if self.b else None,
                                              accumulate=accumulate)
        self.backend.conv2d_dW(x, dz, self.window, groups=self.groups, out=self.W.grad, accumulate=accumulate)
        return self.backend.conv2d_dx(dz, self.W.data, x.shape, self.window, groups=self.groups) if self.needs_dx else None

    def multiply_adds(self) -> int:
        F, OH, OW = self.out_shape
        return F * OH * OW * self.in_shapes[0][0] // self.groups * self.window.taps


class TableConv2d(Activated):
    """Convolution by a connection table: Y[f] = act(b[f] + sum over c in table[f] of W[f, c] * X[c]).

    X (C, H, W, N), W (connections, KH, KW), b (len(table),), Y (len(table), OH, OW, N). The weights are spread into a
    dense W (F, C, KH, KW) with zeros where there is no connection; the gradient is gathered from the dense dW.
    ValueError for a table that names no channel, one twice, or one that the input has not.
    LeCun et al. 1998, table I.
    """

    kind = "conv"
    window: Window

    def __init__(self, table: Sequence[Sequence[int]], kernel_size: Pair, *, stride: Pair = 1, padding: Padding = 0,
                 activation: str | None = None, init: str | None = None, name: str | None = None) -> None:
        super().__init__(activation, name=name)
        if not isinstance(table, Sequence) or not table or not all(isinstance(row, Sequence) and row and
                                                                   len(set(row)) == len(row) for row in table):
            raise ValueError(f"{self.who}: expected table to list, for each filter, the channels it sees, none twice. "
                             f"Received: {table!r}.")
        self.table = [[self.expect_integer("a channel of table", channel, 0) for channel in row] for row in table]
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.window = Window.make(kernel_size, stride, padding, who=self.who)
        self.init = init
        self.initializer = for_activation(init, activation, self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        needed = 1 + max(max(row) for row in self.table)
        if C < needed:
            raise ValueError(f"{self.who}: expected {needed} input channels, as the table says. "
                             f"Received: input shape {in_shape}.")
        OH, OW = self.window.output_size(H, W, who=self.who)
        self.connections = sum(len(row) for row in self.table)
        fan = self.connections * self.window.taps // len(self.table)        # of an average filter
        self.W = self.parameter("W", (self.connections, *self.window.kernel), self.initializer, decay=True,
                                fan_in=fan, fan_out=fan)
        self.b = self.parameter("b", (len(self.table),), zeros)
        return len(self.table), OH, OW

    def bind(self, backend: Backend, seed: int, index: int, counters: Array) -> None:
        super().bind(backend, seed, index, counters)
        filters = np.repeat(np.arange(len(self.table)), [len(row) for row in self.table])
        self.connected = backend.asarray(filters), backend.asarray(np.concatenate(self.table))  # filter, channel

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        W = self.backend.zeros((len(self.table), x.shape[0], *self.window.kernel), x.dtype)     # (F, C, KH, KW)
        W[self.connected] = self.W.data
        z = self.backend.conv2d(x, W, self.window, bias=self.b.data, activation=self.fused)
        y, kept = self.activated(z, self.fused)
        self.remember(mode, x, kept, W)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        x, kept, W = self.recall()
        dz = self.backend.activation_backward(dy, kept, self.activation, bias_grad=self.b.grad, accumulate=accumulate)
        dW = self.backend.conv2d_dW(x, dz, self.window)                                         # (F, C, KH, KW)
        self.backend.store(dW[self.connected], self.W.grad, accumulate)                          # (connections, KH, KW)
        return self.backend.conv2d_dx(dz, W, x.shape, self.window) if self.needs_dx else None

    def multiply_adds(self) -> int:
        _, OH, OW = self.out_shape
        return self.connections * self.window.taps * OH * OW
