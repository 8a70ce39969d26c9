"""Learning seen from inside: gradients layer by layer, statistics of batch norms, a loss surface,
decision regions, and the spread that dropout gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xpnet.checks import (
    expect_instance,
    expect_integer,
    expect_number,
    finite_array,
    shown,
    wrong,
)
from xpnet.explain.gradients import gradient_sizes
from xpnet.explain.surface import Surface
from xpnet.graph import Graph
from xpnet.training.prediction import predict
from xpnet.training.recording import RunningStatistics
from xpnet.training.sampling import samples_of
from xpnet.viz.figure import COLOURS, HEAT, STYLES, axes_for, colour, names_of, new_figure

MARKERS = "osD^vPX"
BINS = 25               # of a histogram
LEVELS = 9              # contour lines
LIGHT = 0.35            # opacity of the regions under the points


def show_gradient_sizes(nets: Graph | Mapping[str, Graph], x: Any, target: Any, *, loss: Any = None,
                        ax: Any = None) -> Any:
    """A figure of the root mean square of the gradient with respect to each layer's output, from
    the first layer to the last, on a logarithmic scale; see xpnet.explain.gradient_sizes.

    Args:
        nets: a network, or a dict of names and networks, e.g. one with sigmoids and one with ReLU.
        x: samples, batch-first, one batch.
        target: targets of the loss.
        loss: that of the last fit by default.
        ax: axes of matplotlib; by default those of a new figure.

    Raises:
        ValueError: x, the target and the loss do not fit a network.
        ImportError: matplotlib is not installed.
    """
    who = "show_gradient_sizes"
    named = nets if isinstance(nets, Mapping) else {"": nets}
    if not named:
        raise wrong(who, "nets to be a network, or a dict of them", "nets", nets)
    sizes = {name: gradient_sizes(net, x, target, loss=loss) for name, net in named.items()}
    axes = axes_for(who, ax, 6, 3.5)
    names = [row.name for row in next(iter(sizes.values()))]
    for k, (name, rows) in enumerate(sizes.items()):
        axes.semilogy(range(1, len(rows) + 1), [row.output for row in rows], color=colour(k),
                      marker=MARKERS[k % len(MARKERS)], label=name)
    if all([row.name for row in rows] == names for rows in sizes.values()):
        axes.set_xticks(range(1, len(names) + 1), names, rotation=90, parse_math=False)
    else:
        axes.set_xlabel("layer, from the input to the output")
    axes.set_ylabel("gradient (root mean square)")
    axes.grid(axis="y", color="0.9")
    if len(named) > 1:
        axes.legend()
    return axes.figure


def show_statistics(record: RunningStatistics, layer: str, *, most: int = 6) -> Any:
    """A figure of the running mean and standard deviation of a batch norm over the steps of a
    training: a line for each channel.

    While the layers below still change, the statistics move: what Ioffe and Szegedy 2015 call
    internal covariate shift.

    Args:
        record: the callback that recorded them, see xn.RunningStatistics.
        layer: the name of a batch norm.
        most: the channels that are drawn: the first ones.

    Raises:
        ValueError: there is no record of such a layer.
        ImportError: matplotlib is not installed.
    """
    who = "show_statistics"
    expect_instance(who, "record", record, RunningStatistics, "a RunningStatistics")
    most = expect_integer(who, "most", most)
    if not isinstance(layer, str) or layer not in record.means:
        raise wrong(who, f"layer among the recorded batch norms, "
                         f"{', '.join(record.means) or 'of which there are none'}", "layer", layer)
    figure = new_figure(who, 10, 3.5)
    for axes, text, values in zip(
            figure.subplots(1, 2), ("running mean", "running standard deviation"),
            (np.array(record.means[layer]), np.sqrt(record.variances[layer]))):
        for c in range(min(most, values.shape[1])):
            axes.plot(record.steps, values[:, c], color=colour(c), label=f"channel {c}")
        axes.set_xlabel("step")
        axes.set_ylabel(f"{text} of {layer}", parse_math=False)
    axes.legend(fontsize=8)
    return figure


def show_surface(surface: Surface, *, ax: Any = None) -> Any:
    """A figure of a loss surface as a map with contour lines, see xpnet.explain.loss_surface. A
    cross marks the network's own parameters. Colours and lines are logarithmic if all losses are
    above 0.

    Args:
        surface: what `loss_surface` returns.
        ax: axes of matplotlib; by default those of a new figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    who = "show_surface"
    expect_instance(who, "surface", surface, Surface, "a Surface, as loss_surface returns it")
    axes = axes_for(who, ax, 5.8, 4.6)
    values = surface.losses.T               # the first direction to the right
    low, high = values.min(), values.max()
    levels = np.geomspace(low, high, LEVELS) if low > 0 else np.linspace(low, high, LEVELS)
    drawn = axes.pcolormesh(surface.steps, surface.steps, values, cmap=HEAT, shading="nearest",
                            norm="log" if low > 0 else "linear")
    if high > low:
        lines = axes.contour(surface.steps, surface.steps, values, levels=levels, colors="white",
                             linewidths=0.8)
        axes.clabel(lines, fmt="%.2g", fontsize=7)
    axes.plot(0, 0, "x", color="white", markersize=9, markeredgewidth=2)
    axes.figure.colorbar(drawn, ax=axes, label="loss")
    axes.set(xlabel="first direction", ylabel="second direction", box_aspect=1)
    return axes.figure


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
    names = getattr(net, "classes", None) if names is None else names
    labels = names_of(who, names, y.shape[1], "output")
    axes = axes_for(who, ax, 6, 3.5)
    chosen = np.argsort(-y.mean(axis=0), kind="stable")[:most]
    from matplotlib.colors import to_rgba
    edges = np.linspace(y[:, chosen].min(), max(y[:, chosen].max(), y[:, chosen].min() + 1e-6),
                        BINS + 1)
    for k, output in enumerate(chosen):
        text = f"{labels[output]}: {y[:, output].mean():.2f} ± {y[:, output].std():.2f}"
        axes.hist(y[:, output], bins=edges, histtype="stepfilled", linewidth=2, label=text,
                  edgecolor=colour(k), facecolor=to_rgba(colour(k), 0.2), linestyle=STYLES[k % 4])
    axes.set(xlabel="prediction", ylabel=f"of {samples:,} predictions")
    axes.legend(title="mean ± standard deviation", fontsize=8)
    return axes.figure
