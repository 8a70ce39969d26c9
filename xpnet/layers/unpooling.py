"""The way back from max pooling."""

from __future__ import annotations

from xpnet.backends import Window
from xpnet.backends.window import Padding, Pair
from xpnet.layer import PREDICT, Array, Shape
from xpnet.layers.pooling import Pool2d


class MaxUnpool2d(Pool2d):
    """Max unpooling: Y[place of the max of window o of Z] = X[o], and 0 elsewhere (Zeiler and
    Fergus 2014, section 2.1).

    A layer of two inputs, MaxUnpool2d(2)(x, z): z is what the pooling layer with the same arguments
    had as its input, and the places ("switches") are found in it anew, so that nothing but values
    goes through the network. X (C, OH, OW, N), Z and Y (C, H, W, N). An element that is the largest
    of several windows gets the sum of their X (PyTorch keeps one of them). dX is dY at the places;
    dZ = 0, because a small step of Z does not move them. For arrays without a network,
    functional.max_pool2d gives the places, and max_pool2d_backward puts values there. ValueError
    where X has not the shape that pooling Z gives.
    """

    kind = "unpool"

    def __init__(self, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
                 dilation: Pair = 1, ceil_mode: bool = False, name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, name)

    def build(self, in_shape: Shape, pooled_shape: Shape) -> Shape:     # type: ignore[override]
        expected = super().build(pooled_shape)
        if in_shape != expected:
            raise ValueError(f"{self.who}: expected a first input of shape {expected}, what "
                             "pooling the second one gives. "
                             f"Received: {in_shape} and {pooled_shape}.")
        # they slide over Y; as many see an element of it as steps of the stride fit in
        self.places = self.window
        rows, columns = ((extent - 1) // s + 1
                         for extent, s in zip(self.places.extent, self.places.stride, strict=True))
        self.window, self.upsampling = Window((rows, columns)), self.places.stride
        return pooled_shape

    def forward(self, x: Array, z: Array, mode: str = PREDICT) -> Array:    # type: ignore[override]
        _, argmax = self.backend.max_pool2d(z, self.places)
        self.remember(mode, argmax, z.shape)
        return self.backend.max_pool2d_dx(x, argmax, z.shape, self.places)

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, Array]:
        argmax, (C, H, W, N) = self.recall()
        seen = self.backend.im2col(dy, self.places).reshape(C, self.places.taps, *argmax.shape[1:])
        tap = self.xp.arange(self.places.taps, dtype=argmax.dtype)[:, None, None, None]
        # (C, OH, OW, N)
        dx = self.xp.where(argmax[:, None] == tap, seen, dy.dtype.type(0)).sum(axis=1)
        return dx, self.backend.zeros((C, H, W, N), dy.dtype)
