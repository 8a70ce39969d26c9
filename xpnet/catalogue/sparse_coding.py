"""The catalogue: sparse_coding."""

from __future__ import annotations

from xpnet.catalogue.item import Item

ITEMS: list[Item] = []
