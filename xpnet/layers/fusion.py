"""Layers that fit and weigh the values that are added."""

from __future__ import annotations

from xpnet.initializers import ones
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.lengths import CAUSAL

__all__ = ["PadChannels", "WeightedSum"]

EPS = 1e-4          # of the normalised weights


class WeightedSum(Layer):
    """Weighted sum of two or more arrays of one shape: Y = a[1] X1 + a[2] X2 + ..., with trained
    weights (Tan et al. 2020, section 3.3).

    X1, X2, ... and Y (C, ..., N), w (m,) or, with per_channel, (m, C). Without normalization a = w,
    with "relu" a[i] = r[i] / (eps + sum of r), r = max(w, 0); with "softmax" a[i] = e[i] / (eps +
    sum of e), e = exp(w - max of w); eps = 0.0001.
    dXi = a[i] dY, da[i] = sum of dY Xi. Normalised, dr[i] = (da[i] - sum over j of a[j] da[j]) /
    (eps + sum of r), and de likewise; dw = dr where w > 0, or e de, less eps / (eps + sum of e) sum
    of a da at the largest w.

    Args:
        per_channel: one weight for each channel of each input instead of one for each input.
        normalization: None, "relu" or "softmax".

    Raises:
        ValueError: fewer than two inputs, or inputs of different shapes.
    """

    kind = "weighted"
    steps = CAUSAL

    def __init__(self, *, per_channel: bool = False, normalization: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(name=name)
        self.per_channel = self.expect_flag("per_channel", per_channel)
        self.normalization = self.expect_choice("normalization", normalization,
                                                (None, "relu", "softmax"))

    def build(self, *in_shapes: Shape) -> Shape:
        if len(in_shapes) < 2 or len(set(in_shapes)) > 1:
            raise ValueError(f"{self.who}: expected two or more inputs of one shape. "
                             f"Received: {list(in_shapes)}.")
        m, shape = len(in_shapes), in_shapes[0]
        self.w = self.parameter("w", (m, shape[0]) if self.per_channel else (m,), ones,
                                decay=False, fan_in=m, fan_out=1)
        return shape

    def weights(self) -> tuple[Array, Array, Array]:
        """(a, r or e, the denominator); without normalization (w, w, 1)."""
        w = self.w.data
        if self.normalization is None:
            return w, w, 1
        r = (self.xp.maximum(w, 0) if self.normalization == "relu"
             else self.xp.exp(w - w.max(axis=0)))
        total = EPS + r.sum(axis=0)
        return r / total, r, total

    def _factors(self, a: Array) -> Array:
        """a (m,) or (m, C) as (m, 1 or C, 1, ..., 1), to multiply inputs."""
        return a.reshape(len(a), -1, *(1,) * len(self.out_shape))

    def forward(self, *xs: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, xs)
        a = self._factors(self.weights()[0])
        y = a[0] * xs[0]
        for factor, x in zip(a[1:], xs[1:], strict=True):
            y += factor * x
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, ...]:
        xs, = self.recall()
        a, r, total = self.weights()
        C = dy.shape[0]
        da = self.xp.stack([(dy * x).reshape(C, -1).sum(axis=1) for x in xs])       # (m, C)
        if not self.per_channel:
            da = da.sum(axis=1)
        dw = da
        if self.normalization is not None:
            mean = (a * da).sum(axis=0)
            dw = (da - mean) / total
            if self.normalization == "relu":
                dw = dw * (self.w.data > 0)
            else:
                largest = self.backend.argmax(self.w.data, 0)
                here = self.xp.arange(len(a)).reshape(-1, *(1,) * (a.ndim - 1)) == largest
                dw = r * dw - here * (EPS / total * mean)
        self.backend.store(dw, self.w.grad, accumulate)
        return tuple(factor * dy for factor in self._factors(a))


class PadChannels(Layer):
    """Channels of zeros behind those of the input: Y[c] = X[c] for c < C, and 0 for the others; dX
    is the first C channels of dY (He et al. 2016, section 4.1, option A).

    X (C, ..., N), Y (channels, ..., N). A block with more channels than its input can then be added
    to it without weights.

    Args:
        channels: of Y.

    Raises:
        ValueError: the input has more channels.
    """

    kind = "pad"
    steps = CAUSAL

    def __init__(self, channels: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.channels = self.expect_integer("channels", channels)

    def build(self, in_shape: Shape) -> Shape:
        if in_shape[0] > self.channels:
            raise ValueError(f"{self.who}: expected an input of at most {self.channels} channels. "
                             f"Received: input shape {in_shape}.")
        return self.channels, *in_shape[1:]

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, len(x))
        y = self.backend.zeros((self.channels, *x.shape[1:]), x.dtype)
        y[:len(x)] = x
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        C, = self.recall()
        return dy[:C]
