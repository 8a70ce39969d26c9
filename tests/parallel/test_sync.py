"""Batch norm over the whole batch: `sync=True` trains as one process without ranks does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nets import branches

import xpnet as xn
from xpnet.parallel import DataParallel, in_threads
from xpnet.parallel.sums import Table, add_moments

rng = np.random.default_rng(0)
IMAGES, LABELS = rng.standard_normal((23, 2, 6, 6)), rng.integers(0, 3, 23)
SIGNALS = rng.standard_normal((23, 3, 5))


def vectors() -> xn.Sequential:
    """With an activation whose derivative follows from its input, and a running mean of all."""
    return xn.Sequential([
        xn.Flatten(), xn.Linear(7), xn.BatchNorm1d(momentum=None, activation="gelu"), xn.Linear(3),
    ], input_shape=(2, 6, 6), backend="numpy", dtype="float64")


def signals() -> xn.Sequential:
    return xn.Sequential([
        xn.Conv1d(4, 3, bias=False), xn.BatchNorm1d(activation="relu"), xn.Flatten(), xn.Linear(3),
    ], input_shape=(3, 5), backend="numpy", dtype="float64")


def used_twice() -> xn.Network:
    """One batch norm and one convolution at two places, and a frozen batch norm."""
    x = xn.Input((2, 6, 6))
    conv, norm, still = xn.Conv2d(2, 3, padding=1), xn.BatchNorm2d(), xn.BatchNorm2d()
    h = norm(conv(x))
    y = xn.Linear(3)(xn.Flatten()(still(norm(conv(h)) + h)))
    still.trainable = False
    return xn.Network(x, y, backend="numpy", dtype="float64")


def in_two_outputs() -> xn.Network:
    """A batch norm that only one of the outputs needs."""
    x = xn.Input((2, 6, 6))
    h = xn.BatchNorm2d(name="both")(x)
    a = xn.Linear(3)(xn.Flatten()(h))
    b = xn.Linear(1)(xn.Flatten()(xn.BatchNorm2d(name="one")(xn.Conv2d(2, 3)(h))))
    return xn.Network(x, [a, b], backend="numpy", dtype="float64")


CASES: dict[str, tuple[Callable[[], xn.Network], dict[str, Any]]] = {
    "a graph": (branches, {}),
    "vectors": (vectors, {"batch_size": 9}),        # of 2 the variance may be tiny
    "signals": (signals, {"x": SIGNALS}),
    "used twice": (used_twice, {}),
    "groups of batches": (branches, {"accumulate": 2}),
    "two outputs": (in_two_outputs, {
        "y": [LABELS, IMAGES.mean((1, 2, 3))[:, None]], "loss_weights": [1.0, 0.5],
        "loss": ["cross_entropy", "mean_squared_error"]}),
}


def train(name: str, parallel: Any, **changes: Any) -> tuple[np.ndarray, ...]:
    """Batches of 7 samples, in shards of 2 and 1, and a last one of 2, which leaves two shards
    empty. Returns what has to be equal."""
    make, options = CASES[name]
    net = make()
    history = net.fit(**{"x": IMAGES, "y": LABELS, "loss": "cross_entropy", "epochs": 2,
                         "optimizer": xn.SGD(0.05, 0.9), "batch_size": 7, "verbose": False,
                         "parallel": parallel} | options | changes)
    return net.parameters.copy(), net.state.copy(), np.array(history["loss"])


@pytest.mark.parametrize("name", CASES)
def test_a_training_is_that_without_ranks(name):
    """Parameters, running statistics and losses, in float64; and 1, 2 and 4 ranks have the same
    bits."""
    expected = train(name, None)
    one, = in_threads(1, lambda c: train(name, DataParallel(c, sync=True)))
    for a, b in zip(one, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    for ranks in 2, 4:
        for found in in_threads(ranks, lambda c: train(name, DataParallel(c, sync=True))):
            assert all(np.array_equal(a, b) for a, b in zip(found, one, strict=True))


def test_without_sync_a_training_differs():
    """So that the bound above can be missed."""
    apart, = in_threads(1, lambda c: train("a graph", DataParallel(c)))
    assert np.abs(apart[0] - train("a graph", None)[0]).max() > 1e-6


def test_the_gradients_of_one_step_are_those_of_the_whole_batch():
    """For shards of 3, 2, 3 and 2 samples, by finite differences too, which know no shards."""
    x, y = IMAGES[:10], LABELS[:10]

    def step(parallel: Any) -> tuple[np.ndarray, xn.Network]:
        net = branches()
        net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(1e-30), batch_size=10,
                shuffle=False, verbose=False, parallel=parallel)
        return net.grads.copy(), net

    alone, net = step(None)
    for ranks in 1, 2:
        for grads, _ in in_threads(ranks, lambda c: step(DataParallel(c, sync=True))):
            np.testing.assert_allclose(grads, alone, rtol=0, atol=1e-14)

    def loss(k: int, by: float) -> float:
        moved = branches()
        moved.parameters[k] += by
        return moved.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(1e-30), batch_size=10,
                         verbose=False)["loss"][0]

    for k in np.argsort(-abs(alone))[:20:4]:
        numeric = (loss(k, 1e-5) - loss(k, -1e-5)) / 2e-5
        assert numeric == pytest.approx(alone[k], rel=1e-6)


def test_three_ranks_share_six_shards_in_plain_mode():
    expected = train("a graph", None)
    first, *others = in_threads(3, lambda c: train("a graph", DataParallel(
        c, shards=6, deterministic=False, sync=True)))
    for a, b in zip(first, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(other, first, strict=True))


@pytest.mark.parametrize("sizes", [(4, 3, 1), (0, 5), (5, 0), (0, 0), (1, 1, 1)])
def test_moments_of_parts_are_those_of_all(sizes):
    parts = [1e3 + rng.standard_normal((2, size)) for size in sizes]
    whole = np.concatenate(parts, axis=1)
    table = Table((2, 3), add_moments, 1)
    for part in parts:
        other = Table((2, 3), add_moments, 1)
        if part.size:
            other.values[...] = np.stack([np.full(2, part.shape[1]), part.mean(1),
                                          part.shape[1] * part.var(1)], axis=1)
        table.add(table.memory, other.memory)
    expected = (np.stack([np.full(2, whole.shape[1]), whole.mean(1), whole.shape[1] * whole.var(1)],
                         axis=1) if whole.size else np.zeros((2, 3)))
    np.testing.assert_allclose(table.values, expected, rtol=1e-12, atol=1e-12)


def test_a_constant_channel_becomes_beta():
    """Its mean has no rounding error, which a tiny standard deviation would make large."""
    x = np.full((9, 4), 1 / 3, np.float32)
    seen = []

    class Look(xn.Layer):
        def build(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
            return in_shape

        def forward(self, x: np.ndarray, mode: str = xn.PREDICT) -> np.ndarray:
            seen.append(x.copy())
            return x

        def backward(self, dy: np.ndarray, accumulate: bool = False) -> np.ndarray:
            return dy

    net = xn.Sequential([xn.BatchNorm1d(eps=1e-12), Look(), xn.Linear(2)], input_shape=(4,),
                        backend="numpy")
    in_threads(1, lambda c: net.fit(x, np.zeros(9, int), loss="cross_entropy", batch_size=9,
                                    verbose=False, parallel=DataParallel(c, sync=True)))
    assert len(seen) == 4 and not any(a.any() for a in seen)


def test_a_divergence_is_found_in_the_layer_where_it_begins():
    """NaN of one shard reaches all of them at the batch norm; the layer before it is named, on each
    rank, with the samples that only the last shard has."""
    def run(parallel: Any) -> tuple[str | None, str, bytes]:
        net = xn.Sequential([
            xn.Linear(4, name="a"), xn.BatchNorm1d(name="norm"), xn.Linear(1, name="b"),
        ], input_shape=(2,), backend="numpy")
        data = np.ones((8, 2), np.float32)
        data[-1] = 3e38
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            history = net.fit(data, np.ones((8, 1)), loss="mean_squared_error", optimizer="sgd",
                              batch_size=8, shuffle=False, verbose=False, parallel=parallel)
        assert history.divergence is not None
        return history.divergence.layer, history.divergence.where, net.parameters.tobytes()

    for ranks in 1, 4:
        for found in in_threads(ranks, lambda c: run(DataParallel(c, sync=True))):
            assert found == run(None)
            assert found[0] == "a"


def test_a_batch_norm_inside_another_layer_is_refused():
    class Block(xn.Layer):
        def __init__(self, *, name: str | None = None) -> None:
            super().__init__(name=name)
            self.norm = xn.BatchNorm1d()

        def build(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
            return self.child("norm", self.norm, in_shape)

    net = xn.Sequential([Block(), xn.Linear(3)], input_shape=(4,), backend="numpy")
    with pytest.raises(ValueError, match="DataParallel: expected batch norms that are layers of the"
                                         " network for sync=True. Received: .* child of Block"):
        in_threads(1, lambda c: net.fit(np.ones((8, 4)), np.zeros(8, int), loss="cross_entropy",
                                        parallel=DataParallel(c, sync=True)))


def test_the_whole_batch_has_to_have_two_elements():
    """Shards may have one."""
    with pytest.raises(ValueError, match="expected batches of at least 2 .* the last of 1"):
        in_threads(1, lambda c: train("vectors", DataParallel(c, sync=True), batch_size=11))
    net = vectors()
    in_threads(1, lambda c: net.fit(IMAGES[:4], LABELS[:4], loss="cross_entropy", verbose=False,
                                    parallel=DataParallel(c, sync=True)))
