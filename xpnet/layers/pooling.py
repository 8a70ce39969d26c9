"""Pooling: the largest or the mean of each window."""

from __future__ import annotations

from xpnet.backends import Window
from xpnet.backends.window import Padding, Pair
from xpnet.layer import PREDICT, Array, Layer, Shape


class _Pool2d(Layer):
    """What the pooling layers share: a window (stride = kernel_size unless told) and the output shape."""

    kind = "pool"
    window: Window

    def __init__(self, kernel_size: Pair, stride: Pair | None, padding: Padding, dilation: Pair, ceil_mode: bool,
                 name: str | None) -> None:
        super().__init__(name=name)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.ceil_mode = ceil_mode
        self.window = Window.make(kernel_size, kernel_size if stride is None else stride, padding, dilation, who=self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.window.output_size(H, W, who=self.who)
        if self.ceil_mode:
            self.window = self.window.ceil(H, W)
        self.window.check_no_empty_window(H, W, who=self.who)
        return C, *self.window.output_size(H, W)


class MaxPool2d(_Pool2d):
    """Largest element of each window: Y = max over the window of X; its dY goes back to the element that won.

    X (C, H, W, N), Y (C, OH, OW, N). Of equal values the first wins; a NaN wins over everything; padding never wins.
    `ceil_mode` lets a last, partial window count too. ValueError where a window would see nothing but padding.
    Ranzato et al. 2007.
    """

    def __init__(self, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0, dilation: Pair = 1,
                 ceil_mode: bool = False, name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, name)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        y, argmax = self.backend.max_pool2d(x, self.window)
        self.remember(mode, argmax, x.shape)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        argmax, x_shape = self.recall()
        return self.backend.max_pool2d_dx(dy, argmax, x_shape, self.window)


class AvgPool2d(_Pool2d):
    """Mean of each window: Y = sum over the window of X / number of its elements; dY is shared equally.

    X (C, H, W, N), Y (C, OH, OW, N). `count_include_pad=False` divides by the elements inside X only.
    ValueError where a window would see nothing but padding. LeCun et al. 1989.
    """

    def __init__(self, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
                 count_include_pad: bool = True, name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, 1, False, name)
        self.count_include_pad = count_include_pad

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        return self.backend.avg_pool2d(x, self.window, count_padding=self.count_include_pad)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, = self.recall()
        return self.backend.avg_pool2d_dx(dy, x_shape, self.window, count_padding=self.count_include_pad)


class GlobalAvgPool2d(Layer):
    """Mean of each map: Y[c] = mean over (h, w) of X[c]. X (C, H, W, N), Y (C, N); dX = dY / (H W) (Lin et al. 2013)."""

    kind = "pool"

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.window = Window((H, W))
        return (C,)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        return x.mean(axis=(1, 2))                                                              # (C, N)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        (C, H, W, N), = self.recall()
        dx = self.backend.empty((C, H, W, N), dy.dtype)
        dx[...] = (dy * (1.0 / (H * W)))[:, None, None, :]
        return dx
