"""The inputs of a network as the page draws them: their ranges, and what is there at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpnet.graph import Graph
from xpnet.layers import Embedding
from xpnet.node import Node

if TYPE_CHECKING:
    from xpnet.data import Dataset

LOOKED_AT = 256         # samples whose range is taken


def token_count(net: Graph, node: Node) -> int | None:
    """How many tokens there are, if an input is a sequence of tokens; else None."""
    counts = [one.layer.tokens for one in net.nodes
              if isinstance(one.layer, Embedding) and node in one.parents]
    return min(counts) if counts else None


def input_range(net: Graph, node: Node, data: Dataset | None) -> tuple[float, float]:
    """What a black and a white pixel of a drawing become: 0 and 1 for samples that are divided by
    the largest number; else the range of the samples."""
    tokens = token_count(net, node)
    if tokens is not None:
        return 0.0, float(tokens - 1)
    if data is None or data.scale is not None or data.shape != node.shape or len(net.ins) > 1:
        return 0.0, 1.0
    x = data.to_host(data[:LOOKED_AT][0])
    low, high = float(x.min()), float(x.max())
    return (low, high) if np.isfinite([low, high]).all() and low < high else (0.0, 1.0)


def blank(node: Node, limits: tuple[float, float]) -> np.ndarray:
    """A black image, batch-first; features and signals are 0."""
    value = limits[0] if len(node.shape) == 3 else min(max(0.0, limits[0]), limits[1])
    return np.full((1, *node.shape), value)
