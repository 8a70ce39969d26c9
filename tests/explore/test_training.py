"""Training in the page: what `fit` does, a step at a time, between requests."""

from __future__ import annotations

import time

import numpy as np
import pytest
from tiers import full

import xpnet as xn
from xpnet.explore.training import MOST_LOSSES, Trainer


def network(**options):
    return xn.Sequential([xn.Conv2d(3, 3), xn.BatchNorm2d(activation="relu"), xn.Flatten(),
                          xn.Dropout(0.3), xn.Linear(3)], input_shape=(1, 5, 5),
                         **{"backend": "numpy", "seed": 4} | options)


def dataset(count=20):
    rng = np.random.default_rng(0)
    return xn.data.Dataset(rng.integers(0, 256, (count, 1, 5, 5), np.uint8),
                           rng.integers(0, 3, count), classes=["a", "b", "c"])


def test_steps_are_those_of_fit():
    """Over two epochs, of which the last batch is smaller: to the same bits."""
    net, other, data = network(), network(), dataset()
    trainer = Trainer(net, data)
    trainer.settings(lr=0.01, batch=8)
    for _ in range(5):
        trainer.act("step")
    history = other.fit(data, optimizer=xn.Adam(0.01), batch_size=8, steps=5, verbose=False)
    for name in "parameters", "state", "counters":
        np.testing.assert_array_equal(getattr(net, name), getattr(other, name))
    found = trainer.as_json()
    assert (found["step"], found["epoch"], found["error"]) == (5, 1, None)
    assert np.average([loss for _, loss in found["losses"][:3]],
                      weights=[8, 8, 4]) == pytest.approx(history.rows[0]["loss"], rel=1e-6)
    assert net.classes == ("a", "b", "c") and net.scale == 255


def test_reset_brings_back_the_beginning():
    """Steps after it are those after the start."""
    net, data = network(), dataset()
    before = net.parameters.copy(), net.state.copy()
    trainer = Trainer(net, data)
    trainer.act("step")
    first = net.parameters.copy()
    trainer.act("step")
    trainer.act("reset")
    assert trainer.as_json()["step"] == 0 and trainer.as_json()["losses"] == []
    np.testing.assert_array_equal(net.parameters, before[0])
    np.testing.assert_array_equal(net.state, before[1])
    trainer.act("step")
    np.testing.assert_array_equal(net.parameters, first)


def test_the_rate_changes_while_it_runs():
    net, data = network(), dataset()
    trainer = Trainer(net, data)
    trainer.act("start")
    assert trainer.step()
    trainer.settings(lr=1e-30)
    before = net.parameters.copy()
    assert trainer.step()
    np.testing.assert_allclose(net.parameters, before, rtol=0, atol=1e-20)
    trainer.act("pause")
    assert not trainer.step() and trainer.steps == 2


def test_a_training_that_diverges_stops_with_a_message():
    net = network()
    trainer = Trainer(net, dataset())
    trainer.settings(lr=1e38)
    trainer.act("start")
    with np.errstate(all="ignore"):
        steps = sum(1 for _ in range(50) if trainer.step())
    found = trainer.as_json()
    assert steps < 50 and not found["running"] and "diverged" in found["error"]
    trainer.act("reset")
    trainer.settings(lr=1e-3)
    trainer.act("step")
    assert trainer.as_json()["error"] is None and np.isfinite(net.parameters).all()


@pytest.mark.parametrize("data, reason", [
    (None, "no data set"), (xn.data.Dataset(np.zeros((4, 1, 6, 6), np.uint8), [0, 1, 2, 0]),
                            "shape"),
    (xn.data.Dataset(np.zeros((4, 1, 5, 5), np.uint8)), "loss"),
    (xn.data.Dataset(np.zeros((4, 1, 5, 5), np.uint8), [0, 1, 2, 9]), "labels")])
def test_what_cannot_be_trained_says_why(data, reason):
    trainer = Trainer(network(), data)
    assert reason in trainer.reason and "\n" not in trainer.reason
    with pytest.raises(ValueError, match="can be trained"):
        trainer.act("start")


def test_targets_are_trained_with_the_loss_of_the_last_fit():
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    data = xn.data.Dataset(np.ones((6, 3), np.float32), np.ones((6, 2), np.float32))
    assert "loss" in Trainer(net, data).reason
    net.fit(data, loss="mean_squared_error", verbose=False)
    trainer = Trainer(net, data)
    trainer.act("step")
    assert trainer.as_json()["error"] is None and trainer.as_json()["accuracy"] is None


def test_many_losses_are_thinned():
    trainer = Trainer(network(), dataset())
    trainer.losses = [(k, 1 / k) for k in range(1, 5001)]
    losses = trainer.as_json()["losses"]
    assert len(losses) <= MOST_LOSSES and losses[0][0] == 1 and losses[-1][0] == 5000


def test_training_in_the_page(serve):
    """It runs while values are asked for, and what is read belongs together."""
    net = network()
    page = serve(net, dataset(200))
    assert page.json("/api/model")["training"] == {"possible": True, "reason": None}
    page.json("/api/sample", {"index": 0})
    x = page.array("/api/node/0")
    version = page.json("/api/train")["version"]
    assert page.json("/api/train", {"action": "start", "lr": 0.01, "batch": 16})["running"]
    for _ in range(20):
        page.array("/api/node/1")
    deadline = time.monotonic() + 60
    while page.json("/api/train")["step"] < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    found = page.json("/api/train", {"action": "pause"})
    assert not found["running"] and found["step"] >= 10 and found["version"] > version
    assert found["error"] is None and 0 <= found["accuracy"] <= 1
    assert page.json("/api/train")["step"] == found["step"]
    for index, node in enumerate(net.nodes, 1):
        np.testing.assert_array_equal(page.array(f"/api/node/{index}"),
                                      net.output_of(node.name, x[None])[0])


@full
def test_the_training_and_requests_of_two_tabs_for_a_while(serve):
    """Values of a convolution always follow from the filters of the same version."""
    net = network()
    page = serve(net, dataset(200))
    page.json("/api/sample", {"index": 0})
    x = page.array("/api/node/0")
    page.json("/api/train", {"action": "start", "lr": 0.01, "batch": 16})
    same = 0
    for _ in range(200):
        before = page.request("/api/parameter/conv1.W")
        value = page.request("/api/node/1")
        after = page.request("/api/parameter/conv1.b")
        if before.headers["X-Version"] == after.headers["X-Version"]:
            same += 1
            W = np.frombuffer(before.content, "<f4").reshape(3, 3, 3)
            b = np.frombuffer(after.content, "<f4")
            windows = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3))
            np.testing.assert_allclose(
                np.frombuffer(value.content, "<f4").reshape(3, 3, 3),
                np.einsum("yxij,fij->fyx", windows, W) + b[:, None, None], atol=1e-5)
    page.json("/api/train", {"action": "pause"})
    assert page.json("/api/train")["error"] is None
