"""The loss around a network's parameters, along two directions."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

from xpnet.buffers import Parameter
from xpnet.checks import expect_instance, expect_integer, expect_positive, expect_seed
from xpnet.graph import Graph
from xpnet.initializers import generator
from xpnet.training.prediction import evaluate

WHO = "loss_surface"


class Surface(NamedTuple):
    """losses[i, j] is the loss at parameters + steps[i] first + steps[j] second; `first` and
    `second` are the directions, by the names of the parameters."""

    steps: np.ndarray
    losses: np.ndarray
    first: dict[str, np.ndarray]
    second: dict[str, np.ndarray]


def loss_surface(net: Graph, x: Any, y: Any, *, loss: Any = None, radius: float = 1.0,
                 points: int = 21, seed: int = 0, batch_size: int = 256) -> Surface:
    """The loss on a grid of points x points around a network's parameters W: L(W + a d + b e), with
    a and b from -radius to radius.

    d and e are random directions with normalised filters (Li et al. 2018, section 4): normal random
    numbers, scaled so that each output's weights d[f] have the norm of W[f]. Biases, scales and
    shifts do not move. At radius 1 the largest step along one direction has the norm of W. The
    network is in prediction mode and does not change. It takes points^2 evaluations.

    Args:
        net: the network.
        x: samples, batch-first.
        y: targets.
        loss: that of the last fit by default.
        radius: how far the grid goes.
        points: along each direction; an odd number puts W itself into the middle.
        seed: of the directions.
        batch_size: samples of a forward pass.

    Raises:
        ValueError: x, y and the loss do not fit the network.
    """
    expect_instance(WHO, "net", net, Graph, "a Network")
    radius = expect_positive(WHO, "radius", radius)
    points = expect_integer(WHO, "points", points, 2, 1001)
    seed = expect_seed(WHO, seed)
    moved = copy.deepcopy(net)
    parameters = _weights(moved)
    weights = {name: np.array(moved.backend.to_numpy(p.data), np.float64)
               for name, p in parameters.items()}
    first, second = ({name: direction(weights[name], p.units, seed, f"{WHO} {which} {name}")
                      for name, p in parameters.items()} for which in ("first", "second"))
    steps = np.linspace(-radius, radius, points)
    losses = np.empty((points, points))
    for i, a in enumerate(steps):
        for j, b in enumerate(steps):
            for name, p in parameters.items():
                p.data = (weights[name] + a * first[name] + b * second[name]).astype(net.dtype)
            losses[i, j] = evaluate(moved, x, y, loss=loss, batch_size=batch_size)["loss"]
    return Surface(steps, losses, first, second)


def _weights(net: Graph) -> dict[str, Parameter]:
    """The weights by their full names. A bias or a scale may have several axes, too, but does not
    decay."""
    return {f"{name}.{p.name}": p for name, layer in net.layer_names.items()
            for p in layer.parameters if p.decay and len(p.shape) > 1}


def direction(W: np.ndarray, units: int, seed: int, name: str) -> np.ndarray:
    """Normal random numbers, scaled so that those of each output have the norm of its weights in
    W. The first `units` axes are the index of the output."""
    d = generator(seed, name).standard_normal(W.shape)
    axes = tuple(range(units, W.ndim))
    norms = [np.sqrt((a * a).sum(axis=axes, keepdims=True)) for a in (W, d)]
    return d * norms[0] / norms[1]
