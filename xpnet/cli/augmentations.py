"""Augmentations by name, with their numbers: `--augment crop:4 flip color:0.2`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from xpnet.augment import (
    Augmentation,
    ColorJitter,
    CutMix,
    CutOut,
    Elastic,
    GaussianBlur,
    GaussianNoise,
    MixUp,
    RandomCrop,
    RandomFlip,
    RandomGrey,
    RandomRotation,
    RandomScale,
    RandomShift,
)
from xpnet.checks import perhaps, shown

# The parameters of each function are the numbers that may follow the name.
AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
    "crop": lambda padding=4: RandomCrop(padding),
    "flip": lambda: RandomFlip(),
    "flip_vertical": lambda: RandomFlip(horizontal=False, vertical=True),
    "rotation": lambda degrees=15: RandomRotation(degrees),
    "scale": lambda low=0.8, high=1.2: RandomScale(low, high),
    "shift": lambda share=0.1: RandomShift(share),
    "elastic": lambda alpha=34, sigma=4: Elastic(alpha, sigma),
    "color": lambda amount=0.2, hue=0: ColorJitter(amount, hue=hue),
    "grey": lambda p=0.1: RandomGrey(p),
    "blur": lambda low=0.1, high=2: GaussianBlur((low, high)),
    "noise": lambda std=0.05: GaussianNoise(std),
    "cutout": lambda size=8: CutOut(size),
    "mixup": lambda alpha=0.2: MixUp(alpha),
    "cutmix": lambda alpha=1: CutMix(alpha),
}


def form(name: str) -> str:
    """How an augmentation is written, with the default values of its numbers: crop:4."""
    numbers = inspect.signature(AUGMENTATIONS[name]).parameters.values()
    return ":".join([name, *(f"{number.default:g}" for number in numbers)])


FORMS = ", ".join(form(name) for name in AUGMENTATIONS)


def augmentations(who: str, texts: Sequence[str]) -> list[Augmentation]:
    """The augmentations of some words, each NAME or NAME:NUMBER:...; ValueError for other words."""
    return [_augmentation(who, text) for text in texts]


def _augmentation(who: str, text: str) -> Augmentation:
    name, *numbers = text.split(":")
    if name not in AUGMENTATIONS:
        raise ValueError(f"{who}: expected --augment with some of {FORMS}"
                         + perhaps(name, AUGMENTATIONS) + f". Received: {shown(text)}.")
    make = AUGMENTATIONS[name]
    try:
        values = [_number(number) for number in numbers]
    except ValueError:
        values = None
    if values is None or len(values) > len(inspect.signature(make).parameters):
        raise ValueError(f"{who}: expected --augment {form(name)}. Received: {shown(text)}.")
    return make(*values)


def _number(text: str) -> float:
    """A whole number as an int: crops and holes take no other."""
    return int(text) if text.lstrip("-").isdigit() else float(text)
