"""Weights of pixels for segmentation, so that objects that touch are kept apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import expect_flag, expect_number, expect_positive, finite_array

WHO = "boundary_weights"


def boundary_weights(objects: Any, *, w0: float = 10.0, sigma: float = 5.0, balanced: bool = True
                     ) -> np.ndarray:
    """Weights (N, H, W) of the pixels for WeightedCrossEntropy: w = w_c + w0 exp(-(d1 + d2)^2 / (2
    sigma^2)) (Ronneberger et al. 2015, eq. 2).

    d1 and d2 are the distances of a pixel from the borders of the nearest and the second nearest
    object: the weight is large in narrow gaps between two objects. The distance from a border is
    that from the nearest pixel on its other side. Images with fewer than two objects have w = w_c.

    Args:
        objects: (N, H, W), 0 for the background and another whole number for each object.
        w0: 0 or larger.
        sigma: in pixels.
        balanced: w_c is P / (2 n) for the n pixels of all objects, and for those of the background,
            P the number of pixels of the whole data, so that both count the same. False for w_c =
            1. If one of the two does not occur, w_c is 1.
    """
    objects = finite_array(objects, f"{WHO}: objects")
    if objects.ndim != 3 or 0 in objects.shape:
        raise ValueError(f"{WHO}: expected objects of shape (N, H, W). "
                         f"Received: shape {objects.shape}.")
    if (objects < 0).any() or (objects != np.floor(objects)).any():
        raise ValueError(f"{WHO}: expected objects to be whole numbers, 0 or larger. "
                         f"Received: values from {objects.min():g} to {objects.max():g}.")
    w0, sigma = expect_number(WHO, "w0", w0, 0), expect_positive(WHO, "sigma", sigma)
    balanced = expect_flag(WHO, "balanced", balanced)
    weights, inside = np.ones(objects.shape), objects > 0
    if balanced and inside.any() and not inside.all():
        share = inside.mean()
        weights = np.where(inside, 0.5 / share, 0.5 / (1 - share))
    for weight, image in zip(weights, objects, strict=True):
        first = np.full(image.shape, np.inf)        # distances from the nearest two borders
        second = first.copy()
        for number in np.unique(image[image > 0]):
            own = image == number
            d = np.where(own, distance_from(~own), distance_from(own))
            second = np.minimum(second, np.maximum(first, d))
            first = np.minimum(first, d)
        weight += w0 * np.exp(-((first + second) ** 2) / (2 * sigma**2))
    return weights


def distance_from(mask: np.ndarray) -> np.ndarray:
    """The distance (H, W) of each pixel from the nearest one of the mask; infinite if it is empty.
    """
    H, W = mask.shape
    columns = np.where(mask, np.arange(W, dtype=np.float64), -np.inf)
    left = np.maximum.accumulate(columns, axis=1)       # the nearest column of the mask to the left
    right = np.minimum.accumulate(np.where(mask, np.arange(W), np.inf)[:, ::-1], axis=1)[:, ::-1]
    along = np.minimum(np.arange(W) - left, right - np.arange(W)) ** 2
    squares = np.full((H, W), np.inf)
    for i in range(H):          # the nearest pixel is in row i
        squares = np.minimum(squares, along[i] + ((np.arange(H) - i) ** 2)[:, None])
    return np.sqrt(squares)
