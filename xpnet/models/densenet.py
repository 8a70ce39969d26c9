"""DenseNet: each layer reads the outputs of all layers before it (Huang et al. 2017)."""

from __future__ import annotations

from typing import Any

from xpnet.backends import Backend
from xpnet.graph import Input
from xpnet.layer import Shape
from xpnet.layers import (
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
)
from xpnet.models.classes import Classes, count, named
from xpnet.network import Network
from xpnet.node import Node

DEPTHS, GROWTH = (6, 12, 24, 16), 32        # layers of each block, and maps that each layer adds


def densenet121(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
                backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Network:
    """DenseNet-121: four blocks of 6, 12, 24 and 16 layers that each add 32 feature maps; 7,978,856
    parameters for 1,000 classes of images of 224x224 pixels.

    Huang et al. 2017, table 1.
    """
    x = Input(input_shape)
    h = BatchNorm2d(activation="relu")(_conv(64, 7, stride=2)(x))
    h = MaxPool2d(3, stride=2, padding=1)(h)
    for number, depth in enumerate(DEPTHS):
        if number > 0:                      # a transition: half the maps, half the rows and columns
            h = _conv(h.shape[0] // 2, 1)(BatchNorm2d(activation="relu")(h))
            h = AvgPool2d(2)(h)
        for _ in range(depth):
            h = Concat()(h, _layer(h))
    h = GlobalAvgPool2d()(BatchNorm2d(activation="relu")(h))
    y = Linear(count("densenet121", classes))(h)
    return named(Network(x, y, backend=backend, dtype=dtype, seed=seed), classes)


def _layer(h: Node) -> Node:
    """A 1x1 convolution to 4 GROWTH maps, and a 3x3 convolution to GROWTH."""
    h = _conv(4 * GROWTH, 1)(BatchNorm2d(activation="relu")(h))
    return _conv(GROWTH, 3)(BatchNorm2d(activation="relu")(h))


def _conv(filters: int, kernel_size: int, stride: int = 1) -> Conv2d:
    return Conv2d(filters, kernel_size, stride=stride, padding="half", bias=False,
                  init="he_normal")
