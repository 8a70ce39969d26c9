"""Boxes drawn into an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.checks import expect_class_names, expect_integer, finite_array
from xpnet.data.images import pillow
from xpnet.vision.boxes import expect_boxes, expect_labels, expect_per_box

WHO = "draw_boxes"
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#f032e6",
           "#808000", "#000075")       # of the classes, again from the first after the last
SMALLEST_TEXT = 10              # pixels


def draw_boxes(image: Any, boxes: Any, labels: Any = None, scores: Any = None, *,
               names: Sequence[str] | None = None, scale: int = 1) -> Any:
    """An image with boxes, their classes and their scores, as a Pillow image, which a notebook
    shows and `save` writes.

    Args:
        image: (C, H, W), C 1 or 3: bytes, or floats from 0 to 1, beyond which they are clipped.
        boxes: (M, 4) xyxy in pixels.
        labels: class numbers (M,); each class has its colour.
        scores: (M,), written after the class.
        names: of the classes; by default their numbers.
        scale: how many times larger the result is.

    Raises:
        ImportError: Pillow is not installed.
    """
    pixels = finite_array(image, f"{WHO}: image")
    if pixels.ndim != 3 or len(pixels) not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"{WHO}: expected an image (C, H, W) of 1 or 3 channels. "
                         f"Received: shape {pixels.shape}.")
    boxes = expect_boxes(WHO, "boxes", boxes)
    classes = None if labels is None else expect_labels(WHO, "labels", labels, len(boxes))
    certain = None if scores is None else expect_per_box(WHO, "scores", scores, len(boxes))
    texts = None if names is None else expect_class_names(WHO, names, "names")
    if texts and classes is not None and classes.size and classes.max() >= len(texts):
        raise ValueError(f"{WHO}: expected a name for each class. Received: {len(texts)} names for "
                         f"class {classes.max()}.")
    scale = expect_integer(WHO, "scale", scale, 1, 64)
    pillow(WHO)
    from PIL import Image, ImageDraw, ImageFont
    if pixels.dtype != np.uint8:
        pixels = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    pixels = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
    drawn = Image.fromarray(np.ascontiguousarray(pixels))
    drawn = drawn.resize((scale * drawn.width, scale * drawn.height), Image.Resampling.NEAREST)
    wide = max(1, round(max(drawn.size) / 120))
    font = ImageFont.load_default(max(SMALLEST_TEXT, round(max(drawn.size) / 40)))
    pen = ImageDraw.Draw(drawn)
    for n in reversed(range(len(boxes))):           # the most certain one is on top
        x1, y1, x2, y2 = scale * boxes[n]
        colour = COLOURS[0 if classes is None else int(classes[n]) % len(COLOURS)]
        x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)   # Pillow's boxes include their last pixel
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=wide)
        words = [] if classes is None else [texts[classes[n]] if texts else str(classes[n])]
        words += [] if certain is None else [f"{certain[n]:.2f}"]
        if words:
            text = " ".join(words)
            *_, right, bottom = pen.textbbox((0, 0), text, font=font)
            y = y1 - bottom - 2 if y1 >= bottom + 2 else y1     # inside where there is no room
            x = max(0, min(x1, drawn.width - right - 4))
            pen.rectangle((x, y, x + right + 3, y + bottom + 2), fill=colour)
            pen.text((x + 2, y), text, fill="white", font=font)
    return drawn
