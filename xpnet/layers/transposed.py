"""Transposed convolution: the way from an output's shape back to an input's."""

from __future__ import annotations

import math

from xpnet.backends import Window
from xpnet.backends.window import Padding, Pair
from xpnet.initializers import zeros
from xpnet.layer import PREDICT, Array, Shape
from xpnet.layers.convolution import Conv2d


class ConvTranspose2d(Conv2d):
    """Transposed convolution: Y[k, y s - top + i d, x s - left + j d] += W[c, k, i, j] X[c, y, x];
    act(b[k] + Y[k]).

    X (C, H, W, N), W (C, filters/groups, KH, KW), b (filters,), Y (filters, OH, OW, N), with stride
    s and dilation d OH = (H - 1) s - top - bottom + d (KH - 1) + 1 + output_padding. It is the
    input gradient of the convolution with these filters that leads from Y's shape to X's, the
    product with its matrix transposed: Z = col2im(W^T X), dX = W * dZ, dW = X im2col(dZ)^T. From
    stride to stride several OH have windows that fit H times; output_padding chooses one. It may
    also reach the stride where it is smaller than the dilation, as in PyTorch: the last rows and
    columns of Y that no element of X reaches are then act(b). ValueError for groups that divide
    neither channels nor filters, for padding that leaves nothing, and for output_padding that is
    smaller neither than the stride nor than the dilation. Zeiler et al. 2010, eq. 1; Dumoulin and
    Visin 2016, relationship 14.
    """

    kind = "deconv"

    def __init__(self, filters: int, kernel_size: Pair, *, stride: Pair = 1, padding: Padding = 0,
                 output_padding: Pair = 0, dilation: Pair = 1, groups: int = 1, bias: bool = True,
                 activation: str | None = None, init: str | None = None, name: str | None = None
                 ) -> None:
        super().__init__(filters, kernel_size, stride=stride, padding=padding, dilation=dilation,
                         groups=groups, bias=bias, activation=activation, init=init, name=name)
        self.output_padding = output_padding
        # an element of Y sees as many of X as steps of the stride fit into it
        over_y = self.window_over_y = self.window
        rows, columns = ((extent - 1) // s + 1
                         for extent, s in zip(over_y.extent, over_y.stride, strict=True))
        self.window, self.upsampling = Window((rows, columns)), over_y.stride

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.check_groups(C)
        self.transposed = self.window_over_y.transposed(H, W, self.output_padding, who=self.who)
        self.slide = self.transposed.window
        per_group, taps = self.filters // self.groups, self.slide.taps
        # Only one in stride x stride of the taps meets an element of X: an output sums over so many
        # fewer.
        met = max(taps // math.prod(self.slide.stride), 1)
        self.W = self.parameter("W", (C, per_group, *self.slide.kernel), self.initializer,
                                decay=True, fan_in=C // self.groups * met, fan_out=per_group * taps)
        self.b = self.parameter("b", (self.filters,), zeros) if self.bias else None
        return self.filters, *self.transposed.size

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        read = (self.filters, *self.transposed.read, x.shape[3])
        z = self.backend.conv2d_dx(x, self.W.data, read, self.slide, groups=self.groups)
        z = self.transposed.grown(self.backend, z)
        if self.b:
            z += self.b.data[:, None, None, None]  # (filters, OH, OW, N)
        y, kept = self.activated(z)
        self.remember(mode, x, kept)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        x, kept = self.recall()
        dz = self.backend.activation_backward(dy, kept, self.activation,
                                              bias_grad=self.b.grad if self.b else None,
                                              accumulate=accumulate)
        dz = self.transposed.cut(self.backend, dz)
        self.backend.conv2d_dW(dz, x, self.slide, groups=self.groups, out=self.W.grad,
                               accumulate=accumulate)
        return (self.backend.conv2d(dz, self.W.data, self.slide, groups=self.groups)
                if self.needs_dx else None)

    def multiply_adds(self) -> int:
        C, H, W = self.in_shapes[0]
        return C * H * W * self.filters // self.groups * self.slide.taps
