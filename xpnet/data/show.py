"""A figure of samples with the names of their classes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

LONGEST = 18        # characters of a title


def figure_of(images: np.ndarray, titles: Sequence[str], columns: int) -> Any:
    """A matplotlib Figure of images (N, C, H, W) with values from 0 to 1, with a title above each.

    The figure is not made by pyplot: it needs no window and does not have to be closed. A notebook
    shows it through `_repr_png_`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("show: expected matplotlib, which draws the figure. "
                          f'Received: {error}. Remedy: pip install "xpnet[viz]"') from error
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure: Any = Figure(figsize=(1.5 * columns, 1.75 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, title in zip(axes, images, titles):
        pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        short = title if len(title) <= LONGEST else title[:LONGEST - 3] + "..."
        axis.set_title(short, fontsize=9, parse_math=False)     # a name may contain $

    def png() -> bytes:
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100)
        return file.getvalue()

    figure._repr_png_ = png
    return figure
