"""Convolution: dense, with the kernel turned round, or by a connection table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xpnet.backends import Backend, Window
from xpnet.backends.window import Padding, Pair
from xpnet.checks import items, wrong
from xpnet.initializers import for_activation, zeros
from xpnet.layer import PREDICT, Array, Shape
from xpnet.layers.activated import Activated


class Conv2d(Activated):
    """Convolution as a sliding dot product: Y[f] = act(b[f] + sum over c of W[f, c] * X[c]).

    X (C, H, W, N), W (filters, C/groups, KH, KW), b (filters,), Y (filters, OH, OW, N).
    dZ = dY act'(Y), db = sum of dZ, dW = dZ im2col(X)^T, dX = col2im(W^T dZ).
    Padding is an int, a pair (rows, columns), four ints (top, bottom, left, right), "valid", "half"
    or "full". It may be larger than the window: where a window lies wholly in padding, Y is act(b).
    ValueError for groups that divide neither channels nor filters, and for a window larger than the
    padded input. LeCun et al. 1989; groups: Krizhevsky et al. 2012; dilation: Yu and Koltun 2016;
    as matrix products: Chellapilla et al. 2006.
    """

    kind = "conv"
    window: Window

    def __init__(self, filters: int, kernel_size: Pair, *, stride: Pair = 1, padding: Padding = 0,
                 dilation: Pair = 1, groups: int = 1, bias: bool = True,
                 activation: str | None = None, init: str | None = None, name: str | None = None
                 ) -> None:
        super().__init__(activation, name=name)
        self.filters = self.expect_integer("filters", filters)
        self.groups = self.expect_integer("groups", groups)
        self.kernel_size, self.stride, self.padding, self.dilation = (kernel_size, stride, padding,
                                                                      dilation)
        self.window = Window.make(kernel_size, stride, padding, dilation, who=self.who)
        self.bias, self.init = self.expect_flag("bias", bias), init
        self.initializer = for_activation(init, activation, self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.check_groups(C)
        OH, OW = self.window.output_size(H, W, who=self.who)
        per_group, taps = C // self.groups, self.window.taps
        self.W = self.parameter("W", (self.filters, per_group, *self.window.kernel),
                                self.initializer, decay=True, fan_in=per_group * taps,
                                fan_out=self.filters // self.groups * taps)
        self.b = self.parameter("b", (self.filters,), zeros) if self.bias else None
        return self.filters, OH, OW

    def check_groups(self, C: int) -> None:
        if C % self.groups or self.filters % self.groups:
            raise ValueError(f"{self.who}: expected groups={self.groups} to divide the channels "
                             "and the filters. "
                             f"Received: {C} channels, {self.filters} filters.")

    def kernel(self) -> Array:
        """The filters as they slide over x, (F, C/groups, KH, KW): W itself, where a subclass does
        not make them of it."""
        return self.W.data

    def kernel_backward(self, x: Array, dz: Array, accumulate: bool) -> None:
        """The gradient by W, from the one by the filters."""
        self.backend.conv2d_dW(x, dz, self.window, groups=self.groups, out=self.W.grad,
                               accumulate=accumulate)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        W = self.kernel()
        z = self.backend.conv2d(x, W, self.window, groups=self.groups, activation=self.fused,
                                bias=self.b.data if self.b else None)  # (F, OH, OW, N)
        y, kept = self.activated(z, self.fused)
        self.remember(mode, x, kept, W)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        x, kept, W = self.recall()
        dz = self.backend.activation_backward(dy, kept, self.activation,
                                              bias_grad=self.b.grad if self.b else None,
                                              accumulate=accumulate)
        self.kernel_backward(x, dz, accumulate)
        return (self.backend.conv2d_dx(dz, W, x.shape, self.window, groups=self.groups)
                if self.needs_dx else None)

    def multiply_adds(self) -> int:
        F, OH, OW = self.out_shape
        return F * OH * OW * self.in_shapes[0][0] // self.groups * self.window.taps


class TrueConv2d(Conv2d):
    """Convolution as mathematics has it: Y[f, p, q] = act(b[f] + sum over c, i, j of W[f, c, i, j]
    X[c, p - i, q - j]).

    What networks call convolution, Conv2d too, is cross-correlation: the kernel lies on the image
    as it is. Here it is turned round both ways first. (The indices are those of padding="full",
    where every overlap counts; with less padding the first rows and columns of that Y are missing.)
    The two are one operation: a TrueConv2d with W is a Conv2d with W turned round, so each learns
    the other's filters in a mirror. Shapes, options and errors are Conv2d's, and dW is Conv2d's,
    turned back. LeCun et al. 1989; the two beside each other: Goodfellow et al. 2016, eq. 9.5 and
    9.6.
    """

    def kernel(self) -> Array:
        return self.backend.asarray(self.W.data[:, :, ::-1, ::-1])

    def kernel_backward(self, x: Array, dz: Array, accumulate: bool) -> None:
        dW = self.backend.conv2d_dW(x, dz, self.window, groups=self.groups)
        self.backend.store(dW[:, :, ::-1, ::-1], self.W.grad, accumulate)


class TableConv2d(Conv2d):
    """Convolution by a connection table: Y[f] = act(b[f] + sum over c in table[f] of W[f, c] *
    X[c]).

    X (C, H, W, N), W (connections, KH, KW), b (filters,), Y (filters, OH, OW, N). The table lists
    the channels that each filter sees, [[0, 1], [2]]; or it is a binary matrix (filters, C), 1
    where there is a connection: an array of 0 and 1, or lists of False and True, [[True, True,
    False], [False, False, True]] (numbers in lists are channels). The weights are spread into a
    dense W (F, C, KH, KW) with zeros where there is no connection; the gradient is gathered from
    the dense dW. ValueError for a table that names no channel, one twice, or one that the input has
    not. LeCun et al. 1998, table I.
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
        self.table = ([[c if self.binary else self.expect_integer("a channel of table", c, 0)
                        for c in row] for row in rows])
        self.channels = [[c for c, connected in enumerate(row) if connected] if self.binary else row
                         for row in self.table]
        if not self.channels or not all(row and len(set(row)) == len(row) for row in self.channels):
            raise wrong(self.who, "table to list, for each filter, the channels it sees, none "
                                  "twice", "table", given)
        self.filters = len(self.table)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        needed = len(self.table[0]) if self.binary else 1 + max(max(row) for row in self.channels)
        if C < needed or (self.binary and C > needed):
            raise ValueError(f"{self.who}: expected {needed} input channels, as the table says. "
                             f"Received: input shape {in_shape}.")
        OH, OW = self.window.output_size(H, W, who=self.who)
        self.connections = sum(len(row) for row in self.channels)
        fan = self.connections * self.window.taps // self.filters           # of an average filter
        self.W = self.parameter("W", (self.connections, *self.window.kernel), self.initializer,
                                decay=True, fan_in=fan, fan_out=fan)
        self.b = self.parameter("b", (self.filters,), zeros)
        return self.filters, OH, OW

    def bind(self, backend: Backend, seed: int, index: int, counters: Array) -> None:
        super().bind(backend, seed, index, counters)
        filters = np.repeat(np.arange(self.filters), [len(row) for row in self.channels])
        # filter, channel
        self.connected = backend.asarray(filters), backend.asarray(np.concatenate(self.channels))

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
