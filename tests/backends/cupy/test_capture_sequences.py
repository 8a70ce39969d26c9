"""Layers of sequences inside a captured step, on an emulated GPU."""

from pathlib import Path

import numpy as np
import pytest
from gpu_cases import LATE, learned, pretended
from nets import same
from tiers import first

import xpnet as xn
from xpnet.backends import Backend


def network(backend):
    tokens, steps = xn.Input((4,), name="tokens"), xn.Input((1,), name="steps")
    h = xn.Conv1d(6, 3, padding=1)(xn.Embedding(5, 4)(tokens))
    h = xn.LSTM(5, bidirectional=True, return_sequences=True, lengths=True)(
        xn.BatchNorm1d(activation="relu")(h), steps)
    h, last = xn.GRU(4, layers=2, dropout=0.2, return_sequences=True, return_state=True)(h)
    h = xn.GRU(4, layers=2, reset="before", return_sequences=True)(h, last)
    h = xn.RNN(xn.ElmanCell(4), return_sequences=True, lengths=True)(h, steps)
    return xn.Network([tokens, steps], xn.Linear(3)(h), backend=backend)


def test_sequences_are_captured_and_train_as_on_the_cpu(folder: Path):
    """Also the one-hot products of the embedding, the masks of lengths, and each step of a cell."""
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 5, (24, 4)), rng.integers(1, 5, (24, 1))]
    y, losses = rng.integers(0, 3, (24, 4)), []
    with pretended(folder) as (backend, gpus):
        for on in (backend, "numpy"):
            net = network(on)
            losses.append(net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=3,
                                  batch_size=8, verbose=False)["loss"])
        assert gpus.graphs == 1 and gpus.launches > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def cells(backend):
    """One of each cell that has kernels, with and without lengths and first states."""
    x, steps = xn.Input((3, 4), name="x"), xn.Input((1,), name="steps")
    h = xn.LSTM(5, bidirectional=True, return_sequences=True, lengths=True)(x, steps)
    h, last = xn.GRU(4, return_sequences=True, return_state=True)(h)
    h = xn.GRU(4, return_sequences=True, lengths=True)(h, steps, last)
    h = xn.SimpleRNN(4, activation="sigmoid")(h)
    return xn.Network([x, steps], xn.Linear(3)(h), backend=backend, seed=1)


@pytest.mark.parametrize("late", first(LATE, "late"))
def test_recurrent_layers_have_the_same_bits_in_a_graph(
        late: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The graph is recorded with other lengths than those of later steps. The reference, which
    would be called if there were no kernel, is taken away."""
    for method in ("scan", "scan_backward"):
        monkeypatch.setattr(Backend, method, None)
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((27, 3, 4)).astype(np.float32), rng.integers(1, 5, (27, 1))]
    y, results = rng.integers(0, 3, 27), []
    for capture in (False, True):
        with pretended(folder, LATE[late if capture else "at once"]) as (backend, gpus):
            net = cells(backend)
            history = net.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(1e-2), epochs=2,
                              batch_size=8, capture=capture, verbose=False)
            results.append((learned(net), history["loss"]))
            assert gpus.graphs == capture
    assert same(results[0][0], results[1][0]) and results[0][1] == results[1][1]
