"""Data augmentation: random changes of images that do not change their class.

For batch-first arrays (N, C, H, W) of any dtype, of NumPy or, with xp=net.xp, of the network's
backend. Random numbers are drawn on the host: the same generator gives the same images on every
backend.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import expect_instance, expect_integer, expect_no_mask, wrong

Array = Any


def random_crop(x: Array, rng: np.random.Generator, *, padding: int = 4, xp: Any = np) -> Array:
    """Move each image by up to `padding` pixels along both axes; zeros come in at the border.

        y[n, c, i, j] = x[n, c, i + a[n], j + b[n]],  a and b uniform from -padding to padding

    x (N, C, H, W) -> a new array like it.

    He et al. 2016, section 4.2.
    """
    N, C, H, W = _shape(x, rng, xp, "random_crop")
    padding = expect_integer("random_crop", "padding", padding, 0)
    padded = xp.zeros((N, C, H + 2 * padding, W + 2 * padding), x.dtype)
    padded[:, :, padding:padding + H, padding:padding + W] = x
    top, left = rng.integers(0, 2 * padding + 1, (2, N))
    rows = xp.asarray(top[:, None] + np.arange(H))[:, None, :, None]            # (N, 1, H, 1)
    columns = xp.asarray(left[:, None] + np.arange(W))[:, None, None, :]        # (N, 1, 1, W)
    return padded[xp.arange(N)[:, None, None, None], xp.arange(C)[:, None, None], rows, columns]


def random_flip(x: Array, rng: np.random.Generator, *, xp: Any = np) -> Array:
    """Mirror each image with probability 1/2: y[n, c, i, j] = x[n, c, i, W - 1 - j].

    x (N, C, H, W) -> a new array like it.
    """
    N = _shape(x, rng, xp, "random_flip")[0]
    mirrored = xp.asarray(rng.random(N) < 0.5)[:, None, None, None]
    return xp.where(mirrored, x[..., ::-1], x)


def _shape(x: Array, rng: np.random.Generator, xp: Any, who: str) -> tuple[int, int, int, int]:
    """The shape of the images, after the checks that all functions share."""
    expect_no_mask(who, x)
    expect_instance(who, "rng", rng, np.random.Generator,
                    "a generator, e.g. np.random.default_rng(0)")
    needed = "zeros", "asarray", "arange", "where"
    if not all(callable(getattr(xp, name, None)) for name in needed):
        raise wrong(who, "xp to be an array module, numpy or net.xp", "xp", xp)
    if getattr(x, "ndim", None) != 4:
        shape = f" of shape {tuple(x.shape)}" if hasattr(x, "shape") else ""
        raise ValueError(f"{who}: expected images as an array (N, C, H, W). "
                         f"Received: {type(x).__name__}{shape}.")
    return tuple(x.shape)
