"""Convolution whose weights are not shared: each place has filters of its own."""

from __future__ import annotations

from xpnet.backends import Window
from xpnet.backends.window import POINTS, Padding, Pair
from xpnet.initializers import for_activation, zeros
from xpnet.layer import PREDICT, Array, Shape
from xpnet.layers.activated import Activated


class LocallyConnected2d(Activated):
    """Local connections without sharing: Y[f, p] = act(b[p, f] + sum over c, i, j of W[p, f, c, i,
    j] X[c, p s - top + (i, j)]).

    X (C, H, W, N), W (OH, OW, filters, C, KH, KW), b (OH, OW, filters), Y (filters, OH, OW, N), p =
    (y, x) a place of the output. Every place is a small fully connected layer on its window, so all
    of them together are one product by groups, a group for each place: with the columns of place p,
    cols[p] (C KH KW, N), Z[p] = W[p] cols[p], dW[p] = dZ[p] cols[p]^T, db = sum of dZ over the
    batch, dX = col2im(W[p]^T dZ[p]). OH OW times the weights of a Conv2d, for as many
    multiply-adds. Errors are Conv2d's. LeCun 1989 (where it learns digits less well than shared
    weights do); Gregor and LeCun 2010; Taigman et al. 2014.
    """

    kind = "local"
    window: Window

    def __init__(self, filters: int, kernel_size: Pair, *, stride: Pair = 1, padding: Padding = 0,
                 bias: bool = True, activation: str | None = None, init: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(activation, name=name)
        self.filters = self.expect_integer("filters", filters)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.window = Window.make(kernel_size, stride, padding, who=self.who)
        self.bias, self.init = self.expect_flag("bias", bias), init
        self.initializer = for_activation(init, activation, self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        OH, OW = self.window.output_size(H, W, who=self.who)
        taps = self.window.taps
        self.places, self.fan = OH * OW, C * taps
        self.W = self.parameter("W", (OH, OW, self.filters, C, *self.window.kernel),
                                self.initializer, decay=True, fan_in=self.fan,
                                fan_out=self.filters * taps, units=3)
        self.b = (self.parameter("b", (OH, OW, self.filters), zeros, decay=False) if self.bias
                  else None)
        return self.filters, OH, OW

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        P, K, F, N = self.places, self.fan, self.filters, x.shape[3]
        cols = self.backend.im2col(x, self.window).reshape(K, P, N).transpose(1, 0, 2)
        cols = self.backend.asarray(cols).reshape(P * K, 1, 1, N)
        z = self.backend.conv2d(cols, self.W.data.reshape(P * F, K, 1, 1), POINTS, groups=P,
                                activation=self.fused,
                                bias=self.b.data.reshape(-1) if self.b else None)  # (P*F, 1, 1, N)
        y, kept = self.activated(z, self.fused)
        self.remember(mode, cols, kept, x.shape)
        return (self.backend.asarray(y.reshape(P, F, N).transpose(1, 0, 2)).reshape(
            *self.out_shape, N))

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        cols, kept, x_shape = self.recall()
        P, K, F, N = self.places, self.fan, self.filters, x_shape[3]
        dy = self.backend.asarray(dy.reshape(F, P, N).transpose(1, 0, 2)).reshape(P * F, 1, 1, N)
        dz = self.backend.activation_backward(dy, kept, self.activation, accumulate=accumulate,
                                              bias_grad=self.b.grad.reshape(-1) if self.b else None)
        self.backend.conv2d_dW(cols, dz, POINTS, groups=P, out=self.W.grad.reshape(P * F, K, 1, 1),
                               accumulate=accumulate)
        if not self.needs_dx:
            return None
        dcols = self.backend.conv2d_dx(dz, self.W.data.reshape(P * F, K, 1, 1), cols.shape, POINTS,
                                       groups=P)
        dcols = self.backend.asarray(dcols.reshape(P, K, N).transpose(1, 0, 2)).reshape(K, P * N)
        return self.backend.col2im(dcols, x_shape, self.window)

    def multiply_adds(self) -> int:
        return self.places * self.filters * self.fan
