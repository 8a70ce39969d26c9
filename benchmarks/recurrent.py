"""Recurrent layers against PyTorch's, and layers of signals against the same layers of images.

A training step of a layer is its forward and its backward pass, with the gradients with respect to
its parameters and to its input. The sequences have T steps, or in mode "ragged" 2 to T - 1, evenly
distributed: on average half as many. A signal is compared with images of one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.rows import Row, of_part
from benchmarks.table import Table, by_contender, milliseconds

Step = Callable[[], Any]
T, D, H = 100, 128, 128         # steps, features, units
CHANNELS, LENGTH = 64, 256      # of signals
RATIO = ("the time divided by PyTorch's; for ragged sequences also by that of 100 steps; for "
         "layers of signals by that of the same layer of images with one row")


@dataclass(frozen=True)
class Case:
    """A layer, and what is measured: a mode "train", "ragged" or "predict", and a batch size."""

    layer: str
    mode: str
    batch: int


RECURRENT = tuple(Case(layer, mode, batch) for layer in ("SimpleRNN", "LSTM", "GRU")
                  for mode, batch in (("train", 32), ("ragged", 32), ("predict", 1)))
SIGNALS = tuple(Case(f"{layer}{axes}d", "train", 32)
                for layer in ("Conv", "MaxPool", "AvgPool") for axes in (1, 2))
CASES = (*RECURRENT, *SIGNALS)


def cases_of(contender: str) -> tuple[Case, ...]:
    return RECURRENT if contender.startswith("torch") else CASES


def lengths_of(batch: int) -> np.ndarray:
    """The number of steps of each sample, (N,)."""
    return np.random.default_rng(0).permutation(np.arange(1, 2 * batch, 2) * T // (2 * batch) + 1)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def step(case: Case, backend: Any) -> Step:
    """The function to time, on a backend of xpnet; PyTorch's is in torch_recurrent.py."""
    import xpnet as xn
    inputs: list[np.ndarray]                                            # batch-last
    if case.layer.endswith("d"):
        shape = (CHANNELS, LENGTH) if case.layer.endswith("1d") else (CHANNELS, 1, LENGTH)
        kernel: Any = 3 if case.layer.startswith("Conv") else 2
        size = kernel if case.layer.endswith("1d") else (1, kernel)
        layer = (getattr(xn, case.layer)(CHANNELS, size) if case.layer.startswith("Conv")
                 else getattr(xn, case.layer)(size))
        inputs = [noise(*shape, case.batch)]
    else:
        ragged = case.mode == "ragged"
        layer = getattr(xn, case.layer)(H, return_sequences=True, lengths=ragged)
        inputs = [noise(D, T, case.batch)]
        if ragged:
            inputs.append(lengths_of(case.batch)[None].astype(np.float32))
    layer.initialize(*(a.shape[:-1] for a in inputs), backend=backend)
    xs = [backend.asarray(a) for a in inputs]
    dy = backend.asarray(noise(*layer.forward(*xs).shape))

    def train() -> Any:
        layer.forward(*xs, mode=xn.TRAIN)
        return layer.backward(dy)

    return train if case.mode != "predict" else lambda: layer.forward(*xs)


# --- tables ---------------------------------------------------------------------------------------

def table(rows: Sequence[Row], *, times: bool = True) -> Table:
    """A line for each layer, mode, batch and threads; for each contender milliseconds, and the
    ratios in brackets. Without `times`, only the ratios."""
    ours = of_part(rows, "recurrent")
    seconds = {(r["contender"], r["layer"], r["mode"], r["threads"]): r["seconds"] for r in ours}

    def text(row: Row) -> str:
        me, layer, mode, threads = (row[key] for key in ("contender", "layer", "mode", "threads"))
        others = [("", next((seconds[key] for key in seconds if key[0].startswith("torch")
                             and key[1:] == (layer, mode, threads)), None))]
        if mode == "ragged":
            others.append(("full ", seconds.get((me, layer, "train", threads))))
        if layer.endswith("1d"):
            others.append(("2-D ", seconds.get((me, f"{layer[:-2]}2d", mode, threads))))
        ratios = ", ".join(f"{name}{row['seconds'] / other:.2f}" for name, other in others if other)
        if not times:
            return ratios
        return milliseconds(row["seconds"]) + (f" ({ratios})" if ratios else "")

    if not times:
        ours = [row for row in ours if not row["layer"].endswith("2d")]
    return by_contender(ours, ("layer", "mode", "batch", "threads"), text)
