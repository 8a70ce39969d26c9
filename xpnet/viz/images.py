"""Images as figures: one image, several with titles, and many small maps as one mosaic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.checks import expect_integer, finite_array, items, wrong
from xpnet.viz.figure import HEAT, SIGNED, bare, new_figure, title

LONGEST = 18        # characters of a title
GAP = 1             # pixels between the maps of a mosaic


def expect_image(who: str, image: Any, name: str = "image") -> np.ndarray:
    """An image as an array (C, H, W) of 1 or 3 channels and float64 numbers from 0 to 1.

    uint8 is divided by 255. Floats beyond 0 .. 1 are moved into it: the smallest becomes 0, the
    largest 1.

    Args:
        image: (H, W) or (C, H, W).
    """
    a = finite_array(image, f"{who}: {name}")
    a = a[None] if a.ndim == 2 else a
    if a.ndim != 3 or a.shape[0] not in (1, 3) or a.size == 0:
        raise ValueError(f"{who}: expected {name} of shape (H, W) or (C, H, W) with 1 or 3 "
                         f"channels. Received: shape {np.shape(image)}.")
    if a.dtype == np.uint8:
        return a / 255
    a = a.astype(np.float64)
    return between_0_and_1(a) if a.min() < 0 or a.max() > 1 else a


def between_0_and_1(a: np.ndarray) -> np.ndarray:
    """a, moved and scaled so that its smallest value is 0 and its largest 1; 0.5 if all are
    equal."""
    low, high = a.min(), a.max()
    return (a - low) / (high - low) if high > low else np.full_like(a, 0.5)


def draw_image(ax: Any, image: np.ndarray, text: str = "") -> Any:
    """Draw an image (C, H, W) with values from 0 to 1."""
    pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    if text:
        title(ax, text)
    return bare(ax).imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def draw_map(ax: Any, values: np.ndarray, text: str = "", *, signed: bool | None = None,
             extent: tuple[float, float, float, float] | None = None) -> Any:
    """Draw numbers (H, W) as colours, with a colour bar. Of signed numbers 0 is white.

    Args:
        signed: by default whether there are numbers below 0.
        extent: left, right, bottom and top of the map; by default its columns and rows.
    """
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    if signed is None:
        signed = bool(low < 0)
    most = max(-low, high)
    limits = {"vmin": -most, "vmax": most} if signed else {"vmin": low, "vmax": high}
    drawn = bare(ax).imshow(values, cmap=SIGNED if signed else HEAT, interpolation="nearest",
                            extent=extent, **limits)
    if text:
        title(ax, text)
    H, W = values.shape
    ax.figure.colorbar(drawn, ax=ax, shrink=0.75, pad=0.02, aspect=20 if 2 * H > W else 5)
    return drawn


def grid_of(who: str, count: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure with `count` axes in rows of at most `columns`, each of this size in inches, and
    the axes."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(who, width * columns, height * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        bare(ax)
    return figure, axes[:count]


def mosaic(maps: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Maps (n, H, W, ...) side by side as one (rows (H + 1) - 1, columns (W + 1) - 1, ...), with
    NaN between them and in the places that are left.

    Map k is in row k // columns. By default the whole is about as wide as high.
    """
    n, H, W, *rest = maps.shape
    columns = columns or wide(n, H, W)
    columns = min(columns, n)
    rows = -(-n // columns)
    whole = np.full((rows, H + GAP, columns, W + GAP, *rest), np.nan)
    for k, one in enumerate(maps):
        whole[k // columns, :H, k % columns, :W] = one
    flat = whole.reshape(rows * (H + GAP), columns * (W + GAP), *rest)
    return flat[:-GAP, :-GAP]


def wide(n: int, H: int, W: int) -> int:
    """How many of n maps (H, W) fill a row, if the rows make about a square."""
    return min(n, math.ceil(math.sqrt(n * H / W)))


def show_images(images: Any, titles: Sequence[str] | None = None, *, columns: int = 6) -> Any:
    """A figure of images with a title above each.

    Args:
        images: (N, C, H, W) or a list of images (C, H, W) or (H, W): uint8, or floats from 0 to 1.
        titles: a text for each.
        columns: the images of a row.

    Raises:
        ValueError: an image has other axes, or the titles are not one for each.
        ImportError: matplotlib is not installed.
    """
    who = "show_images"
    given = [*images] if isinstance(images, np.ndarray) and images.ndim > 2 else items(images)
    if not given:
        raise wrong(who, "images to be a list of images, or (N, C, H, W)", "images", images)
    arrays = [expect_image(who, image, f"images[{k}]") for k, image in enumerate(given)]
    texts = [""] * len(arrays) if titles is None else items(titles)
    if not texts or len(texts) != len(arrays) or not all(isinstance(text, str) for text in texts):
        raise wrong(who, f"a title for each of {len(arrays)} images", "titles", titles)
    return figure_of(who, arrays, texts, expect_integer(who, "columns", columns))


def figure_of(who: str, images: Any, titles: Sequence[str], columns: int) -> Any:
    """A matplotlib Figure of images (N, C, H, W) with values from 0 to 1, a title above each."""
    figure, axes = grid_of(who, len(images), columns, 1.5, 1.75)
    for ax, image, text in zip(axes, images, titles):
        draw_image(ax, image, text if len(text) <= LONGEST else text[:LONGEST - 3] + "...")
    return figure
