"""1, 2 and 4 ranks train to the same bits, and to those of one process up to rounding."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from nets import LAYERS, around, blobs, small
from shared_trainings import CASES, train
from tiers import first, full
from trainings import X, Y, a_network, bits, options

import xpnet as xn
from xpnet.optim import OPTIMIZERS
from xpnet.parallel import DataParallel, in_threads

FIRST = ("dropout, batch norm", "sequences of different lengths", "two outputs",
         "groups of batches, class weights", "mix-up, few samples in the last batch",
         "a frozen layer, early stopping", "unknown labels", "batch norm over the whole batch")


@pytest.mark.parametrize("name", first(CASES, *FIRST))
def test_the_number_of_ranks_changes_no_bit(name):
    one, = in_threads(1, lambda communicator: train(name, communicator))
    for ranks in 2, 4:
        assert in_threads(ranks, lambda communicator: train(name, communicator)) == [one] * ranks


@pytest.mark.parametrize("name", first(OPTIMIZERS, "rprop"))
def test_every_optimizer_has_the_same_bits(name):
    def run(communicator: Any) -> str:
        return train("dropout, batch norm", communicator, optimizer=name, epochs=2)

    one, = in_threads(1, run)
    assert in_threads(4, run) == [one] * 4


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("item", first(LAYERS, LAYERS[0]),
                         ids=lambda item: type(item.make()).__name__)
def test_every_layer_has_the_same_bits(item, sync):
    """Batches of 10 samples and of 8."""
    x = np.random.default_rng(0).standard_normal((18, 3)).astype(np.float32)

    def run(communicator: Any) -> tuple[Any, ...]:
        net = around(item)
        y, = [np.ones((18, *node.shape), np.float32) for node in net.outs.nodes]
        history = net.fit(x, y, loss="mean_squared_error", optimizer=xn.SGD(0.01), batch_size=10,
                          verbose=False, parallel=DataParallel(communicator, sync=sync))
        return bits(net, history)

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")         # some examples diverge on these targets
        one, = in_threads(1, run)
        assert in_threads(4, run) == [one] * 4


def test_eight_shards_have_the_same_bits_on_8_ranks_and_others_than_4():
    def found(ranks: int, shards: int) -> set[str]:
        return {*in_threads(ranks, lambda communicator: train(
            "dropout, batch norm", DataParallel(communicator, shards=shards), epochs=1))}

    assert found(2, 8) == found(8, 8) != found(2, 4)


def test_one_shard_is_a_training_without_ranks():
    """The whole batch is the shard, dropout included; without batch norm, whose running statistics
    are rounded in another order."""
    x, y = blobs()
    alone, ranked = small(), small()
    history = alone.fit(x, y, loss="cross_entropy", epochs=3, verbose=False, validation=0.2)
    other, = in_threads(1, lambda communicator: ranked.fit(
        x, y, loss="cross_entropy", epochs=3, verbose=False, validation=0.2,
        parallel=DataParallel(communicator, shards=1)))
    assert bits(alone, history) == bits(ranked, other)


@pytest.mark.parametrize("loss, deterministic", [
    (xn.CrossEntropy(), False), (xn.CrossEntropy(ignore_index=0), True),
    (xn.CrossEntropy(weight=[1, 2, 5]), True)])
def test_50_steps_agree_with_one_process(loss, deterministic):
    """The loss and the gradient are those of the whole batch, whatever the shards have to count.

    In float64, where sums of another order cannot grow to the bound of 1e-6."""
    x, y = blobs(100)

    def result(parallel: Any) -> tuple[np.ndarray, list[float]]:
        net = xn.Sequential([xn.Linear(16, activation="tanh"), xn.Linear(3)], input_shape=(2,),
                            backend="numpy", dtype="float64")
        history = net.fit(x, y, loss=loss, optimizer=xn.SGD(0.1, 0.9), steps=50, batch_size=30,
                          verbose=False, parallel=parallel)
        return net.parameters.copy(), history["accuracy"]

    parameters, accuracy = result(None)
    for found, other in in_threads(2, lambda communicator: result(
            DataParallel(communicator, deterministic=deterministic))):
        np.testing.assert_allclose(found, parameters, rtol=0, atol=1e-10)
        np.testing.assert_allclose(other, accuracy, rtol=1e-12)


def dense() -> list[xn.Layer]:
    return [xn.Linear(32, activation="relu"), xn.Linear(3)]


def convolutional() -> list[xn.Layer]:
    return [xn.Reshape((2, 1, 1)), xn.ZeroPad2d(3), xn.Conv2d(8, 3, bias=False),
            xn.BatchNorm2d(activation="relu"), xn.MaxPool2d(2), xn.Flatten(), xn.Linear(3)]


@pytest.mark.parametrize("layers, optimizer", [
    (dense, lambda: xn.SGD(0.1, 0.9)), (convolutional, xn.Adam),
    pytest.param(convolutional, lambda: xn.SGD(0.01, 0.9), marks=full)])
def test_50_steps_in_plain_mode_agree_in_float32(layers, optimizer):
    """With those of one process without ranks; and the network learns."""
    x, y = blobs(90)

    def result(parallel: Any) -> np.ndarray:
        net = xn.Sequential(layers(), input_shape=(2,), backend="numpy")
        history = net.fit(x, y, loss="cross_entropy", optimizer=optimizer(), steps=50,
                          batch_size=30, verbose=False, parallel=parallel)
        assert history["loss"][-1] < history["loss"][0] / 2
        return net.parameters.copy()

    alone = result(None)
    for ranks in 1, 2, 4:
        for found in in_threads(ranks, lambda communicator: result(
                DataParallel(communicator, deterministic=False, sync=True))):
            np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
def test_the_loss_of_an_epoch_is_that_of_whole_batches(reduction):
    """Of batches of 15, 15 and 10 samples, as without ranks."""
    x, y = blobs(40)

    def losses(parallel: Any) -> list[float]:
        net = xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy", dtype="float64")
        return net.fit(x, np.eye(3)[y], loss=xn.MeanSquaredError(reduction=reduction),
                       optimizer=xn.SGD(1e-3), batch_size=15, verbose=False, epochs=2,
                       parallel=parallel)["loss"]

    for found in in_threads(2, losses):
        np.testing.assert_allclose(found, losses(None), rtol=1e-12)


def test_the_running_statistics_move_to_the_mean_of_the_shards():
    """mean += momentum (mean of the shard - mean), and the mean of that over the samples; the
    shards of 10 samples have 3, 2, 3 and 2."""
    x = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)

    def run(communicator: Any) -> tuple[np.ndarray, np.ndarray]:
        net = xn.Sequential([xn.BatchNorm1d(momentum=0.25), xn.Linear(2)], input_shape=(3,),
                            backend="numpy")
        net.fit(x, np.zeros(10, int), loss="cross_entropy", batch_size=10, shuffle=False,
                verbose=False, parallel=communicator)
        return net.layers[0].mean.data.copy(), net.layers[0].var.data.copy()

    parts = [part.astype(np.float64) for part in (x[:3], x[3:5], x[5:8], x[8:])]
    mean = sum(len(part) * part.mean(0) for part in parts) / 10
    var = sum(len(part) * part.var(0, ddof=1) for part in parts) / 10
    for found_mean, found_var in in_threads(2, run):
        np.testing.assert_allclose(found_mean, 0.25 * mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found_var, 0.75 + 0.25 * var, rtol=1e-5)


def test_each_shard_and_each_step_has_masks_of_its_own(monkeypatch):
    seen: list[tuple[int, int]] = []
    original = xn.get_backend("numpy").random_bits

    def random_bits(n: int, key: Any, counter: np.ndarray) -> np.ndarray:
        seen.append(tuple(int(c) for c in counter))
        return original(n, key, counter)

    net = small()
    monkeypatch.setattr(net.backend, "random_bits", random_bits)
    monkeypatch.setattr(net.backend, "dropout",
                        lambda *a: xn.Backend.dropout(net.backend, *a), raising=False)
    x, y = blobs(16)
    in_threads(1, lambda communicator: net.fit(x, y, loss="cross_entropy", batch_size=8, epochs=2,
                                               verbose=False, parallel=communicator))
    assert len(seen) == len({*seen}) == 4 * 4           # shards and steps
    assert net.counters.tolist() == [4, 0]


def test_a_rank_reads_its_own_samples_only():
    read: list[set[int]] = [set(), set()]

    class Numbers:
        shape, dtype = (40, 2), np.dtype(np.float32)

        def __init__(self, rank: int) -> None:
            self.rank = rank

        def __len__(self) -> int:
            return 40

        def __getitem__(self, where: Any) -> np.ndarray:
            where = np.atleast_1d(where)
            read[self.rank] |= {*where.tolist()}
            return np.stack([where, where % 3], axis=1).astype(np.float32)

    def run(communicator: Any) -> None:
        data = xn.data.Dataset(Numbers(communicator.rank), np.arange(40) % 3)
        read[communicator.rank].clear()
        net = xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy")
        net.fit(data, batch_size=12, verbose=False, shuffle=False, parallel=communicator)

    in_threads(2, run)
    spans = [(0, 6), (12, 18), (24, 30), (36, 38)]      # the first half of each batch
    first_half = {n for start, stop in spans for n in range(start, stop)}
    assert first_half <= read[0] and {*range(40)} - first_half <= read[1]


@pytest.mark.parametrize("ranks", [(1, 4), (4, 2)])
@pytest.mark.parametrize("name", ["dropout, batch norm", "groups of batches, class weights",
                                  "batch norm over the whole batch"])
def test_a_training_is_resumed_on_another_number_of_ranks_to_the_same_bits(name, ranks, tmp_path):
    whole, = in_threads(1, lambda communicator: train(name, communicator))

    class Break(xn.Callback):
        """In both trainings, because a checkpoint compares the classes of callbacks."""

        def __init__(self, breaks: bool) -> None:
            self.breaks = breaks

        def on_batch_end(self, run: xn.Run) -> None:
            if self.breaks and run.epoch == 2 and run.batch == 2:
                raise InterruptedError("the end of the first part")

    first_part, second = ranks
    checkpoint = xn.Checkpoint(tmp_path, steps=1)
    with pytest.raises(InterruptedError, match="first part"):
        in_threads(first_part, lambda communicator: train(
            name, communicator, checkpoint=checkpoint, callbacks=[Break(True)]))
    assert in_threads(second, lambda communicator: train(
        name, communicator, checkpoint=xn.Checkpoint(tmp_path), callbacks=[Break(False)],
        resume=tmp_path)) == [whole] * second


def test_evaluation_and_prediction_have_the_bits_of_one_process():
    net = a_network()
    net.fit(X, Y, **options(epochs=1))
    f1 = {"f1": lambda outputs, labels: float((outputs.argmax(1) == labels).mean())}
    figures = net.evaluate(X, Y, batch_size=4, metrics=f1)
    outputs = net.predict(X, batch_size=4)

    def run(communicator: Any) -> tuple[Any, np.ndarray]:
        other = a_network()
        other.parameters, other.state = net.parameters, net.state
        return (other.evaluate(X, Y, loss="cross_entropy", batch_size=4, metrics=f1,
                               parallel=communicator),
                other.predict(X, batch_size=4, parallel=communicator))

    for ranks in 1, 2, 4, 8:                # with 8 some have no batch
        for found, ys in in_threads(ranks, run):
            assert found == figures
            assert np.array_equal(ys, outputs)


def test_padding_counts_neither_in_a_shard_nor_in_its_share():
    """The figures of sequences of different lengths are those without ranks."""
    def run(parallel: Any) -> list[dict[str, float]]:
        make, options = CASES["sequences of different lengths"]
        net, changes = make(), options()
        return net.fit(changes["x"], changes["y"], loss="cross_entropy", batch_size=9, epochs=2,
                       optimizer=xn.SGD(0.1), verbose=False, parallel=parallel).rows

    for found in in_threads(2, run):
        for row, other in zip(found, run(None), strict=True):
            assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
            assert row["accuracy"] == other["accuracy"]
