"""Larger maps: by interpolation, or from more channels."""

from __future__ import annotations

import numpy as np

from xpnet.backends import Window
from xpnet.backends.window import Pair, pair
from xpnet.checks import LARGEST, shown, wrong
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.gathered import RowsAndColumns, Sparse

CUBIC = -0.75  # the slope of the cubic kernel at 1, as in PyTorch and ONNX; Keys himself has -1/2

SEEN = {"nearest": 1, "nearest-exact": 1, "bilinear": 2, "bicubic": 4}      # elements along an axis


class Upsample2d(RowsAndColumns):
    """Interpolated maps: Y[c, y, x] = sum over i, j of k(v - i) k(u - j) X[c, i, j] at the place
    (v, u) of X where (y, x) lies.

    X (C, H, W, N), Y (C, floor(H s), floor(W s), N) for a scale s > 0, or a pair of them (rows,
    columns); or Y (C, OH, OW, N) for size=OH, or (OH, OW), given instead of a scale: then s is OH /
    H, and OW / W for the columns. A pixel is a small square, and that of (y, x) has its centre at v
    = (y + 1/2) / s - 1/2 ("half-pixel"); with align_corners the centres of the corners stay where
    they are, v = y (H - 1) / (OH - 1). The mode says what k is: "nearest": one element, X[floor(y /
    s), floor(x / s)], or "nearest-exact": the one on whose square (v, u) falls; "bilinear": k(t) =
    max(0, 1 - |t|), the edge repeated outside; "bicubic": k(t) = (a + 2)|t|^3 - (a + 3)|t|^2 + 1 up
    to 1, a |t|^3 - 5a |t|^2 + 8a |t| - 4a up to 2, a = -3/4 as in PyTorch and ONNX (Keys 1981 shows
    that a = -1/2 approximates best). Rows and columns are apart: Y = A X B^T, dX = A^T dY B. A
    scale below 1 takes samples, it does not average. ValueError for an unknown mode, for
    align_corners without interpolation, and unless one of scale and size is given.
    """

    kind = "upsample"

    def __init__(self, scale: float | tuple[float, float] | None = None, mode: str = "nearest",
                 align_corners: bool = False, *, size: Pair | None = None, name: str | None = None
                 ) -> None:
        super().__init__(name=name)
        if (scale is None) == (size is None):
            raise ValueError(f"{self.who}: expected either scale or size. "
                             f"Received: scale={shown(scale)}, size={shown(size)}.")
        self.size, self._size = size, None if size is None else pair(size, "size", 1, self.who)
        scales = (tuple(scale) if isinstance(scale, tuple | list)
                  else (1.0 if scale is None else scale,) * 2)
        if len(scales) != 2:
            raise wrong(self.who, "scale to be a number or a pair (rows, columns)", "scale", scale)
        self.upsampling = tuple(self.expect_number("scale", s, 1e-6) for s in scales)       # type: ignore[assignment]
        sees = SEEN[self.expect_choice("mode", mode, SEEN)]
        if self.expect_flag("align_corners", align_corners) and sees == 1:
            raise ValueError(f'{self.who}: expected mode "bilinear" or "bicubic" with '
                             'align_corners. '
                             f"Received: mode={mode!r}, align_corners=True.")
        self.scale = (None if scale is None else self.upsampling if isinstance(scale, tuple | list)
                      else self.upsampling[0])
        self.mode, self.align_corners = mode, align_corners
        self.window = Window((sees, sees))

    def sizes(self, H: int, W: int) -> tuple[int, int]:
        if self._size is not None:
            self.upsampling = self._size[0] / H, self._size[1] / W
            return self._size
        rows, columns = H * self.upsampling[0], W * self.upsampling[1]
        if min(rows, columns) < 1:
            raise ValueError(f"{self.who}: expected an output of 1x1 at least. "
                             f"Received: an input of {H}x{W} with scale={self.scale!r}.")
        return int(min(rows, LARGEST)), int(min(columns, LARGEST))

    def matrices(self, H: int, W: int) -> tuple[Sparse, Sparse]:
        _, OH, OW = self.out_shape
        return self._matrix(H, OH, self.upsampling[0]), self._matrix(W, OW, self.upsampling[1])

    def _matrix(self, size: int, out: int, scale: float) -> Sparse:
        """(out, size): how much of each element is in each output along one axis."""
        def place(y: np.ndarray) -> np.ndarray:
            # out / size itself may be rounded
            return y / scale if self._size is None else y * size / out

        y = np.arange(out)
        if self.mode in ("nearest", "nearest-exact"):
            inside = 0.5 if self.mode == "nearest-exact" else 0.0
            return Sparse.taking(size, np.minimum(place(y + inside).astype(int), size - 1)[:, None])
        at = y * ((size - 1) / max(out - 1, 1)) if self.align_corners else place(y + 0.5) - 0.5
        below = np.floor(at).astype(int)
        near = range(-1, 3) if self.mode == "bicubic" else range(2)
        kernel = _cubic if self.mode == "bicubic" else lambda t: np.maximum(0, 1 - np.abs(t))
        return Sparse.taking(size, np.stack([np.clip(below + k, 0, size - 1) for k in near],
                                            axis=1),
                             np.stack([kernel(at - below - k) for k in near], axis=1))


def _cubic(t: np.ndarray) -> np.ndarray:
    a, t = CUBIC, np.abs(t)
    inner, outer = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0))


class _Blocks(Layer):
    """Blocks of r x r pixels against r^2 channels."""

    kind = "shuffle"

    def __init__(self, r: int, order: str = "CRD", *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.r, self.order = (self.expect_integer("r", r),
                              self.expect_choice("order", order, ("CRD", "DCR")))

    def to_pixels(self, x: Array) -> Array:
        """(C r^2, H, W, N) -> (C, H r, W r, N)."""
        D, H, W, N = x.shape
        r, C = self.r, D // self.r**2
        if self.order == "CRD":
            x = x.reshape(C, r, r, H, W, N).transpose(0, 3, 1, 4, 2, 5)  # (C, H, r, W, r, N)
        else:
            x = x.reshape(r, r, C, H, W, N).transpose(2, 3, 0, 4, 1, 5)
        return x.reshape(C, H * r, W * r, N)

    def to_channels(self, x: Array) -> Array:
        """(C, H r, W r, N) -> (C r^2, H, W, N)."""
        C, H, W, N = x.shape
        r = self.r
        x = x.reshape(C, H // r, r, W // r, r, N)
        x = x.transpose(0, 2, 4, 1, 3, 5) if self.order == "CRD" else x.transpose(2, 4, 0, 1, 3, 5)
        return x.reshape(C * r * r, H // r, W // r, N)


class PixelShuffle(_Blocks):
    """Depth to space: Y[c, h r + i, w r + j] = X[c r^2 + i r + j, h, w], so that channels become
    blocks of r x r pixels.

    X (C r^2, H, W, N), Y (C, H r, W r, N); dX is the way back, nothing is added. order="DCR" has
    the block's place first, X[(i r + j) C + c, h, w]; what is learned in front of it finds either.
    ValueError where r^2 does not divide the channels. Shi et al. 2016, eq. 4, which has the order
    DCR.
    """

    def build(self, in_shape: Shape) -> Shape:
        D, H, W = self.expect_axes(in_shape, "channels, height, width")
        if D % self.r**2:
            raise ValueError(f"{self.who}: expected channels that r^2 = {self.r**2} divides. "
                             f"Received: input shape {in_shape}.")
        self.upsampling = self.r, self.r
        return D // self.r**2, H * self.r, W * self.r

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.to_pixels(x)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        return self.to_channels(dy)


class PixelUnshuffle(_Blocks):
    """Space to depth: Y[c r^2 + i r + j, h, w] = X[c, h r + i, w r + j], so that blocks of r x r
    pixels become channels.

    X (C, H r, W r, N), Y (C r^2, H, W, N); dX is the way back: it undoes PixelShuffle. order="DCR"
    has the block's place first, Y[(i r + j) C + c, h, w]. ValueError where r does not divide height
    and width. Shi et al. 2016.
    """

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        if H % self.r or W % self.r:
            raise ValueError(f"{self.who}: expected a height and a width that r = {self.r} "
                             "divides. "
                             f"Received: input shape {in_shape}.")
        self.window = Window((self.r, self.r), (self.r, self.r))
        return C * self.r**2, H // self.r, W // self.r

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.to_channels(x)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        return self.to_pixels(dy)
