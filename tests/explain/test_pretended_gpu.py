"""On an emulated GPU, whose streams run only when something waits for them, all explanations are
those of the NumPy backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gpu_cases import LATE, network, pretended, samples
from tiers import full

import xpnet as xn
from xpnet import explain
from xpnet.training.sampling import samples_of

X, Y = samples(6)
X = (X / 255).astype(np.float32)


def found(backend: Any) -> dict[str, Any]:
    """The result of each function for a network that was trained on NumPy."""
    net = network("numpy")
    net.fit(X, Y, loss="cross_entropy", epochs=1, verbose=False)
    net = net.to(backend)
    surface = explain.loss_surface(net, X, Y, points=3)
    record = xn.RunningStatistics()
    sizes = explain.gradient_sizes(net, X, Y)
    results = {
        "saliency": explain.saliency(net, X, 1),
        "smooth_gradient": explain.smooth_gradient(net, X, 1, samples=2),
        "grad_cam": explain.grad_cam(net, X, Y),
        "grad_cam of conv1": explain.grad_cam(net, X, Y, layer="conv1"),
        "occlusion": explain.occlusion(net, X[0], size=2),
        "maximize": explain.maximize(net, "conv1", 1, steps=3)[0],
        "gradient_sizes": np.array([row.output for row in sizes]),
        "loss_surface": surface.losses,
    }
    net.fit(X, Y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=2, batch_size=3,
            verbose=False, callbacks=[record])
    results["record"] = np.array([*record.means.values(), *record.variances.values()])
    results["samples"] = samples_of(net, X, 3).shape
    return results


@full
def test_on_an_emulated_gpu(folder: Path):
    expected = found("numpy")
    with pretended(folder, LATE["late"]) as (backend, _):
        results = found(backend)
    for name, values in expected.items():
        np.testing.assert_allclose(results[name], values, rtol=2e-3, atol=2e-5, err_msg=name)
