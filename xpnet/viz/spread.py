"""The spread of predictions with dropout on, as histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.checks import expect_instance, expect_integer, finite_array
from xpnet.graph import Graph
from xpnet.training.sampling import samples_of
from xpnet.viz.figure import COLOURS, STYLES, axes_for, colour, names_of

BINS = 25           # of a histogram


def show_spread(net: Graph, x: Any, *, samples: int = 200, loss: Any = None, most: int = 3,
                names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """A figure of histograms of the predictions for one sample with dropout on, each with other
    masks: the spread says how much the network depends on which elements are dropped.

    The outputs with the largest means are drawn; they are probabilities if the loss includes
    softmax or sigmoid. See predict_samples, which computes mean and standard deviation; Gal and
    Ghahramani 2016.

    Args:
        net: a network with dropout and one output (K,).
        x: one sample.
        samples: the number of predictions.
        loss: that of the last fit by default.
        most: the outputs that are drawn.
        names: of the outputs; by default the network's classes, or their numbers.
        ax: axes of matplotlib; by default those of a new figure.

    Raises:
        ValueError: x does not fit, or the network has other outputs.
        ImportError: matplotlib is not installed.
    """
    who = "show_spread"
    expect_instance(who, "net", net, Graph, "a Network")
    if len(net.outs.nodes) != 1 or len(net.outs.nodes[0].shape) != 1:
        raise ValueError(f"{who}: expected a network with one output (K,). Received: outputs of "
                         f"shapes {[node.shape for node in net.outs.nodes]}.")
    most = min(expect_integer(who, "most", most), len(COLOURS))
    x = finite_array(x, f"{who}: x")
    y = samples_of(net, x[None], samples, loss=loss)[:, 0]          # (T, K)
    labels = names_of(who, names, y.shape[1], "output", net)
    axes = axes_for(who, ax, 6, 3.5)
    chosen = np.argsort(-y.mean(axis=0), kind="stable")[:most]
    from matplotlib.colors import to_rgba
    edges = np.linspace(y[:, chosen].min(), max(y[:, chosen].max(), y[:, chosen].min() + 1e-6),
                        BINS + 1)
    for k, output in enumerate(chosen):
        text = f"{labels[output]}: {y[:, output].mean():.2f} ± {y[:, output].std():.2f}"
        axes.hist(y[:, output], bins=edges, histtype="stepfilled", linewidth=2, label=text,
                  edgecolor=colour(k), facecolor=to_rgba(colour(k), 0.2),
                  linestyle=STYLES[k % len(STYLES)])
    axes.set(xlabel="prediction", ylabel=f"of {samples:,} predictions")
    axes.legend(title="mean ± standard deviation", fontsize=8)
    return axes.figure
