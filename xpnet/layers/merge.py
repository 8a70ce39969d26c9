"""Layers that merge several values into one."""

from __future__ import annotations

from xpnet.layer import PREDICT, Array, Layer, Shape


class Add(Layer):
    """Sum of two or more arrays of one shape: Y = X1 + X2 + ..., and each dX is dY (He et al. 2016, figure 2)."""

    kind = "add"

    def build(self, *in_shapes: Shape) -> Shape:
        if len(in_shapes) < 2 or len(set(in_shapes)) > 1:
            raise ValueError(f"{self.who}: expected two or more inputs of one shape. Received: {list(in_shapes)}.")
        return in_shapes[0]

    def forward(self, *xs: Array, mode: str = PREDICT) -> Array:
        y = xs[0] + xs[1]
        for x in xs[2:]:
            y += x
        self.remember(mode)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, ...]:
        self.recall()
        return (dy,) * len(self.in_shapes)


class Concat(Layer):
    """Concatenation along the first axis, channels or features: Y = [X1; X2; ...], and each dX is its part of dY.

    X1 (C1, H, W, N), X2 (C2, H, W, N), ... -> Y (C1 + C2 + ..., H, W, N) (Szegedy et al. 2015, figure 2).
    """

    kind = "concat"

    def build(self, *in_shapes: Shape) -> Shape:
        if len(in_shapes) < 2 or len({shape[1:] for shape in in_shapes}) > 1 or len({len(s) for s in in_shapes}) > 1:
            raise ValueError(f"{self.who}: expected two or more inputs that differ in their first axis only. "
                             f"Received: {list(in_shapes)}.")
        return (sum(shape[0] for shape in in_shapes), *in_shapes[0][1:])

    def forward(self, *xs: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.xp.concatenate(xs, axis=0)

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, ...]:
        self.recall()
        stops = [sum(shape[0] for shape in self.in_shapes[:i + 1]) for i in range(len(self.in_shapes))]
        return tuple(dy[stop - shape[0]:stop] for stop, shape in zip(stops, self.in_shapes, strict=True))
