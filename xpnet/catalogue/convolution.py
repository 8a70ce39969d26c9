"""The catalogue: convolution, its relatives, and fully connected layers."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.functional import toeplitz
from xpnet.layers import (
    RBF,
    Conv2d,
    ConvTranspose2d,
    DepthwiseConv2d,
    Linear,
    LocallyConnected2d,
    SeparableConv2d,
    TableConv2d,
    TrueConv2d,
)

MAPS = ((4, 7, 6),)

ITEMS: list[Item] = [
    Item(Linear, lambda: Linear(5, activation="tanh"), ((7,),), pytorch="Linear", keras="Dense",
         numpynet="Connected_layer"),
    Item(RBF, lambda: RBF([[1, -1, 1], [-1, 1, 1]]), ((3,),)),
    Item(Conv2d, lambda: Conv2d(6, 3, padding="half", activation="tanh"), MAPS,
         pytorch="Conv2d", keras="Conv2D", numpynet="Convolutional_layer"),
    Item(TableConv2d, lambda: TableConv2d([[0, 1], [3], [0, 2, 3]], 3, activation="tanh"), MAPS),
    Item(TrueConv2d, lambda: TrueConv2d(6, (3, 2), padding="full", groups=2, activation="tanh"),
         MAPS),
    Item(DepthwiseConv2d, lambda: DepthwiseConv2d(3, multiplier=2, activation="tanh"), MAPS,
         pytorch="Conv2d(groups=C)", keras="DepthwiseConv2D"),
    Item(SeparableConv2d, lambda: SeparableConv2d(5, (3, 2), multiplier=2, stride=(1, 2), padding=1,
                                                  activation="tanh"), MAPS,
         keras="SeparableConv2D"),
    Item(LocallyConnected2d,
         lambda: LocallyConnected2d(3, 3, stride=(1, 2), padding=1, activation="tanh"), MAPS),
    Item(ConvTranspose2d, lambda: ConvTranspose2d(3, 3, stride=2, padding=1, output_padding=1,
                                                  activation="tanh"), MAPS,
         pytorch="ConvTranspose2d", keras="Conv2DTranspose"),
    Item(toeplitz),
]
