"""Networks of few parameters: All-CNN, SqueezeNet and MobileNet."""

from __future__ import annotations

from typing import Any

from xpnet.backends import Backend
from xpnet.graph import Input, chain
from xpnet.layer import Layer, Shape
from xpnet.layers import (
    Add,
    BatchNorm2d,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Dropout,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
)
from xpnet.models.blocks import conv_bn
from xpnet.models.classes import Classes, count, named
from xpnet.network import Network, Sequential
from xpnet.node import Node


def all_cnn(input_shape: Shape = (3, 32, 32), *, classes: Classes = 10,
            backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Sequential:
    """All-CNN-C: nine convolutions, of which two have stride 2 in place of pooling, and a global
    average; 1,369,738 parameters for 10 classes of images of 32x32 pixels.

    Springenberg et al. 2015, tables 1 and 2 (column C), dropout as in section 3.1.
    """
    def conv(filters: Any, kernel_size: int, stride: int = 1, padding: int = 0) -> Conv2d:
        return Conv2d(filters, kernel_size, stride=stride, padding=padding, activation="relu",
                      init="he_normal")
    return named(Sequential([
        Dropout(0.2), conv(96, 3, padding=1), conv(96, 3, padding=1),
        conv(96, 3, stride=2, padding=1), Dropout(0.5),
        conv(192, 3, padding=1), conv(192, 3, padding=1),
        conv(192, 3, stride=2, padding=1), Dropout(0.5),
        conv(192, 3), conv(192, 1), conv(count("all_cnn", classes), 1), GlobalAvgPool2d(),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed), classes)


# --- SqueezeNet -----------------------------------------------------------------------------------

def squeezenet1_0(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
                  backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0
                  ) -> Network:
    """SqueezeNet 1.0: eight fire modules, a narrow 1x1 convolution before a wide one; 1,248,424
    parameters for 1,000 classes of images of 224x224 pixels.

    Iandola et al. 2016, table 1.
    """
    stages = ((16, 64), (16, 64), (32, 128)), ((32, 128), (48, 192), (48, 192), (64, 256)), (
        (64, 256),)
    first = Conv2d(96, 7, stride=2, activation="relu", init="he_normal")
    y = _squeezenet(Input(input_shape), first, stages, count("squeezenet1_0", classes))
    return named(Network(*y, backend=backend, dtype=dtype, seed=seed), classes)


def squeezenet1_1(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
                  backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0
                  ) -> Network:
    """SqueezeNet 1.1: pools earlier than 1.0, for 2.4 times fewer multiply-adds; 1,235,496
    parameters for 1,000 classes of images of 224x224 pixels.

    The authors' later version (github.com/forresti/SqueezeNet).
    """
    stages = ((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256),
                                                           (64, 256))
    first = Conv2d(64, 3, stride=2, activation="relu", init="he_normal")
    y = _squeezenet(Input(input_shape), first, stages, count("squeezenet1_1", classes))
    return named(Network(*y, backend=backend, dtype=dtype, seed=seed), classes)


def _squeezenet(x: Node, first: Layer, stages: tuple[tuple[tuple[int, int], ...], ...],
                classes: Any) -> tuple[Node, Node]:
    """Input and output. A max-pool is before each stage of fire modules."""
    h = first(x)
    for modules in stages:
        h = MaxPool2d(3, stride=2, ceil_mode=True)(h)
        for narrow, wide in modules:
            h = _fire(h, narrow, wide)
    last = Conv2d(classes, 1, activation="relu")
    return x, chain("squeezenet", [Dropout(0.5), last, GlobalAvgPool2d()], h)


def _fire(h: Node, narrow: int, wide: int) -> Node:
    h = Conv2d(narrow, 1, activation="relu", init="he_normal")(h)
    return Concat()(Conv2d(wide, 1, activation="relu", init="he_normal")(h),
                    Conv2d(wide, 3, padding=1, activation="relu", init="he_normal")(h))


# --- MobileNet ------------------------------------------------------------------------------------

# Factor of the maps inside a block, maps, blocks, stride of the first block.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
          (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
                 backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0
                 ) -> Network:
    """MobileNetV2: 17 blocks that widen by a 1x1 convolution, convolve each map by itself, and
    narrow again without an activation; 3,504,872 parameters for 1,000 classes of images of 224x224
    pixels.

    Sandler et al. 2018, table 2.
    """
    x = Input(input_shape)
    h = conv_bn(x, 32, 3, stride=2, activation="relu6")
    for factor, maps, blocks, stride in STAGES:
        for number in range(blocks):
            h = _inverted(h, factor, maps, stride if number == 0 else 1)
    h = conv_bn(h, 1280, 1, activation="relu6")
    y = Linear(count("mobilenet_v2", classes))(Dropout(0.2)(GlobalAvgPool2d()(h)))
    return named(Network(x, y, backend=backend, dtype=dtype, seed=seed), classes)


def _inverted(x: Node, factor: int, maps: int, stride: int) -> Node:
    """An inverted residual block: narrow at both ends, where its input is added."""
    h = x
    if factor > 1:
        h = conv_bn(h, factor * x.shape[0], 1, activation="relu6")
    h = DepthwiseConv2d(3, stride=stride, padding=1, bias=False, init="he_normal")(h)
    h = BatchNorm2d(activation="relu6")(h)
    h = conv_bn(h, maps, 1, activation=None)
    return Add()(x, h) if h.shape == x.shape else h
