"""The catalogue: optimizers and schedules."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.optim import SGD, Adam, AdamW
from xpnet.schedules import Constant, OneCycle

ITEMS: list[Item] = [
    Item(SGD, pytorch="SGD", keras="SGD", numpynet="SGD"),
    Item(Adam, pytorch="Adam", keras="Adam", numpynet="Adam"),
    Item(AdamW, pytorch="AdamW", keras="AdamW"),
    Item(Constant, common=True),
    Item(OneCycle, pytorch="OneCycleLR"),
]
