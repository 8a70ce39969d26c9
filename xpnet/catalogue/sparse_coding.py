"""The catalogue: sparse_coding."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.layers import DeconvolutionalNetwork2d

ITEMS: list[Item] = [
    Item(DeconvolutionalNetwork2d,
         lambda: DeconvolutionalNetwork2d(3, 3, lam=2, betas=(4, 8, 32), iterations=16),
         ((2, 5, 4),)),
]
