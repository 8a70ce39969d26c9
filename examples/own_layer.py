"""A layer of your own in 20 lines, its gradient checked, and a network that learns with it."""

import numpy as np

import xpnet as xn
from xpnet.data import digits
from xpnet.initializers import ones
from xpnet.testing import check_gradients


class Scale(xn.Layer):
    """One trained factor per channel: Y = g X, dg = sum over all else of dY X, dX = g dY. X and Y (C, ..., N), g (C,)."""

    kind = "scale"

    def build(self, in_shape):
        self.g = self.parameter("g", in_shape[:1], ones)
        return in_shape

    def forward(self, x, mode=xn.PREDICT):
        self.remember(mode, x)
        return x * self.column(x)

    def backward(self, dy, accumulate=False):
        x, = self.recall()
        self.backend.store((dy * x).sum(axis=tuple(range(1, x.ndim))), self.g.grad, accumulate)     # (C,)
        return dy * self.column(dy)

    def column(self, x):
        return self.g.data.reshape(-1, *[1] * (x.ndim - 1))                                         # (C, 1, ..., 1)


def main() -> None:
    error = check_gradients(Scale(), (3, 4, 5))
    print(f"gradients agree with finite differences, relative error {error:.1e}")
    data = digits()
    net = xn.Sequential([xn.Conv2d(8, 3), Scale(), xn.ReLU(), xn.Flatten(), xn.Linear(10)], input_shape=(1, 8, 8))
    net.fit(data.x_train, data.y_train, loss="cross_entropy", optimizer=xn.Adam(3e-3), epochs=5, verbose=False)
    print(f"test accuracy: {100 * net.evaluate(data.x_test, data.y_test)['accuracy']:.2f}%")
    print("learned factors:", np.round(net.backend.to_numpy(net.layers[1].g.data), 2))


if __name__ == "__main__":
    main()
