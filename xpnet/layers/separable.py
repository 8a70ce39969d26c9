"""Convolution taken apart: each channel for itself, then the channels at each place."""

from __future__ import annotations

from xpnet.backends import Window
from xpnet.backends.window import POINTS, Padding, Pair
from xpnet.initializers import for_activation, zeros
from xpnet.layer import PREDICT, Array, Shape
from xpnet.layers.activated import Activated
from xpnet.layers.convolution import Conv2d


class DepthwiseConv2d(Conv2d):
    """Depthwise convolution: Y[c m + k] = act(b[c m + k] + W[c m + k] * X[c]), m = multiplier
    filters for each channel.

    X (C, H, W, N), W (C m, 1, KH, KW), b (C m,), Y (C m, OH, OW, N): a Conv2d with groups=C, whose
    options and errors it has. Howard et al. 2017, section 3.1; Chollet 2017.
    """

    def __init__(self, kernel_size: Pair, *, multiplier: int = 1, stride: Pair = 1,
                 padding: Padding = 0, dilation: Pair = 1, bias: bool = True,
                 activation: str | None = None, init: str | None = None, name: str | None = None
                 ) -> None:
        super().__init__(1, kernel_size, stride=stride, padding=padding, dilation=dilation,
                         bias=bias, activation=activation, init=init, name=name)
        self.multiplier = self.expect_integer("multiplier", multiplier)

    def build(self, in_shape: Shape) -> Shape:
        self.groups, _, _ = self.expect_axes(in_shape, "channels, height, width")
        self.filters = self.groups * self.multiplier
        return super().build(in_shape)


class SeparableConv2d(Activated):
    """Depthwise separable convolution: Y[f] = act(b[f] + sum over q of P[f, q] D[q] * X[q // m]), q
    from 0 to C m - 1.

    X (C, H, W, N), D (C m, 1, KH, KW) with m = multiplier filters for each channel, P (filters, C
    m, 1, 1), b (filters,), Y (filters, OH, OW, N). With H = D * X, the depthwise convolution,
    nothing but products follow: dP = dZ H^T, dH = P^T dZ, dD = dH im2col(X)^T channel by channel. C
    m (KH KW + filters) multiply-adds for each output place, instead of the C KH KW filters of a
    Conv2d. Between the two there is no activation (Chollet 2017, section 4.7, found none to be
    better; Howard et al. 2017 have batch norm and ReLU there: a DepthwiseConv2d, and a Conv2d of
    1x1).
    """

    kind = "conv"
    window: Window

    def __init__(self, filters: int, kernel_size: Pair, *, multiplier: int = 1, stride: Pair = 1,
                 padding: Padding = 0, dilation: Pair = 1, bias: bool = True,
                 activation: str | None = None, init: str | None = None, name: str | None = None
                 ) -> None:
        super().__init__(activation, name=name)
        self.filters = self.expect_integer("filters", filters)
        self.multiplier = self.expect_integer("multiplier", multiplier)
        self.kernel_size, self.stride, self.padding, self.dilation = (kernel_size, stride, padding,
                                                                      dilation)
        self.window = Window.make(kernel_size, stride, padding, dilation, who=self.who)
        self.bias, self.init = self.expect_flag("bias", bias), init
        self.initializers = (for_activation(init, None, self.who),
                             for_activation(init, activation, self.who))

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        OH, OW = self.window.output_size(H, W, who=self.who)
        between, taps = C * self.multiplier, self.window.taps
        self.D = self.parameter("D", (between, 1, *self.window.kernel), self.initializers[0],
                                decay=True, fan_in=taps, fan_out=self.multiplier * taps)
        self.P = self.parameter("P", (self.filters, between, 1, 1), self.initializers[1],
                                decay=True, fan_in=between, fan_out=self.filters)
        self.b = self.parameter("b", (self.filters,), zeros) if self.bias else None
        return self.filters, OH, OW

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        h = self.backend.conv2d(x, self.D.data, self.window, groups=len(x))  # (C m, OH, OW, N)
        z = self.backend.conv2d(h, self.P.data, POINTS, bias=self.b.data if self.b else None,
                                activation=self.fused)
        y, kept = self.activated(z, self.fused)  # (F, OH, OW, N)
        self.remember(mode, x, h, kept)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        x, h, kept = self.recall()
        dz = self.backend.activation_backward(dy, kept, self.activation,
                                              bias_grad=self.b.grad if self.b else None,
                                              accumulate=accumulate)
        self.backend.conv2d_dW(h, dz, POINTS, out=self.P.grad, accumulate=accumulate)
        dh = self.backend.conv2d_dx(dz, self.P.data, h.shape, POINTS)
        self.backend.conv2d_dW(x, dh, self.window, groups=len(x), out=self.D.grad,
                               accumulate=accumulate)
        return (self.backend.conv2d_dx(dh, self.D.data, x.shape, self.window, groups=len(x))
                if self.needs_dx else None)

    def multiply_adds(self) -> int:
        (F, OH, OW), between = self.out_shape, self.in_shapes[0][0] * self.multiplier
        return OH * OW * between * (self.window.taps + F)
