"""Layers of sequences inside a captured step, on an emulated GPU."""

from pathlib import Path

import numpy as np
import pytest
from gpu_cases import pretended

import xpnet as xn


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
