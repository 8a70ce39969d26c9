"""Small networks for images of digits, and the founders of convolutional networks."""

from __future__ import annotations

from typing import Any

from xpnet.backends import Backend
from xpnet.graph import Input
from xpnet.layer import Shape
from xpnet.layers import (
    RBF,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Subsampling2d,
    TableConv2d,
)
from xpnet.models.classes import Classes, count, named
from xpnet.network import Sequential


def mlp(input_shape: Shape = (1, 28, 28), *, classes: Classes = 10,
        backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Sequential:
    """A multilayer perceptron of two hidden layers of 512 ReLU units with dropout; 669,706
    parameters for images of 28x28 pixels and 10 classes.

    The example of Keras for MNIST, after Srivastava et al. 2014, section 6.1.1.
    """
    return named(Sequential([
        Flatten(), Linear(512, activation="relu"), Dropout(0.2),
        Linear(512, activation="relu"), Dropout(0.2), Linear(count("mlp", classes)),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed), classes)


def numpy_cnn(input_shape: Shape = (1, 28, 28), *, classes: Classes = 10,
              backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Sequential:
    """Alejandro Escontrela's Numpy-CNN: two 5x5 convolutions of 8 filters, a max-pool, two dense
    layers; 105,634 parameters for images of 28x28 pixels and 10 classes.

    Its author reports 98.4 % on MNIST's test set after about five hours of training
    (github.com/Alescontrela/Numpy-CNN, README).
    """
    return named(Sequential([
        Conv2d(8, 5, activation="relu"), Conv2d(8, 5, activation="relu"), MaxPool2d(2),
        Flatten(), Linear(128, activation="relu"), Linear(count("numpy_cnn", classes)),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed), classes)


def bilici(input_shape: Shape = (1, 28, 28), *, classes: Classes = 10,
           backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Sequential:
    """Bilici's MNIST network: two convolutions (3x3x8, 5x5x32) with batch norm, ReLU and max-pool,
    then 600 hidden units; 954,002 parameters for images of 28x28 pixels and 10 classes."""
    return named(Sequential([
        Conv2d(8, 3, padding="half"), BatchNorm2d(activation="relu"), MaxPool2d(2),
        Conv2d(32, 5, padding="half"), BatchNorm2d(activation="relu"), MaxPool2d(2),
        Flatten(), Linear(600, activation="relu"), Linear(count("bilici", classes)),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed), classes)


def lecun1989(input_shape: Shape = (1, 28, 28), *, kernel_size: int = 5,
              activation: str | None = "relu", backend: str | Backend = "auto",
              dtype: Any = "float32", seed: int = 0) -> Sequential:
    """The simplified LeCun 1989 network of the Mendez-Vazquez lecture: 3 and 9 feature maps and one
    unit; 907 parameters for images of 28x28 pixels.

    For half squared error on one number. The lecture does not give the kernel size; 5x5 is that of
    LeCun et al. 1989. In its formula each feature map of the third layer, the second convolution,
    reads one feature map of the layer before. Here, as in most networks, it reads all three;
    Conv2d(9, 5, groups=3) is the other reading.

    Args:
        activation: of both convolutions and of the output. The lecture has ReLU. LeCun et al. 1989
            have "scaled_tanh", whose targets are -1 and 1.
    """
    return Sequential([
        Conv2d(3, kernel_size, activation=activation), MaxPool2d(2),
        Conv2d(9, kernel_size, activation=activation), MaxPool2d(2),
        Flatten(), Linear(1, activation=activation),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed)


C3_TABLE = (    # the maps of S2 that each map of C3 reads: LeCun et al. 1998, table I
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)


def lenet5(input_shape: Shape = (1, 32, 32), *, backend: str | Backend = "auto",
           dtype: Any = "float32", seed: int = 0) -> Sequential:
    """LeNet-5 with its connection table, trainable subsampling and RBF outputs; 60,000
    parameters for images of 32x32 pixels.

    It also takes images of 28x28 pixels, which the first layer pads to 32x32. The codes of the ten
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
