"""The networks of the ImageNet competitions of 2012 to 2014 that are one straight line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpnet.backends import Backend
from xpnet.layer import Layer, Shape
from xpnet.layers import Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d
from xpnet.models.classes import Classes, count, named
from xpnet.network import Sequential


def alexnet(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
            backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Sequential:
    """AlexNet in the form for one GPU: five convolutions without local response normalization and
    three linear layers; 61,100,840 parameters for images of 224x224 pixels and 1,000 classes.

    Krizhevsky 2014, after Krizhevsky et al. 2012, figure 2.
    """
    return named(Sequential([
        Conv2d(64, 11, stride=4, padding=2, activation="relu"), MaxPool2d(3, stride=2),
        Conv2d(192, 5, padding=2, activation="relu"), MaxPool2d(3, stride=2),
        *_convolutions((384, 256, 256)), MaxPool2d(3, stride=2),
        *_linear(count("alexnet", classes), dropout_before=True),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed), classes)


def zfnet(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
          backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Sequential:
    """ZFNet: AlexNet with a smaller window and stride at the beginning, which its authors found by
    looking at the feature maps; 62,357,608 parameters for images of 224x224 pixels and 1,000
    classes.

    Zeiler and Fergus 2014, figure 3.
    """
    return named(Sequential([
        Conv2d(96, 7, stride=2, padding=1, activation="relu"),
        MaxPool2d(3, stride=2, ceil_mode=True), LocalResponseNorm(),
        Conv2d(256, 5, stride=2, activation="relu"),
        MaxPool2d(3, stride=2, ceil_mode=True), LocalResponseNorm(),
        *_convolutions((384, 384, 256)), MaxPool2d(3, stride=2),
        *_linear(count("zfnet", classes), dropout_before=False),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed), classes)


def vgg16(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
          backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Sequential:
    """VGG-16: thirteen 3x3 convolutions in five stages, each followed by a max-pool, and three
    linear layers; 138,357,544 parameters for images of 224x224 pixels and 1,000 classes.

    Simonyan and Zisserman 2015, table 1, column D.
    """
    stages = (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)
    return named(Sequential([
        *(layer for filters in stages for layer in (*_convolutions(filters), MaxPool2d(2))),
        *_linear(count("vgg16", classes), dropout_before=False),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed), classes)


def _convolutions(filters: Sequence[int]) -> list[Layer]:
    """3x3 convolutions that keep rows and columns."""
    return [Conv2d(number, 3, padding=1, activation="relu", init="he_normal")
            for number in filters]


def _linear(classes: Any, *, dropout_before: bool) -> list[Layer]:
    """Three linear layers, with dropout before each of the first two or after it."""
    layers: list[Layer] = [Flatten()]
    for _ in range(2):
        linear = Linear(4096, activation="relu")
        layers += [Dropout(0.5), linear] if dropout_before else [linear, Dropout(0.5)]
    return [*layers, Linear(classes)]
