"""fit(validation=0.2): a share of the samples is split off, as Dataset.split does it, for arrays
without a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_cases import learned, network, pretended, samples
from nets import blobs, same, small, values

import xpnet as xn
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.data import Dataset
from xpnet.data.split import split

X, Y = blobs(90)
SETTINGS: dict[str, Any] = {"loss": "cross_entropy", "optimizer": xn.SGD(0.1), "epochs": 2,
                            "batch_size": 16, "verbose": False}


def fitted(x: Any, y: Any = None, backend: Any = "numpy", seed: int = 5, **settings: Any) -> Any:
    net = small(backend, seed=seed)
    history = net.fit(x, y, **{**SETTINGS, "optimizer": xn.SGD(0.1), **settings})
    return values(net), [{**row, "seconds": 0} for row in history.rows]


def parts(labels: np.ndarray, share: float = 0.2, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    return split("test", labels, len(labels), share, seed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_split_is_that_of_a_dataset(dtype, plain_backend):
    """Training on arrays with a share is training on the parts that Dataset.split makes."""
    results = []
    data = Dataset(X, Y, scale=None).split(0.2, seed=5)
    x, y = X[parts(Y)[0]], Y[parts(Y)[0]]
    held = X[parts(Y)[1]], Y[parts(Y)[1]]
    for arguments in ({"x": X, "y": Y, "validation": 0.2}, {"x": x, "y": y, "validation": held},
                      {"x": data}, {"x": Dataset(X, Y, scale=None), "validation": 0.2}):
        net = small(plain_backend, seed=5, dtype=dtype)
        history = net.fit(**arguments, **SETTINGS | {"optimizer": xn.SGD(0.1)})
        results.append((values(net), [{**row, "seconds": 0} for row in history.rows]))
    assert len(data) == 72 and results[0][1][1]["val_accuracy"] > 0.5
    for arrays, rows in results[1:]:
        assert same(arrays, results[0][0]) and rows == results[0][1]


def test_each_class_has_its_share():
    labels = np.repeat([0, 1, 2], [60, 20, 10])
    stays, off = parts(labels)
    assert np.bincount(labels[off]).tolist() == [12, 4, 2] and len(stays) == 72
    with pytest.raises(ValueError, match=r"fit: expected a share that leaves samples of each class "
                                         r"in both parts. Received: validation=0.01, which gives "
                                         r"validation no sample of 1, which has 20"):
        fitted(X, labels, validation=0.01)


def test_ignored_labels_are_no_class():
    """One unknown label cannot be in both parts, and need not be."""
    labels = Y.copy()
    labels[7] = -1
    fitted(X, labels, validation=0.2, loss=xn.CrossEntropy(ignore_index=-1))
    with pytest.raises(ValueError, match="no sample of 2, which has 1"):
        fitted(X, np.where(np.arange(90) == 7, 2, 0), validation=0.2)


def test_several_inputs_and_targets_without_labels():
    targets = [(X[:, :1] + X[:, 1:]), X]

    def train(x, y, validation):
        a, b = xn.Input((2,)), xn.Input((2,))
        outputs = [xn.Linear(1, name="sum")(xn.Add()(a, b)), xn.Linear(2, name="same")(a)]
        net = xn.Network([a, b], outputs, backend="numpy", seed=5)
        history = net.fit(x, y, validation=validation, **SETTINGS | {"loss": "mean_squared_error"})
        return net.predict([X, X]), history["val_same_loss"]

    stays, off = split("test", None, 90, 0.3, 5)
    given = train([X, X + 1], targets, 0.3)
    own = train([X[stays], X[stays] + 1], [t[stays] for t in targets],
                ([X[off], X[off] + 1], [t[off] for t in targets]))
    assert given[1] == own[1] and all(map(np.array_equal, given[0], own[0]))


def test_weights_follow_the_samples_that_remain():
    """Also of a Dataset; "balanced" counts only these."""
    labels = np.repeat([0, 1, 2], [50, 30, 10])
    weight, stays = np.linspace(0.5, 2, 90), parts(labels)[0]
    own = fitted(X[stays], labels[stays], sample_weight=weight[stays], class_weight="balanced",
                 validation=(X[parts(labels)[1]], labels[parts(labels)[1]]))
    for x, y in ((X, labels), (Dataset(X, labels, scale=None), None)):
        arrays, rows = fitted(x, y, sample_weight=weight, class_weight="balanced", validation=0.2)
        assert same(arrays, own[0]) and rows == own[1]


def test_no_samples_are_copied():
    """The batches are read from the arrays and the Dataset's source that were given."""
    seen: list[Any] = []

    class Look(xn.Callback):
        def on_epoch_end(self, run):
            seen.append([feed.samples for feed in run.source.feeds])

    fitted(X, Y, validation=0.2, callbacks=[Look()])
    assert np.shares_memory(seen[0][0], X)
    data = Dataset(X, Y, scale=None)
    fitted(data, validation=0.2, callbacks=[Look()])
    assert seen[-1][0].data._x is data._x


def test_mixing_takes_no_sample_of_the_validation():
    """Other images in the validation part change nothing in the training."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    off = parts(labels)[1]
    pixels = rng.random((40, 1, 3, 3)).astype(np.float32)
    marked = pixels.copy()
    marked[off] += 9
    results = []
    for x in (pixels, marked):
        net = xn.Sequential([xn.Flatten(), xn.Linear(2)], input_shape=(1, 3, 3), backend="numpy",
                            seed=5)
        net.fit(Dataset(x, labels), validation=0.2, augment=[xn.MixUp()],
                **SETTINGS | {"optimizer": xn.SGD(0.1)})
        results.append(values(net))
    assert same(*results)


def test_a_gpu_holds_the_samples_once(folder: Path, monkeypatch):
    """Captured, with the bits of the parts as arrays of their own, and one copy of the samples."""
    x, y = samples(60)
    stays, off = split("test", y, 60, 0.2, 3)
    results: list[Any] = []
    feed, uploads = CupyBackend.feed, []

    def counted(self, a, *more):
        uploads.append(isinstance(a, np.ndarray))
        return feed(self, a, *more)

    monkeypatch.setattr(CupyBackend, "feed", counted)
    for settings, copies in (({"x": x, "y": y, "validation": 0.2}, 2), (
            {"x": x[stays], "y": y[stays], "validation": (x[off], y[off])}, 4)):
        with pretended(folder) as (backend, gpus):
            net = network(backend)
            history = net.fit(**settings, loss="cross_entropy", optimizer=xn.Adam(0.01), epochs=3,
                              batch_size=8, verbose=False)
            assert gpus.graphs == 1 and sum(uploads) == copies
            results.append((learned(net), history["loss"], history["val_loss"]))
            uploads.clear()
    assert same(results[0][0], results[1][0]) and results[0][1:] == results[1][1:]


@pytest.mark.parametrize("arguments, message", [
    ({"validation": 1.0}, "expected validation to be a number from 0 to 1, below 1. Received: "),
    ({"validation": -0.1}, "expected validation to be a number from 0 to 1"),
    ({"validation": 0}, "expected a share that leaves samples of each class in both parts"),
    ({"validation": True}, "expected validation to be a pair .*share.* Received: bool"),
    ({"validation": 0.2, "sample_weight": np.ones(72)}, "a number for each of the 90 samples"),
])
@pytest.mark.parametrize("of", ["arrays", "a data set"])
def test_what_is_refused(arguments, message, of):
    x = (X, Y) if of == "arrays" else (Dataset(X, Y, scale=None),)
    with pytest.raises((ValueError, TypeError), match=f"fit: .*{message}"):
        fitted(*x, **arguments)


def test_a_dataset_with_a_validation_part_is_refused():
    data = Dataset(X, Y, scale=None).split(0.2)
    with pytest.raises(ValueError, match="fit: expected a data set without a validation part, for "
                                         "a share as validation. Received: validation=0.1 and "):
        fitted(data, validation=0.1)
