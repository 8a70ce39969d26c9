"""Pooling to a given size, whatever the size of the input."""

from __future__ import annotations

from functools import cached_property

from xpnet.backends import Window
from xpnet.backends.window import Pair, pair
from xpnet.layer import PREDICT, Array, Layer, Shape

Span = tuple[int, int]      # from, to (not included)


def spans(size: int, count: int) -> list[Span]:
    """Window i: from floor(i size / count) to ceil((i + 1) size / count), so that together they
    cover everything."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


class _AdaptivePool2d(Layer):
    """What adaptive pooling layers share: the windows, which may overlap and differ in size by
    one."""

    kind = "pool"

    def __init__(self, output_size: Pair, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.output_size = output_size
        self._size = pair(output_size, "output_size", 1, self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.expect_rows("an output", *self._size)
        largest = [_largest(size, count) for size, count in zip((H, W), self._size, strict=True)]
        steps = [max(size // count, 1) for size, count in zip((H, W), self._size, strict=True)]
        # for the receptive field
        self.window = Window((largest[0], largest[1]), (steps[0], steps[1]))
        return C, *self._size

    @cached_property
    def rows(self) -> list[Span]:
        return spans(self.in_shapes[0][1], self._size[0])

    @cached_property
    def columns(self) -> list[Span]:
        return spans(self.in_shapes[0][2], self._size[1])


def _largest(size: int, count: int) -> int:
    """The length of the longest of the windows: ceil((i + 1) size / count) - floor(i size / count)
    for the best i.

    With size = q count + r a window takes q elements and what r / count brings: nothing for r = 0;
    one more where r divides count, because windows then begin or end at each multiple of 1; else
    one that begins before such a multiple and ends after it has two more.
    """
    q, r = divmod(size, count)
    return q + (0 if r == 0 else 1 if count % r == 0 else 2)


class AdaptiveAvgPool2d(_AdaptivePool2d):
    """Adaptive average pooling: Y[c, i, j] = mean of X[c] over rows i and columns j of a grid (He
    et al. 2015, section 2.2).

    X (C, H, W, N), Y (C, OH, OW, N) with (OH, OW) = output_size. Row i of the grid goes from
    floor(i H / OH) to ceil((i + 1) H / OH), columns likewise: windows overlap by an element where
    OH does not divide H. Each dX is the sum of its windows' dY / number of elements. ValueError for
    sizes that are no ints from 1.
    """

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        # (C, OH, W, N)
        y = self.xp.stack([x[:, start:stop].mean(axis=1) for start, stop in self.rows], axis=1)
        return self.xp.stack([y[:, :, start:stop].mean(axis=2) for start, stop in self.columns],
                             axis=2)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        (C, H, W, N), = self.recall()
        between = self.backend.zeros((C, len(self.rows), W, N), dy.dtype)  # (C, OH, W, N)
        for j, (start, stop) in enumerate(self.columns):
            between[:, :, start:stop] += dy[:, :, j, None] * (1.0 / (stop - start))
        dx = self.backend.zeros((C, H, W, N), dy.dtype)
        for i, (start, stop) in enumerate(self.rows):
            dx[:, start:stop] += between[:, i, None] * (1.0 / (stop - start))
        return dx


class AdaptiveMaxPool2d(_AdaptivePool2d):
    """Adaptive max pooling: Y[c, i, j] = max of X[c] over rows i and columns j of a grid (He et al.
    2015, section 2.2).

    X (C, H, W, N), Y (C, OH, OW, N) with (OH, OW) = output_size; the grid is AdaptiveAvgPool2d's.
    dY goes to the element that won, the first of equal ones; a NaN wins over everything. Several of
    them, flattened and concatenated, are a spatial pyramid. ValueError for sizes that are no ints
    from 1.
    """

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        shape = (*self.out_shape, x.shape[-1])
        y, argmax = self.backend.empty(shape, x.dtype), self.backend.empty(shape, "int64")
        for i, (top, bottom) in enumerate(self.rows):
            for j, (left, right) in enumerate(self.columns):
                # (C, elements, N)
                window = x[:, top:bottom, left:right].reshape(x.shape[0], -1, x.shape[-1])
                y[:, i, j], argmax[:, i, j] = window.max(axis=1), window.argmax(axis=1)
        self.remember(mode, argmax, x.shape)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        argmax, x_shape = self.recall()
        dx = self.backend.zeros(x_shape, dy.dtype)
        for i, (top, bottom) in enumerate(self.rows):
            for j, (left, right) in enumerate(self.columns):
                window = dx[:, top:bottom, left:right]
                window += to_winner(self.xp, dy[:, i, j], argmax[:, i, j], window.shape)
        return dx


def to_winner(xp: Array, dy: Array, argmax: Array, shape: tuple[int, ...]) -> Array:
    """dy (C, N) where a window of `shape` (C, h, w, N), read row by row, has its largest element; 0
    elsewhere."""
    C, h, w, N = shape
    won = xp.arange(h * w)[:, None] == argmax[:, None, :]  # (C, h*w, N)
    return xp.where(won, dy[:, None, :], dy.dtype.type(0)).reshape(shape)
