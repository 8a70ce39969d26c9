"""The classic kernels on a photograph, and image pyramids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xpnet.checks import expect_integer, finite_array, shown
from xpnet.functional.convolution import conv2d
from xpnet.viz.figure import new_figure, title
from xpnet.viz.images import draw_image, draw_map, expect_image, grid_of

SMALL = 1e-9        # a sum of weights that counts as 0
ROW = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16

# They slide over the image as they are here, like the filters of Conv2d: a cross-correlation.
KERNELS: dict[str, np.ndarray] = {
    "box 5 x 5": np.full((5, 5), 1 / 25),
    "Gaussian 5 x 5": np.outer(ROW, ROW),
    "sharpen": np.array([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "edge 1 x 2": np.array([[-1.0, 1]]),
    "Sobel, along rows": np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4,
    "Sobel, along columns": np.array([[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]]) / 4,
    "Laplacian": np.array([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]),
}


def show_convolution(image: Any, kernels: Mapping[str, Any] | None = None, *, columns: int = 4
                     ) -> Any:
    """A figure of a photograph and of what kernels make of it.

    Each channel is filtered by itself, Y[i, j] = sum over a, b of K[a, b] X[i + a, j + b], at the
    positions where the kernel is wholly inside the image ("valid"). If the weights of a kernel sum
    to 0, it shows differences: they are those of the mean of the channels, and 0 is white.

    Args:
        image: (H, W) or (C, H, W) with 1 or 3 channels: uint8, or floats from 0 to 1.
        kernels: names and arrays (KH, KW); by default `KERNELS`: box, Gaussian, sharpen, the
            difference of neighbours, Sobel's two (Sobel and Feldman 1968), Laplacian.
        columns: the images of a row.

    Raises:
        ValueError: a kernel is larger than the image, or has other axes.
        ImportError: matplotlib is not installed.
    """
    who = "show_convolution"
    pixels = expect_image(who, image)
    columns = expect_integer(who, "columns", columns)
    kernels = KERNELS if kernels is None else kernels
    if not isinstance(kernels, Mapping):
        raise TypeError(f"{who}: expected kernels to be a dict of names and arrays. Received: "
                        f"{shown(kernels)}.")
    found = {name: _expect_kernel(who, name, kernel, pixels.shape)
             for name, kernel in kernels.items()}
    _, H, W = pixels.shape
    figure, axes = grid_of(who, 1 + len(found), columns, 2.8, 2.8 * H / W + 0.3)
    draw_image(axes[0], pixels, "the image")
    for ax, (name, kernel) in zip(axes[1:], found.items(), strict=True):
        if abs(kernel.sum()) < SMALL:
            draw_map(ax, filtered(pixels.mean(axis=0, keepdims=True), kernel)[0], name, signed=True)
        else:
            draw_image(ax, np.clip(filtered(pixels, kernel), 0, 1), name)
    return figure


def filtered(image: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """Y[c, i, j] = sum over a, b of K[a, b] X[c, i + a, j + b], (C, OH, OW) in float64."""
    y = conv2d(image[:, None].astype(np.float64), kernel[None, None].astype(np.float64),
               stride=stride, backend="numpy")
    return np.asarray(y)[:, 0]


def _expect_kernel(who: str, name: str, kernel: Any, shape: tuple[int, ...]) -> np.ndarray:
    kernel = finite_array(kernel, f"{who}: {name}").astype(np.float64)
    if kernel.ndim != 2 or kernel.size == 0 or any(
            k > size for k, size in zip(kernel.shape, shape[1:], strict=True)):
        raise ValueError(f"{who}: expected {name} to be a kernel (KH, KW), at most as large as the "
                         f"image, {shape[1]} x {shape[2]}. Received: shape {kernel.shape}.")
    return kernel


def pyramid(image: Any, levels: int = 4) -> list[np.ndarray]:
    """A Gaussian pyramid: the image (C, H, W), and images of half its size, a quarter, ...

    Each level is blurred with the Gaussian of 5 x 5, with reflected borders, and every second row
    and column is kept: (C, ceil(H / 2), ceil(W / 2)).

    Burt and Adelson 1983, section "The Gaussian Pyramid", with a = 0.375.

    Args:
        image: (H, W) or (C, H, W) with 1 or 3 channels: uint8, or floats from 0 to 1.
        levels: how many images, the first one included.

    Raises:
        ValueError: a level would be made of fewer than 3 rows or columns.
    """
    found = [expect_image("pyramid", image)]
    for _ in range(expect_integer("pyramid", "levels", levels) - 1):
        if min(found[-1].shape[1:]) < 3:
            raise ValueError(f"pyramid: expected at most {len(found)} levels, for an image of "
                             f"{found[0].shape[1]} x {found[0].shape[2]}. Received: "
                             f"levels={levels}.")
        padded = np.pad(found[-1], ((0, 0), (2, 2), (2, 2)), mode="reflect")
        found.append(filtered(padded, KERNELS["Gaussian 5 x 5"], stride=2))
    return found


def show_pyramid(image: Any, levels: int = 4) -> Any:
    """A figure of a Gaussian pyramid (see `pyramid`), each level in its size relative to the first.

    Args:
        image: (H, W) or (C, H, W) with 1 or 3 channels: uint8, or floats from 0 to 1.
        levels: how many images, the first one included.

    Raises:
        ValueError: the image is too small for so many levels.
        ImportError: matplotlib is not installed.
    """
    found = pyramid(image, levels)
    widths = [level.shape[2] for level in found]
    _, H, W = found[0].shape
    figure = new_figure("show_pyramid", 4 * sum(widths) / W, 4 * H / W + 0.3)
    axes = figure.subplots(1, len(found), squeeze=False, gridspec_kw={"width_ratios": widths})[0]
    for ax, level in zip(axes, found, strict=True):
        draw_image(ax, level)
        title(ax, f"{level.shape[1]} x {level.shape[2]}")
        ax.set_anchor("S")
    return figure
