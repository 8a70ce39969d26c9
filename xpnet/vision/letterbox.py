"""Images of any proportions as input of a network: resized as a whole, with bars at the sides."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xpnet.checks import expect_number, expect_sides, finite_array
from xpnet.data.images import LONGEST_SIDE
from xpnet.vision.boxes import clip_boxes, expect_boxes


class Letterbox(NamedTuple):
    """Where an image lies in the larger one that `letterbox` made of it."""

    scale: tuple[float, float]      # of x and y, the same but for rounding to whole pixels
    left: int
    top: int
    size: tuple[int, int]           # (height, width) of the original

    def forward(self, boxes: Any) -> np.ndarray:
        """Boxes (N, 4) xyxy of the original, in the letterbox."""
        boxes = expect_boxes("Letterbox.forward", "boxes", boxes)
        return boxes * (2 * self.scale) + np.array(2 * (self.left, self.top))

    def backward(self, boxes: Any) -> np.ndarray:
        """Boxes (N, 4) xyxy of the letterbox, in the original and clipped to it."""
        boxes = expect_boxes("Letterbox.backward", "boxes", boxes)
        return clip_boxes((boxes - np.array(2 * (self.left, self.top))) / (2 * self.scale),
                          self.size)


def letterbox(image: Any, size: Any, *, fill: float = 0.5) -> tuple[np.ndarray, Letterbox]:
    """Fit an image (C, H, W) into one of (C, *size): in the middle, as large as possible, with bars
    of the colour `fill` at the sides. Returns it and the Letterbox that converts boxes.

    The image is resized linearly; if it shrinks, each pixel is a mean over the area that it covers.
    Bytes stay bytes.

    Args:
        size: (height, width), or one int for both.
        fill: the value of the bars, in the units of the image: 0.5 is grey for images from 0 to 1,
            127 for bytes.
    """
    who = "letterbox"
    image = finite_array(image, f"{who}: image")
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"{who}: expected an image (C, H, W). Received: shape {image.shape}.")
    rows, columns = expect_sides(who, size, LONGEST_SIDE)
    fill = expect_number(who, "fill", fill)
    H, W = image.shape[1:]
    factor = min(rows / H, columns / W)
    h, w = max(1, round(H * factor)), max(1, round(W * factor))
    top, left = (rows - h) // 2, (columns - w) // 2
    small = _weights(H, h) @ image.astype(np.float64) @ _weights(W, w).T        # (C, h, w)
    dtype = image.dtype if image.dtype.kind in "uif" else np.dtype(np.float32)
    out = np.full((len(image), rows, columns), fill, dtype)
    out[:, top:top + h, left:left + w] = small if dtype.kind == "f" else np.rint(small)
    return out, Letterbox((w / W, h / H), left, top, (int(H), int(W)))


def _weights(source: int, target: int) -> np.ndarray:
    """Weights (target, source) of linear interpolation: a triangle around the place of each new
    pixel, as wide as one pixel of the larger grid on each side."""
    wide = max(source / target, 1.0)
    place = (np.arange(target) + 0.5) * (source / target) - 0.5
    weights = np.maximum(1.0 - abs(np.arange(source) - place[:, None]) / wide, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)
