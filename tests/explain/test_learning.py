"""Gradients by layer, the loss surface, the record of batch norms, samples with dropout on."""

from __future__ import annotations

import numpy as np
import pytest
from nets import blobs, small

import xpnet as xn
from xpnet.explain import gradient_sizes, loss_surface
from xpnet.training.sampling import samples_of

X, Y = blobs(12)
X = X.astype(np.float64)


def test_gradient_sizes_against_finite_differences():
    """Of the loss with respect to the first layer's output and weights."""
    net = xn.Sequential([xn.Linear(4, activation="tanh"), xn.Linear(3)], input_shape=(2,),
                        backend="numpy", dtype="float64")
    rows = gradient_sizes(net, X, Y, loss="cross_entropy")
    assert [row.name for row in rows] == ["linear1", "linear2"]
    W, b = (net.arrays[f"linear2.{name}"].data for name in "Wb")

    def loss(hidden):
        z = hidden @ W.T + b
        return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(12), Y]))

    hidden, step = net.output_of("linear1", X), 1e-6
    slopes = np.empty(hidden.shape)
    for index in np.ndindex(*hidden.shape):
        moved = hidden.copy()
        moved[index] += step
        slopes[index] = (loss(moved) - loss(hidden)) / step
    assert abs(rows[0].output / np.sqrt((slopes ** 2).mean()) - 1) < 1e-4
    dz = slopes * (1 - hidden ** 2)                         # tanh'
    grads = np.concatenate([(dz.T @ X).ravel(), dz.sum(axis=0)])
    assert abs(rows[0].parameters / np.sqrt((grads ** 2).mean()) - 1) < 1e-4
    assert (net.grads == 0).all()


def test_layers_without_parameters_have_no_gradient_of_them():
    rows = gradient_sizes(small(), X, Y, loss="cross_entropy")
    assert [row.parameters is None for row in rows] == [False, True, False]


def test_the_gradient_vanishes_with_sigmoids_and_not_with_relu():
    ratios = {}
    for activation in ("sigmoid", "relu"):
        net = xn.Sequential([xn.Linear(16, activation=activation) for _ in range(8)],
                            input_shape=(2,), backend="numpy")
        rows = gradient_sizes(net, X, Y, loss="cross_entropy")
        ratios[activation] = rows[0].output / rows[-1].output
    assert ratios["sigmoid"] < 1e-3 < 0.05 < ratios["relu"]


# --- the loss surface -----------------------------------------------------------------------------

def test_the_surface_of_a_quadratic_loss():
    """Of a linear layer without bias the mean squared error is known everywhere."""
    net = xn.Sequential([xn.Linear(1, bias=False)], input_shape=(2,), backend="numpy",
                        dtype="float64")
    before = net.parameters.copy()
    target = X @ [[1.0], [2.0]]
    found = loss_surface(net, X, target, loss="mean_squared_error", radius=0.5, points=3)
    W = net.arrays["linear1.W"].data
    d, e = (directions["linear1.W"] for directions in (found.first, found.second))
    for direction in (d, e):
        assert abs(np.linalg.norm(direction) - np.linalg.norm(W)) < 1e-12
    assert abs(d - e).max() > 0.01 and found.steps.tolist() == [-0.5, 0, 0.5]
    for i, a in enumerate(found.steps):
        for j, b in enumerate(found.steps):
            y = X @ (W + a * d + b * e).T
            assert abs(found.losses[i, j] - ((y - target) ** 2).mean()) < 1e-12
    np.testing.assert_array_equal(net.parameters, before)


def test_biases_do_not_move():
    found = loss_surface(small(), X, Y, loss="cross_entropy", points=2)
    assert {*found.first} == {"linear1.W", "linear2.W"}


def test_biases_and_scales_of_several_axes_do_not_move():
    """And the norm is that of each output's weights: W (F, C, KH, KW) and (OH, OW, F, C, KH, KW).
    """
    net = xn.Sequential([xn.Conv2d(2, 2, bias="map", name="conv"), xn.LayerNorm(),
                         xn.LocallyConnected2d(2, 2, name="local"), xn.Flatten()],
                        input_shape=(1, 4, 3), backend="numpy", dtype="float64")
    found = loss_surface(net, np.ones((1, 1, 4, 3)), np.zeros((1, 4)), loss="mean_squared_error",
                         points=2)
    assert {*found.first} == {"conv.W", "local.W"}
    for name, outputs in (("conv.W", (2,)), ("local.W", (2, 1, 2))):
        norms = [np.linalg.norm(a.reshape(*outputs, -1), axis=-1)
                 for a in (found.first[name], net.arrays[name].data)]
        np.testing.assert_allclose(*norms, rtol=1e-12)


# --- samples with dropout on ----------------------------------------------------------------------

def test_samples_have_the_moments_of_predict_samples():
    net = small()
    before = net.counters.copy()
    y = samples_of(net, X, 20, loss="cross_entropy")
    assert y.shape == (20, 12, 3)
    np.testing.assert_array_equal(net.counters, before)
    mean, spread = net.predict_samples(X, 20, loss="cross_entropy")
    np.testing.assert_allclose(y.mean(axis=0), mean, rtol=1e-5)
    np.testing.assert_allclose(y.std(axis=0), spread, atol=1e-6)
    first = net(X, mode="sample")
    z = np.exp(first - first.max(axis=1, keepdims=True))
    np.testing.assert_allclose(y[0], z / z.sum(axis=1, keepdims=True), rtol=1e-5)


# --- the record of batch norms --------------------------------------------------------------------

def normed():
    return xn.Sequential([xn.Linear(4), xn.BatchNorm1d(name="norm"), xn.Linear(3)],
                         input_shape=(2,), backend="numpy")


def fit(record, net=None, **options):
    net = net or normed()
    net.fit(X, Y, loss="cross_entropy", epochs=2, batch_size=4, verbose=False, callbacks=[record],
            **options)
    return net


def test_the_record_has_the_running_statistics():
    record = xn.RunningStatistics(every=3)
    net = fit(record)
    assert record.steps == [3, 6] and np.shape(record.means["norm"]) == (2, 4)
    np.testing.assert_array_equal(record.means["norm"][-1], net.arrays["norm.mean"].data)
    np.testing.assert_array_equal(record.variances["norm"][-1], net.arrays["norm.var"].data)
    assert not np.array_equal(*record.means["norm"])
    fit(record, net)
    assert record.steps == [3, 6, 9, 12]


def test_a_further_training_counts_all_batches_of_the_earlier_one():
    """Of its 6 batches, the last two are not recorded."""
    record = xn.RunningStatistics(every=4)
    fit(record, fit(record))
    assert record.steps == [4, 10]


def test_a_resumed_training_has_the_same_record(tmp_path):
    class Fails(xn.Callback):
        fails = True

        def on_batch_begin(self, run):
            if self.fails and (run.epoch, run.batch) == (2, 2):
                raise RuntimeError("mine")

    def fitted(record, **options):
        normed().fit(X, Y, loss="cross_entropy", epochs=2, batch_size=4, verbose=False,
                     callbacks=[record, failing], **options)
        return record

    failing = Fails()
    with pytest.raises(RuntimeError, match="mine"):
        fitted(xn.RunningStatistics(), checkpoint=xn.Checkpoint(tmp_path / "a", steps=1))
    failing.fails = False
    parts = fitted(xn.RunningStatistics(), resume=tmp_path / "a")
    whole = fitted(xn.RunningStatistics())
    assert parts.steps == whole.steps == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(parts.means["norm"], whole.means["norm"])
    np.testing.assert_array_equal(parts.variances["norm"], whole.variances["norm"])


@pytest.mark.parametrize(("call", "said"), [
    (lambda: gradient_sizes(small(), X, Y), "expected loss"),
    (lambda: gradient_sizes("net", X, Y), "gradient_sizes: expected net to be a Network"),
    (lambda: loss_surface(small(), X, Y, loss="cross_entropy", points=1), "loss_surface: expected"),
    (lambda: loss_surface(small(), X, Y, loss="cross_entropy", radius=0), "radius to be a number"),
    (lambda: samples_of(small(), X, 0, loss="cross_entropy"), "samples_of: expected samples"),
    (lambda: xn.RunningStatistics(0), "RunningStatistics: expected every"),
])
def test_wrong_arguments(call, said):
    with pytest.raises((ValueError, TypeError), match=said):
        call()
