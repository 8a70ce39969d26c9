"""The catalogue: pooling."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.layers import AvgPool2d, GlobalAvgPool2d, MaxPool2d, Subsampling2d

MAPS = ((4, 7, 6),)

ITEMS: list[Item] = [
    Item(MaxPool2d, lambda: MaxPool2d(2), MAPS, pytorch="MaxPool2d", keras="MaxPooling2D", numpynet="Maxpool_layer"),
    Item(AvgPool2d, lambda: AvgPool2d(2), MAPS, pytorch="AvgPool2d", keras="AveragePooling2D", numpynet="Avgpool_layer"),
    Item(GlobalAvgPool2d, GlobalAvgPool2d, MAPS, pytorch="AdaptiveAvgPool2d(1)", keras="GlobalAveragePooling2D"),
    Item(Subsampling2d, lambda: Subsampling2d(2, activation="scaled_tanh"), MAPS),
]
