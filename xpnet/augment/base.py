"""The contract of an augmentation, and several of them as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.augment.draws import Draws as Draws
from xpnet.checks import (
    Checked,
    expect_integer,
    expect_no_mask,
    expect_number,
    expect_seed,
    shown,
    wrong,
)

Array = Any


class Augmentation(Checked):
    """Base class of augmentations: a random change of each image of a batch.

    A subclass writes `change(xp, x, draws)`. All random numbers come from `draws`, so that they
    follow from the seed, the epoch and the number of the sample alone.

    Images are (C, H, W, N) in floating point, batch-last as inside a network. Their values are as
    the data set gives them, usually from 0 to 1.
    """

    @property
    def who(self) -> str:
        return type(self).__name__

    def change(self, xp: Any, x: Array, draws: Draws) -> Array:
        """The changed images, a new array (C, H, W, N); x is not written to."""
        raise NotImplementedError(f"{self.who}: expected a method change(xp, x, draws).")

    def __repr__(self) -> str:
        return f"{self.who}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"

    def expect_channels(self, x: Array) -> None:
        """ValueError unless the images have three channels."""
        if x.shape[0] != 3:
            raise ValueError(f"{self.who}: expected images of three channels, red, green and blue. "
                             f"Received: {x.shape[0]}.")


def augmented(xp: Any, x: Array, augmentations: Sequence[Augmentation], *, seed: int = 0,
              epoch: int = 0, samples: Any = None) -> Array:
    """Images after several augmentations, one after another.

    The same seed, epoch and sample give the same image, in any batch.

    Args:
        xp: the array module of x, e.g. net.xp.
        x: images (C, H, W, N) in floating point; not written to.
        augmentations: in their order.
        seed: of all random numbers.
        epoch: number of the epoch.
        samples: (N,), the numbers of the samples in the data set; by default 0 .. N - 1.
    """
    expect_no_mask("augmented", x)
    if not all(callable(getattr(xp, name, None)) for name in ("where", "take", "arange")):
        raise wrong("augmented", "xp to be an array module, numpy or net.xp", "xp", xp)
    seed, epoch = expect_seed("augmented", seed), expect_integer("augmented", "epoch", epoch, 0)
    if getattr(x, "ndim", None) != 4 or getattr(x, "dtype", np.dtype(bool)).kind != "f":
        raise ValueError("augmented: expected images (C, H, W, N) in floating point. Received: "
                         f"{shown(x)}.")
    numbers = np.arange(x.shape[-1]) if samples is None else np.asarray(samples)
    if (numbers.shape != x.shape[-1:] or numbers.dtype.kind not in "iu" or (numbers < 0).any()
            or np.ma.is_masked(numbers)):
        raise ValueError(f"augmented: expected samples to have {x.shape[-1]} whole numbers, 0 or "
                         f"larger. Received: samples={shown(samples)}.")
    for number, augmentation in enumerate(expect_augmentations("augmented", augmentations)):
        x = _checked(augmentation, x, augmentation.change(xp, x, Draws(seed, epoch, numbers,
                                                                       number)))
    return x


def _checked(augmentation: Augmentation, x: Array, y: Array) -> Array:
    """The changed images y; ValueError if they are none, or other ones than x."""
    if getattr(y, "shape", ())[3:] != x.shape[3:] or y.ndim != 4 or y.dtype != x.dtype:
        raise ValueError(f"{augmentation.who}: expected change to return images (C, H, W, "
                         f"{x.shape[-1]}) of {x.dtype}. Received: {shown(y)}.")
    return y


def expect_augmentations(who: str, value: Any) -> list[Augmentation]:
    """A list of augmentations, or one of them; TypeError for anything else."""
    several = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [
        value]
    for augmentation in several:
        if not isinstance(augmentation, Augmentation):
            raise TypeError(f"{who}: expected augmentations, e.g. [xn.RandomFlip()]. Received: "
                            f"{shown(augmentation)}.")
    return several


def expect_range(who: str, name: str, value: Any, least: float) -> tuple[float, float]:
    """A pair of numbers (low, high), from `least` on."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{who}: expected {name} to be a pair (low, high). Received: "
                         f"{name}={shown(value)}.")
    low, high = (expect_number(who, name, bound, least) for bound in value)
    if high < low:
        raise ValueError(f"{who}: expected {name} to be a pair (low, high). Received: "
                         f"{name}={shown(value)}.")
    return low, high


def on_device(xp: Any, values: np.ndarray, like: Array) -> Array:
    """Numbers for each sample (..., N), on the device and in the dtype of the images `like`."""
    return xp.asarray(values, dtype=like.dtype)
