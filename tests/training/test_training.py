"""fit, evaluate and predict: what they learn and return, and which inputs they accept."""

from __future__ import annotations

import math
import signal

import numpy as np
import pytest
from nets import blobs, pictures, same, small, untouched, values

import xpnet as xn

QUIET = {"loss": "cross_entropy", "verbose": False}


def trained(seed: int = 0, epochs: int = 3, **settings) -> xn.Sequential:
    net = small(seed=seed)
    net.fit(*blobs(), **QUIET, optimizer=xn.Adam(1e-2), epochs=epochs, **settings)
    return net


# --- learning -------------------------------------------------------------------------------------

def test_fit_learns_a_separable_problem(backend):
    x, y = blobs()
    net = small(backend)
    history = net.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), epochs=30,
                      validation=blobs(60, seed=1))
    assert history["accuracy"][-1] > 0.98 and history["val_accuracy"][-1] == 1
    assert net.evaluate(x, y)["accuracy"] == 1
    assert history["loss"][-1] < 0.1 * history["loss"][0]


@pytest.mark.parametrize("loss", ["mean_squared_error", "half_squared_error"])
def test_fit_learns_a_line(loss):
    x = np.linspace(-1, 1, 50)[:, None]
    y = 3 * x[:, 0] - 1
    net = xn.Sequential([xn.Linear(1)], input_shape=(1,), backend="numpy", dtype="float64")
    history = net.fit(x, y, loss=loss, optimizer=xn.SGD(0.2), epochs=60, batch_size=10,
                      verbose=False)
    np.testing.assert_allclose([p.data.item() for p in net.layers[0].parameters], [3, -1],
                               rtol=1e-6)
    assert set(history.rows[-1]) == {"epoch", "loss", "lr", "seconds"}  # no classes, no accuracy
    assert set(net.evaluate(x, y)) == {"loss"}


def test_fit_learns_from_class_probabilities_as_from_labels():
    x, y = blobs()
    by_label, by_share = small(), small()
    by_label.fit(x, y, **QUIET, optimizer=xn.SGD(0.1))
    by_share.fit(x, np.eye(3)[y], **QUIET, optimizer=xn.SGD(0.1))
    assert same(values(by_label), values(by_share))
    assert by_share.evaluate(x, np.eye(3)[y]) == by_label.evaluate(x, y)


def test_one_step_is_a_gradient_step():
    """SGD on one batch: w - lr dL/dw, with the gradient of the mean over the batch."""
    x, y = blobs(10)
    net = xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy", dtype="float64")
    W, b = (p.data.copy() for p in net.layers[0].parameters)
    net.fit(x, y, **QUIET, optimizer=xn.SGD(0.5), batch_size=10)
    z = x.astype(np.float64) @ W.T + b
    share = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    dz = (share - np.eye(3)[y]) / 10
    np.testing.assert_allclose(net.layers[0].W.data, W - 0.5 * dz.T @ x, rtol=1e-12)
    np.testing.assert_allclose(net.layers[0].b.data, b - 0.5 * dz.sum(axis=0), rtol=1e-12)


# --- history --------------------------------------------------------------------------------------

def test_history_has_a_row_for_each_epoch():
    x, y = blobs()
    history = small().fit(x, y, **QUIET, optimizer=xn.SGD(0.1), epochs=3,
                          validation=(x[:30], y[:30]))
    assert history["epoch"] == [1, 2, 3] and len(history.rows) == 3 and not history.interrupted
    assert list(history.rows[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr",
                                     "seconds"]
    assert all(type(v) in (int, float) and math.isfinite(v) for row in history.rows
               for v in row.values())
    assert history["lr"] == [0.1] * 3 and all(s >= 0 for s in history["seconds"])
    assert repr(history) == "<History of 3 epochs>"
    with pytest.raises(KeyError, match="val_los"):
        history["val_los"]


def test_until_is_called_after_each_epoch_with_its_row():
    x, y = blobs()
    seen = []

    def until(row):
        seen.append(row)
        return row["val_accuracy"] > 0.5 and row["epoch"] >= 2

    net, control = small(), small()
    history = net.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), schedule="one_cycle", epochs=9,
                      validation=(x, y), until=until)
    assert history.stopped and not history.interrupted and 2 <= len(history.rows) < 9
    assert len(seen) == len(history.rows) == net.epochs and all(
        a is b for a, b in zip(seen, history.rows, strict=True))
    assert repr(history) == f"<History of {len(seen)} epochs, stopped>"
    # the schedule is that of all nine epochs, and calling `until` changes nothing
    whole = control.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), schedule="one_cycle", epochs=9,
                        validation=(x, y), until=lambda row: np.bool_(False))
    assert not whole.stopped and len(whole.rows) == 9 and repr(whole) == "<History of 9 epochs>"
    assert whole["lr"][:len(seen)] == history["lr"] and whole["loss"][:len(seen)] == history["loss"]
    # in the last epoch too
    assert small().fit(x, y, **QUIET, optimizer=xn.SGD(0.1), until=lambda row: True).stopped


def test_until_may_move_the_network():
    x, y = blobs()
    stayed, moved = small(dtype="float64"), small(dtype="float64")

    def until(row):
        if row["epoch"] == 2:
            moved.to(xn.Backend())
        return False

    history = moved.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), epochs=4, validation=(x, y),
                        until=until)
    control = stayed.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), epochs=4, validation=(x, y))
    np.testing.assert_allclose(history["val_loss"], control["val_loss"], rtol=1e-9)


def test_until_is_not_called_after_part_of_an_epoch():
    class Interrupting(xn.CrossEntropy):
        def __call__(self, backend, y, target):
            signal.raise_signal(signal.SIGINT)
            return super().__call__(backend, y, target)

    def until(row):
        raise AssertionError(row)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        history = small().fit(*blobs(), loss=Interrupting(), optimizer=xn.SGD(0.1), until=until,
                              verbose=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert history.interrupted and not history.stopped


def test_until_must_be_a_function():
    x, y = blobs()
    net = small()
    with untouched(net), pytest.raises(
            TypeError,
            match=r"expected until to be a function of an epoch's row. Received: until=0.98"):
        net.fit(x, y, **QUIET, optimizer=xn.SGD(0.1), until=0.98)


def test_validation_is_evaluation_after_the_epoch():
    x, y = blobs()
    held_out = blobs(60, seed=1)
    net = small()
    row = net.fit(x, y, **QUIET, optimizer=xn.SGD(0.1), validation=held_out).rows[-1]
    assert net.evaluate(*held_out) == {"loss": row["val_loss"], "accuracy": row["val_accuracy"]}
    without = small()
    without.fit(x, y, **QUIET, optimizer=xn.SGD(0.1))
    assert same(values(net), values(without))           # evaluating changes nothing


def test_the_short_last_batch_counts_by_its_size():
    """With a learning rate of 0 the network does not change, so the metrics of the epoch are those
    of evaluate."""
    x, y = blobs(20)
    y = np.where(np.arange(20) < 14, 0, y)  # batches of 7, 7 and 6 with losses far apart
    net = xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy", dtype="float64")
    row = net.fit(x, y, **QUIET, optimizer=xn.SGD(0.0), batch_size=7, shuffle=False).rows[-1]
    whole = net.evaluate(x, y)
    assert (row["loss"] == pytest.approx(whole["loss"], rel=1e-12)
            and row["accuracy"] == whole["accuracy"])
    parts = [net.evaluate(x[i:i + 7], y[i:i + 7])["loss"] for i in (0, 7, 14)]
    assert np.mean(parts) != pytest.approx(whole["loss"], rel=1e-3)
    for batch_size in (1, 7, 19, 20, 1000):
        assert net.evaluate(x, y, batch_size=batch_size) == pytest.approx(whole, rel=1e-12)


# --- predict, evaluate, net(x) --------------------------------------------------------------------

def test_predict_evaluate_and_call_agree():
    net, (x, y) = trained(), blobs()
    called = net(x)
    for batch_size in (1, 7, 64, 119, 120, 1000):
        predicted = net.predict(x, batch_size=batch_size)
        assert (type(predicted) is np.ndarray and predicted.shape == (120, 3)
                and predicted.dtype == np.float32)
        np.testing.assert_allclose(predicted, called, rtol=1e-5, atol=1e-5)
        result = net.evaluate(x, y, batch_size=batch_size)
        assert result["accuracy"] == (called.argmax(axis=1) == y).mean()
        shifted = called - called.max(axis=1, keepdims=True)
        log_share = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        assert result["loss"] == pytest.approx(-log_share[np.arange(120), y].mean(), rel=1e-5)


def test_one_image_alone(backend):
    """Moving the batch axis of a single sample gives arbitrary strides. Kernels must not read
    them."""
    net = xn.Sequential([xn.Conv2d(4, 3), xn.MaxPool2d(2),
                         xn.Conv2d(3, (2, 3), stride=2, padding=1, activation="tanh"),
                         xn.AvgPool2d(2), xn.Flatten(), xn.Linear(3)], input_shape=(2, 12, 12),
                        backend=backend)
    x = pictures(3, (2, 12, 12))[0]
    together = backend.to_numpy(net(x))
    for i in range(3):
        np.testing.assert_allclose(backend.to_numpy(net(x[i:i + 1])), together[i:i + 1], rtol=1e-4,
                                   atol=1e-5)
    net.fit(x[:1], [0], **QUIET, optimizer=xn.SGD(0.1))


def test_predicting_changes_nothing():
    net, (x, y) = trained(), blobs()
    with untouched(net):
        net.predict(x)
        net(x)
        net.evaluate(x, y)


def test_predict_returns_the_output_of_the_last_layer():
    net = xn.Sequential([xn.Conv2d(3, 3), xn.Sigmoid()], input_shape=(1, 5, 5), backend="numpy")
    x = pictures(4, (1, 5, 5))[0]
    assert (net.predict(x).shape == (4, 3, 3, 3)
            and ((net.predict(x) > 0) & (net.predict(x) < 1)).all())


def test_samples_differ_from_call_to_call():
    net = xn.Sequential([xn.Dropout(0.5)], input_shape=(100,), backend="numpy")
    x = np.ones((3, 100))
    draws = [net(x, mode="sample") for _ in range(3)]
    assert not np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[1], draws[2])
    assert set(np.unique(draws)) == {0.0, 2.0} and np.array_equal(net(x), x)
    again = xn.Sequential([xn.Dropout(0.5)], input_shape=(100,), backend="numpy")
    assert np.array_equal(again(x, mode="sample"), draws[0])        # and they follow from the seed


def test_dropout_differs_from_step_to_step():
    class Recorded(xn.HalfSquaredError):
        def __call__(self, backend, y, target):
            self.seen = [*getattr(self, "seen", []), np.array(y)]
            return super().__call__(backend, y, target)

    net = xn.Sequential([xn.Linear(50), xn.Dropout(0.5)], input_shape=(1,), backend="numpy")
    loss = Recorded()
    net.fit(np.ones((1, 1)), np.zeros((1, 50)), loss=loss, optimizer=xn.SGD(0.0), epochs=3,
            verbose=False)
    assert (not np.array_equal(loss.seen[0], loss.seen[1])
            and not np.array_equal(loss.seen[1], loss.seen[2]))


# --- types of x and y -----------------------------------------------------------------------------

def forms(x):
    """The same numbers as arrays, lists and other types."""
    wide = np.repeat(x, 2, axis=0)[::2]
    frozen = x.copy()
    frozen.flags.writeable = False
    return {"list": x.tolist(), "uint8": x.astype(np.uint8), "int64": x.astype(np.int64),
            "float64": x.astype(np.float64),
            "float16": x.astype(np.float16), "fortran": np.asfortranarray(x), "stride": wide,
            "reversed": x[::-1][::-1],
            "big-endian": x.astype(">f4"), "read-only": frozen}


@pytest.mark.parametrize("form", forms(np.zeros((1, 1, 4, 4), np.float32)))
def test_inputs_in_every_form(form):
    x = np.random.default_rng(0).integers(0, 5, (20, 1, 4, 4)).astype(np.float32)
    y = np.arange(20) % 3

    def run(samples, labels):
        net = xn.Sequential([xn.Conv2d(2, 3, activation="relu"), xn.Flatten(), xn.Linear(3)],
                            input_shape=(1, 4, 4), backend="numpy")
        history = net.fit(samples, labels, **QUIET, optimizer=xn.SGD(0.1), batch_size=8,
                          validation=(samples, labels))
        return (values(net), net.predict(samples), net(samples), net.evaluate(samples, labels),
                history["val_loss"])

    given = forms(x)[form]
    before = np.array(given)
    found, expected = run(given, y), run(x, y)
    assert same(found[0], expected[0]) and found[3:] == expected[3:]
    assert np.array_equal(found[1], expected[1]) and np.array_equal(found[2], expected[2])
    assert np.array_equal(np.array(given), before)              # it was not written to


def test_targets_are_not_written_to():
    x, y = blobs()
    shares = np.asfortranarray(np.eye(3)[y])
    for target in (y, shares):
        target.flags.writeable = False
        small().fit(x, target, **QUIET, optimizer=xn.SGD(0.1), validation=(x, target))
    assert np.array_equal(shares, np.eye(3)[y])


def test_the_result_is_not_the_callers_array():
    net = xn.Sequential([xn.Flatten(), xn.Dropout()], input_shape=(2,), backend="numpy")
    x = np.ones((5, 2), np.float32)
    net.predict(x)[:] = 7
    assert (x == 1).all()


# --- on another backend ---------------------------------------------------------------------------

def test_moving_keeps_the_parameters_and_the_optimizers_state():
    x, y = blobs()

    def run(optimizers, backends):
        net = small(dtype="float64")
        for optimizer, backend in zip(optimizers, backends, strict=True):
            assert backend is None or net.to(backend) is net
            net.fit(x, y, **QUIET, optimizer=optimizer, epochs=2)
        return net

    one, other = xn.Adam(1e-2), xn.Adam(1e-2)
    stayed = run([one] * 3, [None] * 3)
    moved = run([other] * 3, ["numpy", xn.Backend(), "numpy"])
    anew = run([xn.Adam(1e-2) for _ in range(3)], [None] * 3)
    distance = [np.linalg.norm(net.parameters - stayed.parameters)
                / np.linalg.norm(stayed.parameters) for net in (moved, anew)]
    assert distance[0] < 1e-9 < 1e-3 < distance[1]
    assert moved.epochs == 6 and np.array_equal(moved.counters, stayed.counters)
    assert moved.backend.name == "numpy" and all(
        layer.backend is moved.backend for layer in moved.layers)


def test_moving_keeps_every_bit():
    net = trained()
    before = values(net)
    net.to(xn.Backend())
    assert same(values(net), before) and net.backend.name == "base"


def test_a_move_that_fails_does_not_move_the_network():
    class Full(xn.Backend):
        def zeros(self, shape, dtype):
            raise MemoryError("no room")

    net, (x, _) = trained(), blobs()
    before, backend = net.predict(x), net.backend
    for target, error in (("cupy:99", xn.BackendError), ("tpu", ValueError), (Full(), MemoryError)):
        with untouched(net), pytest.raises(error):
            net.to(target)
        assert net.backend is backend and np.array_equal(net.predict(x), before)


# --- batch normalisation --------------------------------------------------------------------------

def test_running_statistics_come_from_training_and_serve_prediction():
    net = xn.Sequential([xn.BatchNorm2d(momentum=1.0)], input_shape=(1, 2, 2), backend="numpy",
                        dtype="float64")
    x = np.random.default_rng(0).normal(5, 3, (50, 1, 2, 2))
    with untouched(net):
        net(x)
    net.fit(x, np.zeros((50, 1, 2, 2)), loss="mean_squared_error", optimizer=xn.SGD(0.0),
            batch_size=50, verbose=False)
    np.testing.assert_allclose([float(p.data[0]) for p in net.layers[0].states],
                               [x.mean(), x.var(ddof=1)])
    np.testing.assert_allclose(net(x[:1]), (x[:1] - x.mean()) / np.sqrt(x.var(ddof=1) + 1e-5))
