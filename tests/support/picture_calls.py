"""Good arguments of the functions of xpnet.viz and xpnet.explain, without those that have a default
which is good."""

from __future__ import annotations

from typing import Any

import numpy as np

import xpnet as xn
from xpnet.explain.surface import Surface
from xpnet.training.rates import LearningRates


def a_classifier() -> xn.Sequential:
    return xn.Sequential([xn.Conv2d(4, 3, activation="tanh"), xn.MaxPool2d(2), xn.Flatten(),
                          xn.Dropout(0.2), xn.Linear(3)], input_shape=(1, 8, 8), backend="numpy")


def a_record() -> xn.RunningStatistics:
    record = xn.RunningStatistics()
    record.steps, record.means = [1], {"bn": [np.ones(2)]}
    record.variances = {"bn": [np.ones(2)]}
    return record


def a_history() -> xn.History:
    history = xn.History()
    history.rows = [{"epoch": 1, "loss": 1.0, "accuracy": 0.5}]
    return history


NET = a_classifier()
X, Y = np.random.default_rng(0).random((4, 1, 8, 8), np.float32), np.array([0, 1, 2, 1])
LOSS = {"loss": "cross_entropy"}
SCORES = np.eye(3)[[0, 1, 1, 2]]
FLAT = xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy")
EXPLAIN: dict[str, dict[str, Any]] = {
    "grad_cam": {"net": NET, "x": X},
    "gradient_sizes": {"net": NET, "x": X, "target": Y} | LOSS,
    "loss_surface": {"net": NET, "x": X, "y": Y, "points": 2} | LOSS,
    "maximize": {"net": NET, "layer": "conv1", "unit": 0, "steps": 2},
    "occlusion": {"net": NET, "x": X[0]},
    "receptive_field": {"net": NET, "layer": "conv1"},
    "saliency": {"net": NET, "x": X},
    "smooth_gradient": {"net": NET, "x": X, "samples": 2},
}
VIZ: dict[str, dict[str, Any]] = {
    "pyramid": {"image": X[0], "levels": 2},
    "show_activations": {"activations": "relu"},
    "show_activations_on": {"image": X[0], "activations": "relu"},
    "show_confusion": {"y": SCORES, "target": Y},
    "show_convolution": {"image": X[0]},
    "show_explanations": {"net": NET, "x": X[0]},
    "show_feature_maps": {"net": NET, "x": X[0]},
    "show_filters": {"net": NET, "layer": "conv1"},
    "show_gradient_sizes": {"nets": NET, "x": X, "target": Y} | LOSS,
    "show_graph": {"net": NET},
    "show_heat": {"image": X[0], "values": X[0, 0]},
    "show_images": {"images": X},
    "show_maximization": {"net": NET, "layer": "linear1", "units": [1], "steps": 2},
    "show_mistakes": {"x": X, "y": SCORES, "target": Y},
    "show_pooling": {"image": X[0], "windows": (2,)},
    "show_pyramid": {"image": X[0], "levels": 2},
    "show_rates": {"found": LearningRates((0.1, 1.0), (2.0, 1.0), (2.0, 1.5), 0.1)},
    "show_receptive_field": {"net": NET, "x": X[0], "layers": "conv1"},
    "show_regions": {"net": FLAT, "x": X[:, 0, 0, :2], "y": Y, "points": 5},
    "show_spread": {"net": NET, "x": X[0], "samples": 5} | LOSS,
    "show_statistics": {"record": a_record(), "layer": "bn"},
    "show_surface": {"surface": Surface(np.array([-1.0, 0, 1]), np.arange(9.0).reshape(3, 3), {},
                                        {})},
    "show_training": {"runs": a_history()},
    "show_window": {"window": xn.Window.make(2), "size": 4},
}
