"""LeNet's trainable subsampling."""

from __future__ import annotations

from xpnet.backends import Window
from xpnet.backends.window import Pair
from xpnet.initializers import for_activation, zeros
from xpnet.layer import PREDICT, Array, Shape
from xpnet.layers.activated import Activated


class Subsampling2d(Activated):
    """Trainable subsampling: Y[c] = f(a[c] sum over the window of X[c] + b[c]), one coefficient and bias a map.

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
        s *= self.window.taps                                                                   # (C, OH, OW, N)
        z = s * self.a.data[:, None, None, None] + self.b.data[:, None, None, None]
        y, kept = self.activated(z)
        self.remember(mode, s, kept, x.shape)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        s, kept, x_shape = self.recall()
        dz = self.backend.activation_backward(dy, kept, self.activation, bias_grad=self.b.grad, accumulate=accumulate)
        self.backend.store((dz * s).sum(axis=(1, 2, 3)), self.a.grad, accumulate)               # (C,)
        ds = dz * (self.a.data * self.window.taps)[:, None, None, None]
        return self.backend.avg_pool2d_dx(ds, x_shape, self.window)
