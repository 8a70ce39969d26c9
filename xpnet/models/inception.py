"""GoogLeNet: blocks of four branches with windows of different sizes."""

from __future__ import annotations

from typing import Any

from xpnet.backends import Backend
from xpnet.checks import expect_flag
from xpnet.graph import Input
from xpnet.layer import Shape
from xpnet.layers import (
    AdaptiveAvgPool2d,
    Concat,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
)
from xpnet.models.blocks import conv_bn
from xpnet.models.classes import Classes, count, named
from xpnet.network import Network
from xpnet.node import Node

# Filters of each block: 1x1; 3x3 behind a 1x1; the large window behind a 1x1; 1x1 behind a pool.
BLOCKS = {
    "3a": (64, (96, 128), (16, 32), 32), "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64), "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64), "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128), "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}
POOLED = {"3b": 3, "4e": 2}             # the window of the max-pool behind a block
AUXILIARY = {"4a": "auxiliary1", "4d": "auxiliary2"}    # outputs beside the network


def googlenet(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
              auxiliary: bool = False, large_window: int = 3, backend: str | Backend = "auto",
              dtype: Any = "float32", seed: int = 0) -> Network:
    """GoogLeNet with batch norm: nine blocks of four branches; 6,624,904 parameters for 1,000
    classes of images of 224x224 pixels, 13,004,888 with the auxiliary outputs.

    With `auxiliary` there are three outputs, {"output": ..., "auxiliary1": ..., "auxiliary2": ...},
    whose losses the paper weights 1, 0.3 and 0.3: fit(..., loss_weights={...}). They let gradients
    reach the first layers; predictions need the first one only. Names of classes are kept by a
    network with one output, so without `auxiliary`.

    Args:
        auxiliary: whether the network has the auxiliary outputs.
        large_window: the kernel size of the third branch: 5 as in the paper, 3 as in torchvision,
            whose number of parameters this is.

    Szegedy et al. 2015, table 1; batch norm as in Ioffe and Szegedy 2015.
    """
    auxiliary = expect_flag("googlenet", "auxiliary", auxiliary)
    K = count("googlenet", classes)
    x = Input(input_shape)
    h = MaxPool2d(3, stride=2, ceil_mode=True)(_conv_bn(x, 64, 7, stride=2))
    h = _conv_bn(_conv_bn(h, 64, 1), 192, 3)
    h = MaxPool2d(3, stride=2, ceil_mode=True)(h)
    heads: dict[str, Node] = {}
    for name, filters in BLOCKS.items():
        h = _block(h, *filters, large_window)
        if auxiliary and name in AUXILIARY:
            heads[AUXILIARY[name]] = _auxiliary(h, K)
        if name in POOLED:
            h = MaxPool2d(POOLED[name], stride=2, ceil_mode=True)(h)
    y = Linear(K)(Dropout(0.2)(GlobalAvgPool2d()(h)))
    if auxiliary:
        return Network(x, {"output": y, **heads}, backend=backend, dtype=dtype, seed=seed)
    return named(Network(x, y, backend=backend, dtype=dtype, seed=seed), classes)


def _block(x: Node, single: int, middle: tuple[int, int], large: tuple[int, int], pooled: int,
           window: int) -> Node:
    return Concat()(_conv_bn(x, single, 1),
                    _conv_bn(_conv_bn(x, middle[0], 1), middle[1], 3),
                    _conv_bn(_conv_bn(x, large[0], 1), large[1], window),
                    _conv_bn(MaxPool2d(3, stride=1, padding=1)(x), pooled, 1))


def _auxiliary(h: Node, classes: Any) -> Node:
    h = Flatten()(_conv_bn(AdaptiveAvgPool2d(4)(h), 128, 1))
    return Linear(classes)(Dropout(0.7)(Linear(1024, activation="relu")(h)))


def _conv_bn(h: Node, filters: int, kernel_size: int, stride: int = 1) -> Node:
    return conv_bn(h, filters, kernel_size, stride=stride, eps=1e-3)
