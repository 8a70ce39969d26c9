"""Layers that merge several values into one."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable, Sequence

from xpnet.backends import Backend, activations
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.activations import Activated
from xpnet.layers.softmax import OverAxis
from xpnet.lengths import CAUSAL
from xpnet.node import Node

__all__ = ["Add", "Average", "Concat", "Maximum", "Minimum", "Multiply", "Subtract"]


class _Elementwise(Layer):
    """Base class of elementwise functions of two or more arrays of one shape.

    An axis of size 1 is repeated, as in NumPy: (C, 1, 1) is one number for each channel of
    (C, H, W). The gradient of what is repeated is the sum over the repetitions.
    """

    steps = CAUSAL

    def build(self, *in_shapes: Shape) -> Shape:
        sizes = [set(axis) for axis in zip(*in_shapes, strict=False)]
        if (len(in_shapes) < 2 or len({len(shape) for shape in in_shapes}) > 1
                or any(len(axis - {1}) > 1 for axis in sizes)):
            raise ValueError(f"{self.who}: expected two or more inputs of one shape, of which an "
                             f"axis may be 1. Received: {list(in_shapes)}.")
        out = tuple(max(axis) for axis in sizes)
        # over which axes each gradient is summed
        self._repeated = [tuple(axis for axis, n in enumerate(shape) if n != out[axis])
                          for shape in in_shapes]
        return out

    def shares(self, dxs: Iterable[Array]) -> tuple[Array, ...]:
        """The gradients of the inputs, from those of the inputs in the shape of Y."""
        return tuple(dx.sum(axis=axes, keepdims=True) if axes else dx
                     for dx, axes in zip(dxs, self._repeated, strict=True))


class Add(_Elementwise, Activated):
    """Sum of two or more arrays of one shape: Y = f(Z), Z = X1 + X2 + ..., and each dX is dY f'(Z)
    (He et al. 2016, figure 2).

    An axis of size 1 is repeated, here and in the other layers that merge: (C, 1, 1) is one number
    for each channel of (C, H, W), and its gradient is the sum over them. For the backward pass the
    layer keeps Y, or Z if f' does not follow from Y; without an activation it keeps nothing.

    Args:
        activation: name of f; None is the identity.

    Raises ValueError for an unknown name.
    """

    kind = "add"

    def __init__(self, *, activation: str | None = None, name: str | None = None) -> None:
        super().__init__(activation, name=name)

    def forward(self, *xs: Array, mode: str = PREDICT) -> Array:
        if any(self._repeated):                 # the kernels add arrays of one shape
            done, z = None, functools.reduce(operator.add, xs)
        else:
            done = None if activations.of_input(self.activation) else self.activation
            z = self.backend.add(_sum(self.backend, xs[:-1]), xs[-1], done)
        y, kept = self.activated(z, done)
        self.remember(mode, None if self.activation is None else kept)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, ...]:
        kept, = self.recall()
        dz = (dy if self.activation is None
              else self.backend.activation_backward(dy, kept, self.activation))
        return self.shares((dz,) * len(self.in_shapes))


class Average(_Elementwise):
    """Mean of two or more arrays of one shape: Y = (X1 + X2 + ...) / m, and each dX is dY / m.

    The mean of the outputs of several networks is a committee.

    Hansen and Salamon 1990.
    """

    kind = "average"

    def forward(self, *xs: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        total = (functools.reduce(operator.add, xs) if any(self._repeated)
                 else _sum(self.backend, xs))
        return total * (1.0 / len(xs))

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, ...]:
        self.recall()
        m = len(self.in_shapes)
        return self.shares((dy * (1.0 / m),) * m)


class Subtract(_Elementwise):
    """Difference of two arrays of one shape: Y = X1 - X2, dX1 = dY, dX2 = -dY.

    It compares the outputs of two branches for a pair of images.

    Chopra et al. 2005, eq. 1.
    """

    kind = "subtract"

    def build(self, first: Shape, second: Shape) -> Shape:      # type: ignore[override]
        return super().build(first, second)

    def forward(self, x1: Array, x2: Array, mode: str = PREDICT) -> Array:  # type: ignore[override]
        self.remember(mode)
        return x1 - x2

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, ...]:
        self.recall()
        return self.shares((dy, -dy))


class Multiply(_Elementwise):
    """Product of two or more arrays of one shape: Y = X1 X2 ..., element by element, and dXi = dY
    times all others.

    One of them is often a gate, a sigmoid between 0 and 1; a gate (C, 1, 1) is one factor for each
    channel.

    Hochreiter and Schmidhuber 1997; Srivastava et al. 2015, eq. 2.
    """

    kind = "multiply"

    def forward(self, *xs: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, xs)
        return _product(xs)

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, ...]:
        xs, = self.recall()
        return self.shares(_product([dy, *xs[:i], *xs[i + 1:]]) for i in range(len(xs)))


class _Winner(_Elementwise):
    """Base class: one of the inputs wins at each position, and dY goes to it.

    Of equal elements the first wins; a NaN wins over everything.
    """

    def of_two(self, a: Array, b: Array) -> Array:
        """The larger or the smaller of two arrays, element by element."""
        raise NotImplementedError

    def forward(self, *xs: Array, mode: str = PREDICT) -> Array:
        y = self.of_two(xs[0], xs[1])
        for x in xs[2:]:
            y = self.of_two(y, x)
        self.remember(mode, xs, y)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, ...]:
        (xs, y), zero, dxs = self.recall(), dy.dtype.type(0), []
        for x in xs:
            wins = (x == y) | (x != x)
            dxs.append(self.xp.where(wins, dy, zero))
            dy = self.xp.where(wins, zero, dy)              # each dy goes to one input only
        return self.shares(dxs)


class Maximum(_Winner):
    """Largest of two or more arrays of one shape: Y = max(X1, X2, ...), element by element; dY goes
    to the one that won.

    Of equal elements the first wins; a NaN wins over everything.

    Goodfellow et al. 2013.
    """

    kind = "maximum"

    def of_two(self, a: Array, b: Array) -> Array:
        return self.xp.maximum(a, b)


class Minimum(_Winner):
    """Smallest of two or more arrays of one shape: Y = min(X1, X2, ...), element by element; dY
    goes to the one that won.

    Of equal elements the first wins; a NaN wins over everything.

    As a fuzzy AND: Zadeh 1965.
    """

    kind = "minimum"

    def of_two(self, a: Array, b: Array) -> Array:
        return self.xp.minimum(a, b)


class Concat(OverAxis):
    """Concatenation along an axis of a sample: Y = [X1; X2; ...], and each dX is its part of dY.

    Along the channels, X1 (C1, H, W, N), X2 (C2, H, W, N), ... -> Y (C1 + C2 + ..., H, W, N).

    Args:
        axis: an axis of one sample, 0 for the channels or features.

    Raises:
        ValueError: the inputs differ in another axis.

    Szegedy et al. 2015, figure 2.
    """

    kind = "concat"

    def __init__(self, axis: int = 0, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.axis = self.expect_integer("axis", axis, 0)

    def build(self, *in_shapes: Shape) -> Shape:        # type: ignore[override]
        for shape in in_shapes:
            super().build(shape)
        a, sizes = self.axis, [shape[self.axis] for shape in in_shapes]
        if len(in_shapes) < 2 or len({shape[:a] + shape[a + 1:] for shape in in_shapes}) > 1:
            raise ValueError(f"{self.who}: expected two or more inputs that differ in axis {a} "
                             f"only. Received: {list(in_shapes)}.")
        stops = itertools.accumulate(sizes)
        self._parts = [(slice(None),) * a + (slice(stop - size, stop),)
                       for stop, size in zip(stops, sizes, strict=True)]
        return (*in_shapes[0][:a], sum(sizes), *in_shapes[0][a + 1:])

    def forward(self, *xs: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.backend.joined(xs, self.axis)

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, ...]:
        self.recall()
        return tuple(self.backend.asarray(dy[part]) for part in self._parts)


Node.operators |= {"+": Add, "-": Subtract, "*": Multiply}


def _sum(backend: Backend, terms: Sequence[Array]) -> Array:
    """The sum from left to right; of one term the term itself."""
    return functools.reduce(backend.add, terms)


def _product(factors: Sequence[Array]) -> Array:
    y = factors[0] * factors[1]
    for x in factors[2:]:
        y = y * x
    return y
