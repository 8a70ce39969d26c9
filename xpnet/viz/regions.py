"""Decision regions: what a network predicts in the plane of two features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.checks import expect_instance, expect_integer, expect_number, finite_array, shown
from xpnet.graph import Graph
from xpnet.training.prediction import predict
from xpnet.viz.figure import MARKERS, axes_for, colour, names_of

LIGHT = 0.35        # opacity of the regions under the points


def show_regions(net: Graph, x: Any, y: Any, *, points: int = 200, threshold: float = 0.0,
                 margin: float = 0.25, names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """A figure of the samples of a problem with two features, on the regions in which the network
    predicts each class.

    Args:
        net: a network with an input of two features, and an output of scores (K,), or of one
            number.
        x: samples (N, 2).
        y: labels (N,).
        points: of the grid along each axis, at which the network predicts.
        threshold: of an output of one number: larger ones are class 1. 0.5 for a last sigmoid.
        margin: around the samples, as a part of their range.
        names: of the classes; by default their numbers.
        ax: axes of matplotlib; by default those of a new figure.

    Raises:
        ValueError: the network has other inputs or outputs, or x and y do not fit.
        ImportError: matplotlib is not installed.
    """
    who = "show_regions"
    expect_instance(who, "net", net, Graph, "a Network")
    shapes = [node.shape for node in (*net.in_nodes, *net.outs.nodes)]
    if len(shapes) != 2 or shapes[0] != (2,) or len(shapes[1]) != 1:
        raise ValueError(f"{who}: expected a network with one input (2,) and one output (K,). "
                         f"Received: shapes {shapes}.")
    points = expect_integer(who, "points", points, 2, 2000)
    threshold = expect_number(who, "threshold", threshold)
    margin = expect_number(who, "margin", margin, 0)
    x, y = finite_array(x, f"{who}: x"), finite_array(y, f"{who}: y")
    K = max(shapes[1][0], 2)
    if x.ndim != 2 or x.shape[1] != 2 or y.shape != x.shape[:1] or not len(x) or not (
            np.isin(y, range(K)).all()):
        raise ValueError(f"{who}: expected x (N, 2) and labels y (N,) from 0 to {K - 1}. Received: "
                         f"{shown(x.shape)} and {shown(y.shape)}.")
    labels = names_of(who, names, K, "class")
    low, high = x.min(axis=0), x.max(axis=0)
    wide = np.where(high > low, high - low, 1) * margin
    across, up = (np.linspace(a, b, points) for a, b in zip(low - wide, high + wide))
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2).astype(net.dtype)
    scores = predict(net, grid, batch_size=4096)
    found = scores.argmax(axis=1) if scores.shape[1] > 1 else (scores[:, 0] > threshold).astype(int)
    axes = axes_for(who, ax, 4.5, 4)
    from matplotlib.colors import ListedColormap
    colours = [colour(k) for k in range(K)]
    axes.pcolormesh(across, up, found.reshape(points, points), cmap=ListedColormap(colours),
                    vmin=-0.5, vmax=K - 0.5, alpha=LIGHT, shading="nearest", rasterized=True)
    for k in range(K):
        of = y == k
        if of.any():
            axes.scatter(*x[of].T, color=colours[k], marker=MARKERS[k % len(MARKERS)],
                         edgecolor="black", linewidth=0.6, s=30, label=labels[k])
    axes.set(xlabel="feature 1", ylabel="feature 2")
    axes.legend(fontsize=8, loc="upper right")
    return axes.figure
