"""Pooling with weights that fall with the distance from the window's centre."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from xpnet.backends.window import Padding, Pair
from xpnet.layer import PREDICT, Array
from xpnet.layers.pooling import Pool2d


class GaussianPool2d(Pool2d):
    """Gaussian pooling: Y = sum of g X over the window, g ~ exp(-distance^2 / (2 sigma^2)) with the
    sum 1.

    X (C, H, W, N), Y (C, OH, OW, N): an average weighted by the distance from the window's centre,
    in elements of X; of an even window the centre lies between elements (Goodfellow et al. 2016,
    section 9.3, name it among poolings). Burt and Adelson 1983 halve pictures so, with a kernel
    much like it.
    Padding counts as zeros; `count_include_pad=False` divides by the weights of the elements inside
    X, whose sum is then 1. Every map is convolved with the same fixed filter, dX is the transposed
    convolution of dY with it. ValueError for a sigma that is not above 0, and where a window would
    see nothing but padding.
    """

    def __init__(self, kernel_size: Pair, sigma: float, *, stride: Pair | None = None,
                 padding: Padding = 0, ceil_mode: bool = False, count_include_pad: bool = True,
                 name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, 1, ceil_mode, name)
        self.sigma = self.expect_positive("sigma", sigma)
        self.count_include_pad = self.expect_flag("count_include_pad", count_include_pad)

    def _bell(self, size: int) -> np.ndarray:
        squares = (np.arange(size) - (size - 1) / 2) ** 2
        # the largest is 1, however small sigma is
        weights = np.exp((squares.min() - squares) / (2 * self.sigma ** 2))
        return weights / weights.sum()

    @cached_property
    def _filters(self) -> Array:
        """The same filter for each map, (C, 1, KH, KW)."""
        rows, columns = (self._bell(size) for size in self.window.kernel)
        filters = np.repeat(np.outer(rows, columns)[None, None], self.in_shapes[0][0], axis=0)
        return self.backend.asarray(filters, self.buffers.dtype)

    @cached_property
    def _factor(self) -> Array | None:
        """1 / the sum of the weights that fall inside X, (OH, OW, 1)."""
        if self.count_include_pad:
            return None
        rows, columns = (inside @ self._bell(size) for inside, size           # (OH, KH), (OW, KW)
                         in zip(self.window.inside(*self.in_shapes[0][1:]), self.window.kernel,
                                strict=True))
        return self.backend.asarray(1.0 / np.outer(rows, columns), self.buffers.dtype)[:, :, None]

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        y = self.backend.conv2d(x, self._filters, self.window, groups=x.shape[0])
        return y if self._factor is None else y * self._factor

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, = self.recall()
        dy = dy if self._factor is None else dy * self._factor
        return self.backend.conv2d_dx(dy, self._filters, x_shape, self.window, groups=x_shape[0])
