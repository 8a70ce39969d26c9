"""Activations with parameters, with random numbers, or that combine several channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpnet.backends import activations
from xpnet.buffers import Parameter
from xpnet.checks import expect_shape
from xpnet.initializers import Initializer, constant, ones, zeros
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.activations import Activation
from xpnet.lengths import CAUSAL

__all__ = ["CReLU", "GLU", "Gain", "Maxout", "PReLU", "RReLU", "Shift", "Swish"]


def per_row(parameter: Parameter, x: Array) -> Array:
    """A parameter (C,) or (1,) in a shape that multiplies x (C, ..., N)."""
    return parameter.data.reshape(-1, *(1,) * (x.ndim - 1))


def halves(x: Array) -> tuple[Array, Array]:
    return x[:x.shape[0] // 2], x[x.shape[0] // 2:]


class PReLU(Layer):
    """Parametric rectified linear unit: Y = X where X > 0, else a X, with a learned slope a (He et
    al. 2015, eq. 1).

    X and Y (C, ..., N), a (1,), or (C,) with `per_channel`. dX = dY where X > 0, else a dY; da =
    sum of dY min(X, 0). As in the paper, no weight decay applies to a.

    Args:
        per_channel: whether each channel has its own slope.
        slope: the initial value of a.
    """

    kind = "prelu"
    steps = CAUSAL

    def __init__(self, *, per_channel: bool = False, slope: float = 0.25, name: str | None = None
                 ) -> None:
        super().__init__(name=name)
        self.per_channel = self.expect_flag("per_channel", per_channel)
        self.slope = self.expect_number("slope", slope)

    def build(self, in_shape: Shape) -> Shape:
        self.a = self.parameter("a", (in_shape[0] if self.per_channel else 1,),
                                constant(self.slope))
        return in_shape

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x)
        return self.xp.where(x > 0, x, per_row(self.a, x) * x)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x, = self.recall()
        da = dy * self.xp.minimum(x, 0)
        self.backend.store(da.reshape(self.a.shape[0], -1).sum(axis=1), self.a.grad, accumulate)
        return self.xp.where(x > 0, dy, per_row(self.a, x) * dy)


class RReLU(Layer):
    """Randomized leaky rectified linear unit: Y = X where X > 0, else a X, with a from U(lower,
    upper) (Xu et al. 2015).

    In training each element has its own a, which depends on (seed, layer, step) only; in prediction
    a is (lower + upper) / 2. dX = dY where X > 0, else a dY. This is PyTorch's definition; the
    paper draws 1 / a from U(3, 8). Raises ValueError if lower > upper.
    """

    kind = "rrelu"
    steps = CAUSAL

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, *, name: str | None = None
                 ) -> None:
        super().__init__(name=name)
        self.lower, self.upper = (self.expect_number("lower", lower, 0),
                                  self.expect_number("upper", upper, 0))
        if self.lower > self.upper:
            raise ValueError(f"{self.who}: expected lower to be at most upper. Received: "
                             f"lower={lower!r}, upper={upper!r}.")

    def build(self, in_shape: Shape) -> Shape:
        return in_shape

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        a: Array = (self.lower + self.upper) / 2
        if mode != PREDICT:
            # uint32
            bits = self.backend.random_bits(x.size, (self.seed, self.index), self.counters)
            a = (self.lower + (self.upper - self.lower) * 2.0**-32
                 * bits.astype(x.dtype).reshape(x.shape))
        self.remember(mode, x, a)
        return self.xp.where(x > 0, x, a * x)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x, a = self.recall()
        return self.xp.where(x > 0, dy, a * dy)


class CReLU(Layer):
    """Concatenated rectified linear units: Y = (max(X, 0), max(-X, 0)) (Shang et al. 2016).

    X (C, ..., N), Y (2 C, ..., N). dX = dY where Y > 0 in the first half, less dY where Y > 0 in
    the second.
    """

    kind = "crelu"
    steps = CAUSAL

    def build(self, in_shape: Shape) -> Shape:
        C, *rest = in_shape
        return 2 * C, *rest

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        y = self.backend.empty((2 * x.shape[0], *x.shape[1:]), x.dtype)
        first, second = halves(y)
        first[...], second[...] = self.xp.maximum(x, 0), self.xp.maximum(-x, 0)
        self.remember(mode, y)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        y, = self.recall()
        first, second = halves(dy * (y > 0))
        return first - second


class Swish(Activation):
    """Swish: Y = X s(beta X) with s(u) = 1 / (1 + exp(-u)) (Ramachandran et al. 2017), beta fixed
    or `learned`.

    dX = dY (s + beta X s (1 - s)).

    Args:
        beta: the fixed value, or the initial value if it is learned.
        learned: whether the layer trains one b (1,) in place of beta: db = sum of dY X^2 s (1 - s).
    """

    kind = "swish"

    def __init__(self, beta: float = 1.0, learned: bool = False, *, name: str | None = None
                 ) -> None:
        super().__init__("swish", name=name)
        self.beta, self.learned = (self.expect_number("beta", beta),
                                   self.expect_flag("learned", learned))

    def build(self, in_shape: Shape) -> Shape:
        self.b = self.parameter("b", (1,), constant(self.beta)) if self.learned else None
        return in_shape

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if self.b is None:
            return super().forward(x, mode)
        self.remember(mode, x)
        return activations.swish(self.xp, x, self.b.data)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        if self.b is None:
            return super().backward(dy, accumulate)
        x, = self.recall()
        u, v = activations.fraction(self.xp, self.b.data * x)
        s_one_minus_s = u * v / (u + v)**2                              # for s = u / (u + v)
        db = dy * x * (x * s_one_minus_s)
        self.backend.store(db.reshape(1, -1).sum(axis=1), self.b.grad, accumulate)
        return dy * activations.swish_derivative(self.xp, x, self.b.data)


class _TrainedArray(Layer):
    """Base class of layers with one trained array: a number for each channel, or of another shape.
    """

    steps = CAUSAL

    def __init__(self, shape: Sequence[int] | None = None, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.shape = None if shape is None else list(expect_shape(
            self.who, "shape to be that of a sample, of which axes may be 1", shape))

    def declare(self, name: str, in_shape: Shape, init: Initializer) -> Parameter:
        """The array as a parameter."""
        shape = in_shape[:1] if self.shape is None else tuple(self.shape)
        full = (*shape, *(1,) * (len(in_shape) - 1)) if self.shape is None else shape
        if len(full) != len(in_shape) or any(n not in (1, m) for n, m in zip(full, in_shape)):
            raise ValueError(f"{self.who}: expected shape to be that of a sample, of which axes "
                             f"may be 1. Received: shape={shape}, input shape {in_shape}.")
        self._full = full
        # over which axes of a batch the gradient is summed
        self._repeated = (*(axis for axis, n in enumerate(full) if n != in_shape[axis]),
                          len(in_shape))
        return self.parameter(name, shape, init, decay=False, fan_in=1, fan_out=1)

    def spread(self, p: Parameter) -> Array:
        """The array in a shape that is broadcast to a batch."""
        return p.data.reshape(*self._full, 1)

    def collect(self, p: Parameter, dp: Array, accumulate: bool) -> None:
        """Store the gradient, from its terms for each element of a batch."""
        total = (dp.reshape(len(dp), -1).sum(axis=1) if self.shape is None
                 else dp.sum(axis=self._repeated).reshape(p.shape))
        self.backend.store(total, p.grad, accumulate)


class Gain(_TrainedArray):
    """Gain: Y[c] = g[c] X[c], a learned factor for each channel (Jarrett et al. 2009).

    X and Y (C, ..., N), g (C,), initially 1; or g of another shape, which is broadcast to X.
    dX = g dY, dg = sum of dY X over the elements that an element of g multiplies.

    Args:
        shape: of g: that of a sample, of which axes may be 1. None means one factor for each
            channel.

    Raises:
        ValueError: the shape does not fit a sample.
    """

    kind = "gain"

    def build(self, in_shape: Shape) -> Shape:
        self.g = self.declare("g", in_shape, ones)
        return in_shape

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x)
        return self.spread(self.g) * x

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        x, = self.recall()
        self.collect(self.g, dy * x, accumulate)
        return self.spread(self.g) * dy if self.needs_dx else None


class Shift(_TrainedArray):
    """Shift: Y[c] = X[c] + b[c], a learned number for each channel (Ba et al. 2016, section 3).

    X and Y (C, ..., N), b (C,), initially 0; or b of another shape, which is broadcast to X: with
    the shape (D, T) it is a learned vector for each position of a sequence (Gehring et al. 2017,
    section 3.1). dX = dY, db = sum of dY over the elements that an element of b is added to. The
    shape of b is given as that of g in Gain.
    """

    kind = "shift"

    def build(self, in_shape: Shape) -> Shape:
        self.b = self.declare("b", in_shape, zeros)
        return in_shape

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return x + self.spread(self.b)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        self.collect(self.b, dy, accumulate)
        return dy


class Maxout(Layer):
    """Maxout: Y[c] = max over p < pieces of X[c pieces + p] (Goodfellow et al. 2013).

    X (C, ..., N), Y (C / pieces, ..., N): each output channel is the maximum of `pieces` adjacent
    channels. dX is dY where X was the maximum, at the first of equal values, else 0. Raises
    ValueError if the number of channels is not a multiple of pieces.
    """

    kind = "maxout"
    steps = CAUSAL

    def __init__(self, pieces: int = 2, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.pieces = self.expect_integer("pieces", pieces)

    def build(self, in_shape: Shape) -> Shape:
        C, *rest = in_shape
        if C % self.pieces:
            raise ValueError(f"{self.who}: expected pieces={self.pieces} to divide the channels. "
                             f"Received: input shape {in_shape}.")
        return C // self.pieces, *rest

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        # (C / pieces, pieces, ..., N)
        x = x.reshape(x.shape[0] // self.pieces, self.pieces, *x.shape[1:])
        self.remember(mode, self.backend.argmax(x, 1) if self.keeps(mode) else None)
        return x.max(axis=1)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        winner, = self.recall()                                         # (C / pieces, ..., N)
        dx = self.backend.empty((dy.shape[0], self.pieces, *dy.shape[1:]), dy.dtype)
        for p in range(self.pieces):
            dx[:, p] = self.xp.where(winner == p, dy, 0.0)
        return dx.reshape(dy.shape[0] * self.pieces, *dy.shape[1:])


class GLU(Layer):
    """Gated linear unit: Y = A s(B) with s(u) = 1 / (1 + exp(-u)), A and B the halves of X (Dauphin
    et al. 2017).

    X (2 C, ..., N), Y (C, ..., N); A is the first half. dA = dY s(B), dB = dY A s(B) (1 - s(B)).
    Raises ValueError if the number of channels is odd.
    """

    kind = "glu"
    steps = CAUSAL

    def build(self, in_shape: Shape) -> Shape:
        C, *rest = in_shape
        if C % 2:
            raise ValueError(f"{self.who}: expected an even number of channels. Received: input "
                             f"shape {in_shape}.")
        return C // 2, *rest

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        a, b = halves(x)
        s = self.backend.activate(b, "sigmoid")
        self.remember(mode, a, s)
        return a * s

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        a, s = self.recall()
        dx: Any = self.backend.empty((2 * dy.shape[0], *dy.shape[1:]), dy.dtype)
        da, db = halves(dx)
        da[...] = dy * s
        db[...] = self.backend.activation_backward(dy * a, s, "sigmoid")
        return dx
