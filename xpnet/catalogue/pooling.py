"""The catalogue: pooling."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.layers import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    GaussianPool2d,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    LpPool2d,
    MaxPool2d,
    MaxUnpool2d,
    SkipSampling2d,
    StochasticPool2d,
    Subsampling2d,
)

MAPS = ((4, 7, 6),)

ITEMS: list[Item] = [
    Item(MaxPool2d, lambda: MaxPool2d(2), MAPS, pytorch="MaxPool2d", keras="MaxPooling2D",
         numpynet="Maxpool_layer"),
    Item(MaxUnpool2d, lambda: MaxUnpool2d(2), ((4, 3, 3), (4, 7, 6)), pytorch="MaxUnpool2d"),
    Item(AvgPool2d, lambda: AvgPool2d(2), MAPS, pytorch="AvgPool2d", keras="AveragePooling2D",
         numpynet="Avgpool_layer"),
    Item(LpPool2d, lambda: LpPool2d(2, 3), MAPS, pytorch="LPPool2d"),
    Item(StochasticPool2d, lambda: StochasticPool2d(2), MAPS),
    Item(GaussianPool2d, lambda: GaussianPool2d(3, 0.8, stride=2), MAPS),
    Item(GlobalAvgPool2d, GlobalAvgPool2d, MAPS, pytorch="AdaptiveAvgPool2d(1)",
         keras="GlobalAveragePooling2D"),
    Item(GlobalMaxPool2d, GlobalMaxPool2d, MAPS, pytorch="AdaptiveMaxPool2d(1)",
         keras="GlobalMaxPooling2D"),
    Item(AdaptiveAvgPool2d, lambda: AdaptiveAvgPool2d((3, 4)), MAPS, pytorch="AdaptiveAvgPool2d",
         keras="AdaptiveAveragePooling2D"),
    Item(AdaptiveMaxPool2d, lambda: AdaptiveMaxPool2d((3, 4)), MAPS, pytorch="AdaptiveMaxPool2d",
         keras="AdaptiveMaxPooling2D"),
    Item(Subsampling2d, lambda: Subsampling2d(2, activation="scaled_tanh"), MAPS),
    Item(SkipSampling2d, lambda: SkipSampling2d((2, 3), offset=1), MAPS),
]
