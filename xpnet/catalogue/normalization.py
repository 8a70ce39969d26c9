"""The catalogue: normalisation."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.layers import BatchNorm2d, Rescale

MAPS = ((4, 7, 6),)

ITEMS: list[Item] = [
    Item(BatchNorm2d, lambda: BatchNorm2d(activation="tanh"), MAPS,
         pytorch="BatchNorm2d", keras="BatchNormalization", numpynet="BatchNorm_layer"),
    Item(Rescale, lambda: Rescale(0.5, 0.25), MAPS, keras="Rescaling", common=True),
]
