"""Gradients by layer, batch norms, loss surfaces, regions and spreads: the numbers that are drawn.
"""

from __future__ import annotations

import numpy as np
import pytest
from nets import blobs, small

import xpnet as xn
from xpnet.explain.gradients import gradient_sizes
from xpnet.explain.surface import Surface
from xpnet.training.sampling import samples_of

pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the figures")

from matplotlib.figure import Figure  # noqa: E402

X, Y = blobs(12)
NET = small()


def test_the_lines_are_the_gradient_sizes():
    ax = Figure().subplots()
    other = small(seed=1)
    xn.viz.show_gradient_sizes({"a": NET, "b": other}, X, Y, loss="cross_entropy", ax=ax)
    for line, net in zip(ax.lines, (NET, other), strict=True):
        sizes = [row.output for row in gradient_sizes(net, X, Y, loss="cross_entropy")]
        assert list(line.get_ydata()) == sizes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["linear1", "dropout1",
                                                                    "linear2"]
    assert ax.get_yscale() == "log"


def test_the_lines_are_the_statistics():
    record = xn.RunningStatistics()
    record.steps, record.means = [1, 2], {"bn": [np.array([1.0, 2]), np.array([3.0, 4])]}
    record.variances = {"bn": [np.array([1.0, 4]), np.array([9.0, 16])]}
    mean, deviation = xn.viz.show_statistics(record, "bn").axes
    assert [list(line.get_ydata()) for line in mean.lines] == [[1, 3], [2, 4]]
    assert [list(line.get_ydata()) for line in deviation.lines] == [[1, 3], [2, 4]]
    assert list(mean.lines[0].get_xdata()) == [1, 2]
    assert len(xn.viz.show_statistics(record, "bn", most=1).axes[0].lines) == 1


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_the_map_is_the_surface(shift):
    ax, steps = Figure().subplots(), np.array([-1.0, 0, 1])
    losses = np.arange(9.0).reshape(3, 3) + shift
    xn.viz.show_surface(Surface(steps, losses, {}, {}), ax=ax)
    np.testing.assert_array_equal(np.ravel(ax.collections[0].get_array()), losses.T.ravel())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("first direction", "second direction")


def test_the_regions_are_the_predictions():
    ax = Figure().subplots()
    xn.viz.show_regions(NET, X, Y, points=20, names=["a", "b", "c"], ax=ax)
    regions, *classes = ax.collections
    low, high = X.min(axis=0), X.max(axis=0)
    across, up = (np.linspace(a - (b - a) / 4, b + (b - a) / 4, 20) for a, b in zip(low, high))
    grid = np.array([[u, v] for v in up for u in across], np.float32)
    np.testing.assert_array_equal(np.ravel(regions.get_array()), NET.predict(grid).argmax(axis=1))
    for k, points in enumerate(classes):
        np.testing.assert_allclose(points.get_offsets(), X[k == Y])
        assert points.get_label() == "abc"[k]


def test_regions_of_one_output():
    net = xn.Sequential([xn.Linear(1)], input_shape=(2,), backend="numpy")
    net.arrays["linear1.W"].data = np.array([[1.0, 0.0]])
    figure = xn.viz.show_regions(net, X, Y % 2, points=30, threshold=0.5)
    found = np.reshape(figure.axes[0].collections[0].get_array(), (30, 30))
    width = np.ptp(X[:, 0])
    across = np.linspace(X[:, 0].min() - width / 4, X[:, 0].max() + width / 4, 30)
    np.testing.assert_array_equal(found, np.tile(across > 0.5, (30, 1)))


def test_the_histograms_are_of_the_samples():
    ax = Figure().subplots()
    xn.viz.show_spread(NET, X[0], samples=30, loss="cross_entropy", most=2, ax=ax)
    y = samples_of(NET, X[:1], 30, loss="cross_entropy")[:, 0]
    largest = np.argsort(-y.mean(axis=0))[:2]
    edges = np.linspace(y[:, largest].min(), y[:, largest].max(), 26)
    for patch, k in zip(ax.patches, largest, strict=True):
        counts, _ = np.histogram(y[:, k], edges)
        assert patch.get_label() == f"output {k}: {y[:, k].mean():.2f} ± {y[:, k].std():.2f}"
        heights = {round(h) for _, h in patch.get_xy()}
        assert heights == {0, *counts}


LINE = xn.Sequential([xn.Linear(3)], input_shape=(3,), backend="numpy")


@pytest.mark.parametrize(("call", "said"), [
    (lambda: xn.viz.show_gradient_sizes({}, X, Y), "nets to be a network, or a dict"),
    (lambda: xn.viz.show_statistics(xn.RunningStatistics(), "bn"), "of which there are none"),
    (lambda: xn.viz.show_statistics("a", "bn"), "record to be a RunningStatistics"),
    (lambda: xn.viz.show_surface(np.ones((3, 3))), "surface to be a Surface"),
    (lambda: xn.viz.show_regions(LINE, X, Y), r"one input \(2,\)"),
    (lambda: xn.viz.show_regions(NET, X, Y + 1), "labels y .* from 0 to 2"),
    (lambda: xn.viz.show_spread(NET, X[0]), "expected loss"),
    (lambda: xn.viz.show_spread(NET, X[0, :1], loss="cross_entropy"), "expected"),
])
def test_wrong_arguments(call, said):
    with pytest.raises((ValueError, TypeError), match=said):
        call()
