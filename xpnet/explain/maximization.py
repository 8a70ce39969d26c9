"""Activation maximisation: an input to which a unit responds strongly."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import (
    expect_instance,
    expect_integer,
    expect_positive,
    expect_seed,
    expect_share,
    is_integer,
    items,
    wrong,
)
from xpnet.graph import Graph
from xpnet.initializers import generator
from xpnet.node import Node
from xpnet.training.gradients import input_gradient
from xpnet.training.prediction import values_of
from xpnet.transform.transfer import up_to

WHO = "maximize"
START = 0.01        # standard deviation of the noise that the ascent starts from


def maximize(net: Graph, layer: str, unit: int | tuple[int, ...], *, steps: int = 100,
             lr: float = 0.1, decay: float = 0.01, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An input x that maximises a unit's value a(x), by gradient ascent from noise, and the values
    on the way.

        x <- (1 - decay) (x + lr sqrt(D) g / |g|), g = da/dx, D the number of elements of x

    The root mean square of a step is lr, and `decay` keeps x near 0 (Simonyan et al. 2014, equation
    1; Erhan et al. 2009). The network is in prediction mode.

    Args:
        net: a network with one input.
        layer: the name of a layer, as `summary` shows it.
        unit: the index of the unit in the layer's output. For feature maps a channel alone is the
            mean over its positions.
        steps: the number of steps.
        lr: the root mean square of a step.
        decay: the part of x that each step takes away.
        seed: of the noise.

    Returns:
        x, shaped like one sample, and a(x) before each step and at the end, (steps + 1,).

    Raises:
        ValueError: there is no such layer or unit.
    """
    expect_instance(WHO, "net", net, Graph, "a Network")
    steps = expect_integer(WHO, "steps", steps)
    lr, decay = expect_positive(WHO, "lr", lr), expect_share(WHO, "decay", decay)
    part = up_to(net, layer)
    if len(part.in_nodes) > 1:
        raise ValueError(f"{WHO}: expected a network with one input. Received: "
                         f"{len(part.in_nodes)} inputs.")
    node = part.outs.nodes[0]
    G = selection(node, unit).astype(net.dtype)[None]
    x = START * generator(expect_seed(WHO, seed), WHO).standard_normal(
        (1, *part.in_nodes[0].shape)).astype(net.dtype)
    far = lr * np.sqrt(x.size)
    values = []
    for _ in range(steps):
        values.append(_value(part, x, G))
        g = input_gradient(part, x, output_gradient=G)
        norm = np.linalg.norm(g)
        x = ((1 - decay) * (x + far * g / norm if norm > 0 else x)).astype(net.dtype)
    values.append(_value(part, x, G))
    return x[0], np.array(values)


def _value(part: Graph, x: np.ndarray, G: np.ndarray) -> float:
    return float((values_of(part, x, part.outs.nodes, 1, WHO)[0] * G).sum())


def selection(node: Node, unit: Any) -> np.ndarray:
    """G, shaped like the node's value, so that the unit's value is the sum of G times the value."""
    index = [unit] if is_integer(unit) else items(unit)
    shape = node.shape
    if (not index or len(index) not in (1, len(shape))
            or not all(is_integer(i, 0, size - 1) for i, size in zip(index, shape))):
        raise wrong(WHO, f"unit to be the index of a unit in {shape}, or of a channel", "unit",
                    unit)
    G = np.zeros(shape)
    place = tuple(map(int, index))
    G[place] = 1 / G[place].size
    return G
