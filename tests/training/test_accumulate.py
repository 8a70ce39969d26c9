"""fit(accumulate=): the gradients of several batches are those of one batch with all their
samples."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gpu_cases import LATE, learned, network, pretended, samples
from loss_cases import CASES, TARGET
from loss_cases import Y as OUTPUTS
from nets import blobs, same, small, values
from tiers import first

import xpnet as xn
from xpnet.training.groups import Groups

X, Y = blobs(50)
UNKNOWN = np.where(np.arange(50) % 7 < 2, -1, Y)
WEIGHTS = np.linspace(0.2, 3, 50)
MANY = np.where(np.arange(150).reshape(50, 3) % 5 == 0, -1, np.arange(150).reshape(50, 3) % 2)


class Updates(xn.Callback):
    """The parameters after each update, the learning rates, and which batches updated."""

    def __init__(self) -> None:
        self.parameters: list[np.ndarray] = []
        self.rates: list[float] = []
        self.counts: list[tuple[int, int]] = []

    def on_batch_end(self, run):
        self.counts.append((run.steps, run.updates))
        if run.updated:
            self.parameters.append(np.array(run.net.backend.to_numpy(run.net.parameters)))
            self.rates.append(run.lr)


def trained(backend: Any, batch_size: int, accumulate: int = 1, y: Any = Y, dtype: str = "float64",
            **settings: Any) -> Updates:
    """Two epochs with momentum, weight decay, and a schedule, without dropout."""
    net = xn.Sequential([xn.Linear(8, activation="tanh"), xn.Linear(3)], input_shape=(2,),
                        backend=backend, seed=1, dtype=dtype)
    seen = Updates()
    net.fit(X, y, batch_size=batch_size, accumulate=accumulate, callbacks=[seen], verbose=False,
            **{"loss": "cross_entropy", "epochs": 2, "schedule": "cosine",
               "optimizer": xn.AdamW(0.01), **settings})
    return seen


def assert_close(a: Updates, b: Updates, rtol: float) -> None:
    assert len(a.parameters) == len(b.parameters) and a.rates == b.rates
    for p, q in zip(a.parameters, b.parameters, strict=True):
        np.testing.assert_allclose(p, q, rtol=rtol, atol=rtol)


# --- one batch of all samples ---------------------------------------------------------------------

LOSSES: dict[str, tuple[Any, Any]] = {
    "mean": ("cross_entropy", Y), "sum": (xn.CrossEntropy(reduction="sum"), Y),
    "smoothed": (xn.CrossEntropy(label_smoothing=0.2), Y),
    "weights of classes": (xn.CrossEntropy(weight=[0.1, 1, 5]), Y),
    "unknown labels": (xn.CrossEntropy(ignore_index=-1), UNKNOWN),
    "both": (xn.NegativeLogLikelihood(weight=[0.1, 1, 5], ignore_index=-1), UNKNOWN),
    "probabilities": (xn.CrossEntropy(weight=[0.1, 1, 5], ignore_index=-1),
                      np.full((50, 3), 1 / 3)),
    "many labels": (xn.MultiLabelCrossEntropy(ignore_index=-1), MANY),
    "squares": ("mean_squared_error", MANY), "batchmean": (
        xn.HalfSquaredError(reduction="batchmean"), MANY),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_updates_are_those_of_large_batches(name):
    """50 samples in batches of 4 and groups of 4: the last group is a batch of 2, alone."""
    loss, y = LOSSES[name]
    large = trained("numpy", 16, loss=loss, y=y)
    groups = trained("numpy", 4, 4, loss=loss, y=y)
    assert len(large.parameters) == 8
    assert groups.counts == [(k + 1, k // 13 * 4 + k % 13 // 4 + 1) for k in range(26)]
    assert_close(groups, large, 1e-11)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_every_loss(name):
    """6 samples in another order, in batches of 1 and then 2: their gradients with their shares are
    that of all samples."""
    case, order = CASES[name], np.array([4, 1, 5, 0, 2, 3])
    y, shape = OUTPUTS[case.y][order], OUTPUTS[case.y].shape[1:]
    target = case.loss.targets(TARGET[case.target], shape, np.dtype(np.float64))
    goal: Any = SimpleNamespace(loss=case.loss, node=SimpleNamespace(shape=shape))
    spans = [(0, 1), (1, 3), (3, 5), (5, 6)]
    batches: Any = SimpleNamespace(span=spans.__getitem__, positions=lambda a, b: order[a:b])
    groups, backend = Groups([goal], [target], 4, [None]), xn.get_backend("numpy")

    def gradient(start: int, stop: int) -> np.ndarray:
        part = [np.ascontiguousarray(np.moveaxis(a[start:stop], 0, -1))
                for a in (y, target[order])]
        return case.loss(backend, *part)[1]

    parts = [groups.member(batches, number, 4).shares[0] * gradient(*span)
             for number, span in enumerate(spans)]
    np.testing.assert_allclose(np.concatenate(parts, axis=-1), gradient(0, 6), rtol=1e-12,
                               atol=1e-15)


@pytest.mark.parametrize("settings", [
    {"sample_weight": WEIGHTS}, {"class_weight": {0: 3.0}}, {"validation": 0.2},
    {"validation": 0.2, "loss": xn.CrossEntropy(ignore_index=-1), "y": UNKNOWN},
    {"drop_last": True}, {"shuffle": False},
    {"optimizer": xn.Regularized(xn.SGD(0.1, momentum=0.9), clip_norm=0.05)},
    {"epochs": None, "steps": 7}], ids=str)
def test_with_other_options(settings):
    """With drop_last, 48 samples are left in both cases; 7 batches of 16 are 3 groups, and 3."""
    steps = {"steps": 4 * 3 + 1 + 4 * 3} if "steps" in settings else {}
    assert_close(trained("numpy", 4, 4, **settings | steps), trained("numpy", 16, **settings),
                 1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_on_every_backend(dtype, plain_backend):
    bound = {"float32": 2e-5, "float64": 1e-11}[dtype]
    assert_close(trained(plain_backend, 5, 3, dtype=dtype),
                 trained(plain_backend, 15, dtype=dtype), bound)


def test_two_outputs_whose_losses_have_different_divisors():
    """Each is divided by its own sum of the group."""
    def train(batch_size, accumulate):
        x = xn.Input((2,))
        h = xn.Linear(6, activation="tanh")(x)
        outputs = {"a": xn.Linear(3)(h), "b": xn.Linear(3)(h), "c": xn.Linear(1)(h)}
        net, seen = xn.Network(x, outputs, backend="numpy", dtype="float64", seed=2), Updates()
        net.fit(X, {"a": UNKNOWN, "b": Y, "c": X[:, :1]}, batch_size=batch_size, verbose=False,
                accumulate=accumulate, optimizer=xn.SGD(0.1), epochs=2, callbacks=[seen],
                loss_weights={"a": 2.0, "b": 0.5, "c": 1},
                loss={"a": xn.CrossEntropy(ignore_index=-1, weight=[1, 2, 9]),
                      "b": "cross_entropy", "c": xn.MeanSquaredError(reduction="sum")})
        return seen

    assert_close(train(3, 5), train(15, 1), 1e-11)


def test_feature_maps_with_unknown_labels():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 2, 4, 4)), rng.integers(0, 3, (12, 4, 4))
    y[:5, :2] = 255

    def train(batch_size, accumulate):
        net = xn.Sequential([xn.Conv2d(3, 3, padding=1)], input_shape=(2, 4, 4), backend="numpy",
                            dtype="float64")
        seen = Updates()
        net.fit(x, y, loss=xn.CrossEntropy(ignore_index=255), optimizer=xn.SGD(0.1), epochs=2,
                batch_size=batch_size, accumulate=accumulate, callbacks=[seen], verbose=False)
        return seen

    assert_close(train(2, 3), train(6, 1), 1e-11)


def test_labels_that_are_all_unknown():
    """A group in which nothing counts changes nothing."""
    seen = trained("numpy", 4, 2, y=np.full(50, -1), loss=xn.CrossEntropy(ignore_index=-1),
                   optimizer=xn.SGD(0.1))
    assert all(np.array_equal(p, seen.parameters[0]) for p in seen.parameters)


def test_mixed_images():
    """MixUp's targets are probabilities; those of a group are those of its batches."""
    data = xn.data.Dataset(np.random.default_rng(0).random((20, 1, 3, 3)), np.arange(20) % 3)
    net = xn.Sequential([xn.Flatten(), xn.Linear(3)], input_shape=(1, 3, 3), backend="numpy")
    net.fit(data, augment=[xn.MixUp()], batch_size=4, accumulate=2, verbose=False)
    with_all = xn.Sequential([xn.Flatten(), xn.Linear(3)], input_shape=(1, 3, 3), backend="numpy")
    with_all.fit(data, augment=[xn.MixUp()], batch_size=8, verbose=False)
    np.testing.assert_allclose(net.parameters, with_all.parameters, rtol=1e-4, atol=1e-6)


def test_one_batch_in_a_group_is_no_group():
    """accumulate=1 is the default, to the bit."""
    assert same(*[values(fitted(**given)) for given in ({}, {"accumulate": 1})])


def fitted(**settings: Any) -> xn.Sequential:
    net = small()
    net.fit(X, Y, loss="cross_entropy", verbose=False, **settings)
    return net


# --- what counts batches, and what counts updates -------------------------------------------------

def test_dropout_has_another_mask_in_each_batch():
    net = xn.Sequential([xn.Dropout(0.5), xn.Linear(3)], input_shape=(2,), backend="numpy")
    net.fit(X, Y, loss="cross_entropy", batch_size=5, accumulate=3, verbose=False)
    assert net.counters[0] == 10 and set(net.step.updater.steps.values()) == {4}


def test_averages_and_norms_are_of_updates():
    average, norms = xn.ExponentialMovingAverage(0.5, use=False), xn.GradientNorms()
    rows = []
    for batch_size, accumulate in ((16, 1), (4, 4)):
        net, kept = small(dtype="float64"), []

        class Keep(xn.Callback):
            def on_validation_begin(self, run, kept=kept):
                kept.append(run.net.parameters.copy())      # the averages

        net.layers[1].p = 0.0
        history = net.fit(X, Y, loss="cross_entropy", batch_size=batch_size, epochs=2,
                          accumulate=accumulate, callbacks=[average, norms, Keep()], verbose=False)
        rows.append((history["grad_norm"], kept))
    np.testing.assert_allclose(rows[0][0], rows[1][0], rtol=1e-9)
    np.testing.assert_allclose(rows[0][1], rows[1][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [0, 3, 4])
def test_the_layer_of_a_nan_is_found_in_any_batch_of_the_group(bad):
    """A loss that is infinite in the gradient for one sample; batches of one, groups of 5."""
    class Broken(xn.Linear):
        def backward(self, dy, accumulate=False):
            dx = super().backward(dy, accumulate)
            if float(self.marked[0, 0]) > 100:
                self.W.grad[...] = np.nan
            return dx

        def forward(self, x, mode=xn.PREDICT):
            self.marked = x
            return super().forward(x, mode)

    x = X[:10].copy()
    x[5 + bad] = 1000
    net = xn.Sequential([Broken(3, name="broken"), xn.Linear(3)], input_shape=(2,),
                        backend="numpy")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        history = net.fit(x, Y[:10], loss="cross_entropy", optimizer="sgd", batch_size=1,
                          accumulate=5, shuffle=False, verbose=False)
    found = history.divergence
    assert history.diverged and (found.step, found.layer) == (10, "broken")
    assert np.isfinite(net.parameters).all()


# --- captured on a GPU ----------------------------------------------------------------------------

@pytest.mark.parametrize("late", first(LATE, "late"))
@pytest.mark.parametrize("accumulate", first([2, 5], 5))
def test_captured_steps_are_the_same(accumulate, late, folder: Path):
    """43 samples in batches of 8: a short last batch and a short last group."""
    results = []
    x, y = samples(43)
    for capture in (False, True):
        with pretended(folder, LATE[late if capture else "at once"]) as (backend, gpus):
            net = network(backend)
            history = net.fit(x, y, loss=xn.CrossEntropy(weight=[1, 2, 3, 4]), epochs=4,
                              optimizer=xn.Adam(1e-2, weight_decay=0.01), batch_size=8,
                              accumulate=accumulate, schedule="one_cycle", verbose=False,
                              callbacks=[xn.ExponentialMovingAverage(0.9), xn.GradientNorms()],
                              validation=(x, y), capture=capture)
            rows = [{**row, "seconds": 0} for row in history.rows]
            results.append((learned(net), rows))
            assert (gpus.graphs, gpus.launches > 8) == ((1, True) if capture else (0, False))
    assert same(results[0][0], results[1][0]) and results[0][1] == results[1][1]


def test_a_captured_training_is_resumed_inside_a_group(folder: Path, tmp_path: Path):
    x, y = samples(40)
    results = []
    for cut in (False, True):
        with pretended(folder) as (backend, _):
            def train(end: int, net: Any, backend=backend, cut=cut) -> list[float]:
                class Stop(xn.Callback):
                    def on_batch_begin(self, run):
                        if cut and run.steps == end:
                            raise KeyError

                given = {"resume": tmp_path} if cut else {}
                return net.fit(x, y, loss="cross_entropy", epochs=4, batch_size=8, accumulate=3,
                               verbose=False, callbacks=[Stop()], **given,
                               checkpoint=xn.Checkpoint(tmp_path, steps=1) if cut else None)["loss"]

            if cut:
                with pytest.raises(KeyError):
                    train(13, network(backend))
            net = network(backend)
            results.append((train(99, net), learned(net)))
    assert results[0][0] == results[1][0] and same(results[0][1], results[1][1])


@pytest.mark.parametrize("settings, message", [
    ({"accumulate": 0}, "fit: expected accumulate to be an int, 1 or larger. Received: "
                        "accumulate=0."),
    ({"accumulate": 2.0}, "fit: expected accumulate to be an int"),
    ({"accumulate": True}, "fit: expected accumulate to be an int")])
def test_what_is_refused(settings, message):
    with pytest.raises(ValueError) as error:
        fitted(**settings)
    assert str(error.value).startswith(message)
