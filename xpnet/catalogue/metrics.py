"""The catalogue: metrics."""

from __future__ import annotations

from xpnet.catalogue.item import Item

ITEMS: list[Item] = []
