"""The catalogue: shapes and merging."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.layers import Add, Concat, Flatten

MAPS = ((4, 7, 6),)

ITEMS: list[Item] = [
    Item(Flatten, Flatten, MAPS, pytorch="Flatten", keras="Flatten", common=True),
    Item(Add, Add, 2 * MAPS, keras="Add", numpynet="Shortcut_layer"),
    Item(Concat, Concat, ((1, 4, 5), (3, 4, 5)), keras="Concatenate", numpynet="Route_layer"),
]
