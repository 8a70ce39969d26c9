"""Subsampling: LeNet's with trained coefficients, and plain skipping."""

from __future__ import annotations

from xpnet.backends import Window
from xpnet.backends.window import Pair, pair
from xpnet.initializers import for_activation, zeros
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.activated import Activated


class Subsampling2d(Activated):
    """Trainable subsampling: Y[c] = f(a[c] sum over the window of X[c] + b[c]), one coefficient and
    bias a map.

    X (C, H, W, N), a and b (C,), Y (C, OH, OW, N). With S the window's sum and dZ = dY f'(Z):
    da = sum of dZ S, db = sum of dZ, dS = a dZ. LeCun et al. 1998, section II.B (layers S2 and S4).
    """

    kind = "pool"
    window: Window

    def __init__(self, kernel_size: Pair, *, activation: str | None = None, init: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(activation, name=name)
        self.kernel_size, self.init = kernel_size, init
        self.window = Window.make(kernel_size, kernel_size, who=self.who)
        self.initializer = for_activation(init, activation, self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        taps = self.window.taps
        self.a = self.parameter("a", (C,), self.initializer, fan_in=taps, fan_out=taps, decay=True)
        self.b = self.parameter("b", (C,), zeros)
        return C, *self.window.output_size(H, W, who=self.who)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        s = self.backend.avg_pool2d(x, self.window)
        s *= self.window.taps  # (C, OH, OW, N)
        z = s * self.a.data[:, None, None, None] + self.b.data[:, None, None, None]
        y, kept = self.activated(z)
        self.remember(mode, s, kept, x.shape)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        s, kept, x_shape = self.recall()
        dz = self.backend.activation_backward(dy, kept, self.activation, bias_grad=self.b.grad,
                                              accumulate=accumulate)
        self.backend.store((dz * s).sum(axis=(1, 2, 3)), self.a.grad, accumulate)  # (C,)
        ds = dz * (self.a.data * self.window.taps)[:, None, None, None]
        return self.backend.avg_pool2d_dx(ds, x_shape, self.window)


class SkipSampling2d(Layer):
    """Subsampling by skipping: Y[c, i, j] = X[c, offset + i step, offset + j step]; dY goes back to
    where Y was taken.

    X (C, H, W, N), Y (C, ceil((H - offset) / step), ceil((W - offset) / step), N), a view of X.
    `step` and `offset` are ints or pairs (rows, columns). Behind a convolution it gives what the
    convolution gives with this stride, at step^2 times the work (LeCun et al. 1989, whose feature
    maps are undersampled so). The skipping factors of Ciresan et al. 2011 count what is left out in
    between: step - 1. ValueError for an offset that is not smaller than the step, or leaves
    nothing.
    """

    kind = "pool"

    def __init__(self, step: Pair, *, offset: Pair = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.step, self.offset = step, offset
        steps, self._offsets = pair(step, "step", 1, self.who), pair(offset, "offset", 0, self.who)
        if any(o >= s for o, s in zip(self._offsets, steps, strict=True)):
            raise ValueError(f"{self.who}: expected an offset smaller than the step, {step}. "
                             f"Received: offset={offset!r}.")
        self.window = Window((1, 1), steps)
        self._taken = tuple(slice(o, None, s) for o, s in zip(self._offsets, steps, strict=True))

    def build(self, in_shape: Shape) -> Shape:
        C, *sizes = self.expect_axes(in_shape, "channels, height, width")
        if any(size <= o for size, o in zip(sizes, self._offsets, strict=True)):
            raise ValueError(f"{self.who}: expected an input larger than the offset, "
                             f"{self.offset}. "
                             f"Received: input shape {in_shape}.")
        H, W = (len(range(*taken.indices(size)))
                for taken, size in zip(self._taken, sizes, strict=True))
        return C, H, W

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        return x[:, self._taken[0], self._taken[1]]

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, = self.recall()
        dx = self.backend.zeros(x_shape, dy.dtype)
        dx[:, self._taken[0], self._taken[1]] = dy
        return dx
