"""The outputs of a network as classes with probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpnet.graph import Graph
from xpnet.graph_checks import softmax_below
from xpnet.layers import LogSoftmax
from xpnet.node import Node

if TYPE_CHECKING:
    from xpnet.data import Dataset


def class_names(net: Graph, data: Dataset | None) -> tuple[str, ...] | None:
    """The names of the classes that the network or the data set knows; else their numbers, if the
    only output is a softmax; else None."""
    if len(net.outs) != 1:
        return None
    output = net.outs.nodes[0]
    known = net.trained.classes or (data.classes if data is not None else None)
    if known is not None and len(known) == output.shape[0]:
        return tuple(known)
    if len(output.shape) == 1 and (softmax_below(output) or isinstance(output.layer, LogSoftmax)):
        return tuple(map(str, range(output.shape[0])))
    return None


def probabilities(node: Node, y: np.ndarray, classes: tuple[str, ...] | None
                  ) -> np.ndarray | None:
    """(K,) of an output (K,), in float64: itself after a softmax, exp of log-probabilities, or its
    softmax if it has as many scores as there are classes. None if it is something else."""
    if y.ndim != 1 or not np.isfinite(y).all():
        return None
    y = y.astype(np.float64)
    if softmax_below(node):
        return y
    if isinstance(node.layer, LogSoftmax):
        return np.exp(y)
    if classes is None or len(classes) != len(y) or len(y) < 2:
        return None
    e = np.exp(y - y.max())
    return e / e.sum()
