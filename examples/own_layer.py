"""A layer of your own in 20 lines: a check of its gradient, and a network that uses it."""

import xpnet as xn
from xpnet.data import digits
from xpnet.initializers import he_normal, zeros
from xpnet.testing import check_gradients


class Mix(xn.Layer):
    """New channels as linear combinations of the old ones, at each pixel: Y = W X + b.

    X (C, ..., N), taken as C rows; W (channels, C), b (channels,), Y (channels, ..., N).
    dW = dY X^T, db = sum of dY over each row, dX = W^T dY.
    """

    kind = "mix"

    def __init__(self, channels, *, name=None):
        super().__init__(name=name)
        self.channels = self.expect_integer("channels", channels)

    def build(self, in_shape):
        # W has two axes, so its fan_in is C, he_normal draws with variance 2 / C, and weight decay
        # applies to it. Weight decay does not apply to b, which has one axis.
        self.W = self.parameter("W", (self.channels, in_shape[0]), he_normal)
        self.b = self.parameter("b", (self.channels,), zeros)
        return self.channels, *in_shape[1:]

    def forward(self, x, mode=xn.PREDICT):
        self.remember(mode, x)
        y = self.W.data @ x.reshape(len(x), -1) + self.b.data[:, None]
        return y.reshape(self.channels, *x.shape[1:])

    def backward(self, dy, accumulate=False):
        x, = self.recall()
        rows = dy.reshape(self.channels, -1)
        self.backend.store(rows @ x.reshape(len(x), -1).T, self.W.grad, accumulate)
        self.backend.store(rows.sum(axis=1), self.b.grad, accumulate)
        return (self.W.data.T @ rows).reshape(x.shape)


def main() -> None:
    error = check_gradients(Mix(4), (3, 4, 5))
    print(f"gradients agree with finite differences, relative error {error:.1e}")
    x_train, y_train, x_test, y_test = digits().arrays()
    net = xn.Sequential([xn.Conv2d(8, 3, activation="relu"), Mix(16), xn.ReLU(), xn.Flatten(),
                         xn.Linear(10)], input_shape=(1, 8, 8))
    print("standard deviation of the initial W: "
          f"{float(net.layers[1].W.data.std()):.2f}, sqrt(2 / 8) = 0.50")
    net.fit(x_train, y_train, loss="cross_entropy", optimizer=xn.AdamW(3e-3), epochs=5,
            verbose=False)
    print(f"test accuracy: {100 * net.evaluate(x_test, y_test)['accuracy']:.2f}%")


if __name__ == "__main__":
    main()
