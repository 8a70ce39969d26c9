"""The catalogue: regularisation."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.layers import Dropout

MAPS = ((4, 7, 6),)

ITEMS: list[Item] = [
    Item(Dropout, lambda: Dropout(0.3), MAPS, pytorch="Dropout", keras="Dropout", numpynet="Dropout_layer"),
]
