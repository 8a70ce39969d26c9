"""A training seen from inside: gradients layer by layer, statistics of batch norms, and the loss
around the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xpnet.checks import expect_instance, expect_integer, wrong
from xpnet.explain.gradients import gradient_sizes
from xpnet.explain.surface import Surface
from xpnet.graph import Graph
from xpnet.training.recording import RunningStatistics
from xpnet.viz.figure import HEAT, MARKERS, axes_for, colour, new_figure

LEVELS = 9      # contour lines


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

    They begin at mean 0 and variance 1. After the first steps they move while the layers below
    change: what Ioffe and Szegedy 2015 call internal covariate shift.

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
