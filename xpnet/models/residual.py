"""Residual networks: the output of a block is added to its input (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xpnet.backends import Backend
from xpnet.graph import Input
from xpnet.layer import Shape
from xpnet.layers import Add, GlobalAvgPool2d, Linear, MaxPool2d
from xpnet.models.blocks import conv_bn
from xpnet.models.classes import Classes, count, named
from xpnet.network import Network
from xpnet.node import Node

Block = Callable[[Node, int, int], Node]        # of the input, filters and stride


def resnet18(input_shape: Shape = (3, 32, 32), *, classes: Classes = 10,
             backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Network:
    """ResNet-18: 8 basic blocks; 11,173,962 parameters for 10 classes of images of 32x32 pixels,
    11,689,512 for 1,000 classes of images of 224x224 pixels.

    Images of at most 64x64 pixels enter by a 3x3 convolution without pooling, larger ones by a 7x7
    convolution and a max-pool that make them four times smaller.

    He et al. 2016, table 1; for small images section 4.2.
    """
    y = _stages("resnet18", input_shape, classes, _basic_block, (2, 2, 2, 2))
    return named(Network(*y, backend=backend, dtype=dtype, seed=seed), classes)


def resnet34(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
             backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Network:
    """ResNet-34: 16 basic blocks; 21,797,672 parameters for 1,000 classes of images of 224x224
    pixels. The first layers are those of resnet18, for small images too.

    He et al. 2016, table 1.
    """
    y = _stages("resnet34", input_shape, classes, _basic_block, (3, 4, 6, 3))
    return named(Network(*y, backend=backend, dtype=dtype, seed=seed), classes)


def resnet50(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
             backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Network:
    """ResNet-50: 16 bottleneck blocks; 25,557,032 parameters for 1,000 classes of images of 224x224
    pixels. The first layers are those of resnet18, for small images too.

    The stride of a bottleneck is in its 3x3 convolution and not in its first 1x1 convolution, as in
    most later implementations ("ResNet v1.5").

    He et al. 2016, table 1.
    """
    y = _stages("resnet50", input_shape, classes, _bottleneck, (3, 4, 6, 3))
    return named(Network(*y, backend=backend, dtype=dtype, seed=seed), classes)


SMALL = 64      # rows and columns of an image that enters without pooling


def _stages(who: str, input_shape: Shape, classes: Classes, block: Block, depths: Sequence[int]
            ) -> tuple[Node, Node]:
    """Input and output of a residual network with this number of blocks in each stage. The first
    block of each stage but the first halves rows and columns."""
    x = Input(input_shape)
    if max(x.shape[1:], default=0) <= SMALL:
        h = conv_bn(x, 64, 3)
    else:
        h = conv_bn(x, 64, 7, stride=2)
        h = MaxPool2d(3, stride=2, padding=1)(h)
    for stage, depth in enumerate(depths):
        for number in range(depth):
            h = block(h, 64 * 2**stage, 2 if stage > 0 and number == 0 else 1)
    return x, Linear(count(who, classes))(GlobalAvgPool2d()(h))


def _shortcut(h: Node, filters: int, stride: int) -> Node:
    """The value itself, or a 1x1 projection if its shape changes (He et al. 2016, option B)."""
    same = stride == 1 and h.shape[0] == filters
    return h if same else conv_bn(h, filters, 1, stride=stride, activation=None)


def _basic_block(x: Node, filters: int, stride: int) -> Node:
    h = conv_bn(x, filters, 3, stride=stride)
    h = conv_bn(h, filters, 3, activation=None)
    return Add(activation="relu")(h, _shortcut(x, filters, stride))


def _bottleneck(x: Node, filters: int, stride: int) -> Node:
    h = conv_bn(x, filters, 1)
    h = conv_bn(h, filters, 3, stride=stride)
    h = conv_bn(h, 4 * filters, 1, activation=None)
    return Add(activation="relu")(h, _shortcut(x, 4 * filters, stride))
