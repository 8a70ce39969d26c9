"""Networks of the literature, each with its source.

Every function takes the shape of one sample and returns a network. `classes` is how many there are,
or their names, as a Dataset has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from xpnet.backends import Backend
from xpnet.checks import expect_class_names, items
from xpnet.graph import Input
from xpnet.layer import Layer, Shape
from xpnet.layers import (
    RBF,
    Add,
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Subsampling2d,
    TableConv2d,
)
from xpnet.network import Network, Sequential
from xpnet.node import Node

Classes = int | Sequence[str]
Net = TypeVar("Net", bound=Network)


def _count(who: str, classes: Classes) -> Any:
    """The number of classes; what is no list is checked by the layer that gets it."""
    return classes if items(classes) is None else len(expect_class_names(who, classes))


def _named(net: Net, classes: Classes) -> Net:
    """The network, which knows the names of its classes if there are some."""
    if items(classes) is not None:
        net.classes = classes           # type: ignore[assignment]
    return net


def numpy_cnn(input_shape: Shape = (1, 28, 28), *, classes: Classes = 10,
              backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Sequential:
    """Alejandro Escontrela's Numpy-CNN: two 5x5 convolutions of 8 filters, a max-pool, two dense
    layers.

    Its author reports 98.4 % on MNIST's test set after about five hours of training
    (github.com/Alescontrela/Numpy-CNN, README).
    """
    return _named(Sequential([
        Conv2d(8, 5, activation="relu"), Conv2d(8, 5, activation="relu"), MaxPool2d(2),
        Flatten(), Linear(128, activation="relu"), Linear(_count("numpy_cnn", classes)),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed), classes)


def bilici(input_shape: Shape = (1, 28, 28), *, classes: Classes = 10,
           backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Sequential:
    """Bilici's MNIST network: two convolutions (3x3x8, 5x5x32) with batch norm, ReLU and max-pool,
    then 600 hidden units."""
    return _named(Sequential([
        Conv2d(8, 3, padding="half"), BatchNorm2d(activation="relu"), MaxPool2d(2),
        Conv2d(32, 5, padding="half"), BatchNorm2d(activation="relu"), MaxPool2d(2),
        Flatten(), Linear(600, activation="relu"), Linear(_count("bilici", classes)),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed), classes)


def lecun1989(input_shape: Shape = (1, 28, 28), *, kernel_size: int = 5,
              backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Sequential:
    """The simplified LeCun 1989 network of the Mendez-Vazquez lecture: 3 and 9 feature maps, one
    unit, all with ReLU.

    For half squared error on one number. The lecture does not give the kernel size; 5x5 is that of
    LeCun et al. 1989. In its formula each feature map of the third layer, the second convolution,
    reads one feature map of the layer before. Here, as in most networks, it reads all three;
    Conv2d(9, 5, groups=3) is the other reading.
    """
    return Sequential([
        Conv2d(3, kernel_size, activation="relu"), MaxPool2d(2),
        Conv2d(9, kernel_size, activation="relu"), MaxPool2d(2),
        Flatten(), Linear(1, activation="relu"),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed)


C3_TABLE = (    # the maps of S2 that each map of C3 reads: LeCun et al. 1998, table I
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)


def lenet5(input_shape: Shape = (1, 32, 32), *, backend: str | Backend = "auto",
           dtype: Any = "float32", seed: int = 0) -> Sequential:
    """LeNet-5 with its connection table, trainable subsampling and RBF outputs: 60,000 trained
    parameters.

    Takes 32x32 images, or 28x28 images, which the first layer pads to 32x32. The codes of the ten
    outputs are bitmaps of 7x12 pixels as in the paper, drawn anew.

    LeCun et al. 1998, section II.B and figure 2.
    """
    border = 2 if Input(input_shape).shape[1:] == (28, 28) else 0
    init = "lecun_uniform"
    return Sequential([
        Conv2d(6, 5, padding=border, activation="scaled_tanh", init=init, name="C1"),
        Subsampling2d(2, activation="scaled_tanh", init=init, name="S2"),
        TableConv2d(C3_TABLE, 5, activation="scaled_tanh", init=init, name="C3"),
        Subsampling2d(2, activation="scaled_tanh", init=init, name="S4"),
        Conv2d(120, 5, activation="scaled_tanh", init=init, name="C5"), Flatten(),
        Linear(84, activation="scaled_tanh", init=init, name="F6"), RBF(codes(), name="output"),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed)


# The ten output codes of LeNet-5: digits as bitmaps of 7 x 12 pixels, drawn for xpnet after the
# idea of LeCun et al. 1998, figure 3. A pixel is +1 where there is ink and -1 elsewhere.
WIDTH, HEIGHT = 7, 12
_DIGITS = """
0        1        2        3        4        5        6        7        8        9
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...#...  .#####.  #######  .....#.  #######  ..####.  #######  .#####.  .#####.
.#...#.  ..##...  #.....#  .....#.  ....##.  #......  .#.....  ......#  #.....#  #.....#
#.....#  .#.#...  ......#  ....#..  ...#.#.  #......  #......  .....#.  #.....#  #.....#
#.....#  ...#...  .....#.  ...##..  ..#..#.  ######.  #......  .....#.  .#...#.  #.....#
#.....#  ...#...  ....#..  .....#.  .#...#.  ......#  ######.  ....#..  ..###..  .######
#.....#  ...#...  ...#...  ......#  #....#.  ......#  #.....#  ....#..  .#...#.  ......#
#.....#  ...#...  ..#....  ......#  #######  ......#  #.....#  ...#...  #.....#  ......#
.#...#.  ...#...  .#.....  #.....#  .....#.  #....#.  #.....#  ...#...  #.....#  .....#.
..###..  .#####.  #######  .#####.  .....#.  .####..  .#####.  ...#...  .#####.  .####..
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""


def codes() -> list[list[float]]:
    """The ten output codes of LeNet-5, 84 numbers for each digit."""
    lines = [line.split() for line in _DIGITS.strip().splitlines()[1:]]     # 12 lines of 10 pieces
    return [[1.0 if pixel == "#" else -1.0 for line in lines for pixel in line[digit]]
            for digit in range(10)]


def resnet18(input_shape: Shape = (3, 32, 32), *, classes: Classes = 10,
             backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Network:
    """ResNet-18 for small images: a 3x3 stem without pooling, then 8 basic blocks; 11,173,962
    parameters for 10 classes.

    He et al. 2016, table 1, with the stem of its section 4.2 (CIFAR-10).
    """
    x = Input(input_shape)
    h = BatchNorm2d(activation="relu")(Conv2d(64, 3, padding=1, bias=False, init="he_normal")(x))
    for stage, filters in enumerate((64, 128, 256, 512)):
        for block in range(2):
            h = _basic_block(h, filters, stride=2 if stage > 0 and block == 0 else 1)
    y = Linear(_count("resnet18", classes))(GlobalAvgPool2d()(h))
    return _named(Network(x, y, backend=backend, dtype=dtype, seed=seed), classes)


def resnet50(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
             backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Network:
    """ResNet-50: a 7x7 stem, a max-pool and 16 bottleneck blocks; 25,557,032 parameters for 1,000
    classes.

    The stride of a bottleneck is in its 3x3 convolution and not in its first 1x1 convolution, as in
    most later implementations ("ResNet v1.5").

    He et al. 2016, table 1.
    """
    x = Input(input_shape)
    h = BatchNorm2d(activation="relu")(
        Conv2d(64, 7, stride=2, padding=3, bias=False, init="he_normal")(x))
    h = MaxPool2d(3, stride=2, padding=1)(h)
    for stage, (filters, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            h = _bottleneck(h, filters, stride=2 if stage > 0 and block == 0 else 1)
    y = Linear(_count("resnet50", classes))(GlobalAvgPool2d()(h))
    return _named(Network(x, y, backend=backend, dtype=dtype, seed=seed), classes)


def _conv_bn(h: Node, filters: int, kernel_size: int, *, stride: int = 1,
             activation: str | None = None) -> Node:
    conv: Layer = Conv2d(filters, kernel_size, stride=stride, padding="half", bias=False,
                         init="he_normal")
    return BatchNorm2d(activation=activation)(conv(h))


def _shortcut(h: Node, filters: int, stride: int) -> Node:
    """The value itself, or a 1x1 projection if its shape changes (He et al. 2016, option B)."""
    return h if stride == 1 and h.shape[0] == filters else _conv_bn(h, filters, 1, stride=stride)


def _basic_block(x: Node, filters: int, stride: int) -> Node:
    h = _conv_bn(x, filters, 3, stride=stride, activation="relu")
    h = _conv_bn(h, filters, 3)
    return Add(activation="relu")(h, _shortcut(x, filters, stride))


def _bottleneck(x: Node, filters: int, stride: int) -> Node:
    h = _conv_bn(x, filters, 1, activation="relu")
    h = _conv_bn(h, filters, 3, stride=stride, activation="relu")
    h = _conv_bn(h, 4 * filters, 1)
    return Add(activation="relu")(h, _shortcut(x, 4 * filters, stride))


MODELS: dict[str, Callable[..., Network]] = {
    "numpy_cnn": numpy_cnn, "bilici": bilici, "lecun1989": lecun1989, "lenet5": lenet5,
    "resnet18": resnet18, "resnet50": resnet50,
}
