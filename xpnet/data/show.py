"""A figure of samples with the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.inspect.figure import new_figure

LONGEST = 18        # characters of a title


def figure_of(images: np.ndarray, titles: Sequence[str], columns: int) -> Any:
    """A matplotlib Figure of images (N, C, H, W) with values from 0 to 1, with a title above each.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure("show", 1.5 * columns, 1.75 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, title in zip(axes, images, titles):
        pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        short = title if len(title) <= LONGEST else title[:LONGEST - 3] + "..."
        axis.set_title(short, fontsize=9, parse_math=False)     # a name may contain $
    return figure
