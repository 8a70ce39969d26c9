"""Kinds of pooling on a photograph, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xpnet.checks import expect_function, expect_instance, expect_integer, items, shown, wrong
from xpnet.layer import Layer
from xpnet.layers.pooling import AvgPool2d, MaxPool2d
from xpnet.layers.subsampling import GaussianPool2d, LpPool2d, SkipSampling2d
from xpnet.viz.figure import new_figure
from xpnet.viz.images import draw_image, expect_image

WHO = "show_pooling"

# What makes a layer for windows of k x k elements that lie side by side.
POOLINGS: dict[str, Callable[[int], Layer]] = {
    "max": MaxPool2d,
    "average": AvgPool2d,
    "root mean square": lambda k: LpPool2d(k, 2, mean=True),
    "Gaussian": lambda k: GaussianPool2d(k, k / 4),
    "first element": SkipSampling2d,
}


def show_pooling(image: Any, windows: Sequence[int] = (2, 4, 8, 16), *,
                 kinds: Mapping[str, Callable[[int], Layer]] | None = None) -> Any:
    """A figure of a photograph after pooling: a row for each kind, a column for each window.

    Windows of k x k pixels lie side by side, so that k^2 pixels become one. All images are drawn in
    the same size. Maxima make an image brighter and bright details larger; means blur it; skipping
    keeps single pixels, which gives false patterns where details are finer than the window
    (aliasing).

    Args:
        image: (H, W) or (C, H, W) with 1 or 3 channels: uint8, or floats from 0 to 1.
        windows: sizes k.
        kinds: names, and functions that make a layer for k; by default `POOLINGS`: max, average,
            root mean square, Gaussian, first element.

    Raises:
        ValueError: a window is larger than the image.
        ImportError: matplotlib is not installed.
    """
    pixels = expect_image(WHO, image)
    _, H, W = pixels.shape
    sizes = [expect_integer(WHO, "windows", k, 1, min(H, W)) for k in items(windows) or ()]
    if not sizes:
        raise wrong(WHO, "windows to be a list of sizes", "windows", windows)
    kinds = POOLINGS if kinds is None else kinds
    if not isinstance(kinds, Mapping) or not kinds:
        raise TypeError(f"{WHO}: expected kinds to be a dict of names and functions that make a "
                        f"layer. Received: {shown(kinds)}.")
    made = {(name, k): pooled(pixels, expect_instance(
                WHO, name, expect_function(WHO, name, make, "k")(k), Layer, "a function whose "
                "result is a layer")) for name, make in kinds.items() for k in sizes}
    rows, columns = len(kinds), len(sizes)
    figure = new_figure(WHO, 2.4 * columns, rows * (2.4 * H / W + 0.3))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, ((name, k), y) in zip(axes, made.items(), strict=True):
        draw_image(ax, y / max(1.0, y.max()), f"{name}, {k} x {k}")
    return figure


def pooled(image: np.ndarray, layer: Layer) -> np.ndarray:
    """What a layer makes of one image (C, H, W), in float64."""
    layer.initialize(image.shape, backend="numpy", dtype="float64")
    return np.array(layer.forward(np.ascontiguousarray(image[..., None]))[..., 0])
