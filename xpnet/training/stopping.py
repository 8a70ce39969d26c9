"""Early stopping: the training ends when it no longer improves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.checks import Checked, wrong
from xpnet.history import expect_mode, monitored
from xpnet.training.callbacks import Callback, Run


class EarlyStopping(Checked, Callback):
    """End the training after `patience` epochs in a row without an improvement, and take the best
    epoch's parameters back (Prechelt 1998).

    An epoch is better than the best one before if its figure is better by more than `min_delta`.
    NaN is never better. The training that is stopped has `history.stopped`. After Ctrl-C and after
    a training that used all of its epochs, the best parameters are taken back, too.

    Args:
        monitor: a column of the history. Without validation data there is no val_loss, but loss.
        patience: epochs without an improvement after which the training ends, as in Keras: with
            1, the first epoch that is not better ends it.
        min_delta: how much better a figure has to be.
        mode: "min", "max", or "auto": "max" for a column whose name ends in "accuracy".
        restore: whether the network has the parameters and the state of the best epoch at the end,
            and not those of the last. This costs a copy of both in the host's memory.

    Attributes:
        best: the best figure, None before the first epoch.
        best_epoch: its epoch.

    Raises:
        ValueError: after the first epoch, the history has no column `monitor`.
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 5, min_delta: float = 0.0,
                 mode: str = "auto", restore: bool = True) -> None:
        if not isinstance(monitor, str) or not monitor:
            raise wrong(self.who, "monitor to be a column of the history", "monitor", monitor)
        self.monitor, self.patience = str(monitor), self.expect_integer("patience", patience)
        self.min_delta = self.expect_number("min_delta", min_delta, 0)
        self.largest, self.mode = expect_mode(self.who, mode, monitor), mode
        self.restore = self.expect_flag("restore", restore)
        self._begin()

    def _begin(self) -> None:
        self.best: float | None = None
        self.best_epoch = self.worse = 0
        self._kept: list[np.ndarray] = []

    def on_train_begin(self, run: Run) -> None:
        self._begin()

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "worse": self.worse,
                **{f"kept{k}": a for k, a in enumerate(self._kept)}}

    def load_state(self, run: Run, state: dict[str, Any]) -> None:
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.worse = state["worse"]
        self._kept = [state[name] for name in ("kept0", "kept1") if name in state]

    def on_epoch_end(self, run: Run) -> None:
        row = run.history.rows[-1]
        figure = monitored(self.who, self.monitor, row)
        if run.partial:
            return
        if self._better(figure):
            self.best, self.best_epoch, self.worse = figure, run.epoch, 0
            if self.restore:
                self._kept = [np.array(run.net.backend.to_numpy(a))
                              for a in (run.net.parameters, run.net.state)]
            return
        self.worse += 1
        if self.worse >= self.patience:
            run.stop()

    def _better(self, figure: float) -> bool:
        if math.isnan(figure):
            return False
        if self.best is None:
            return True
        gain = figure - self.best if self.largest else self.best - figure
        return gain > self.min_delta

    def on_train_end(self, run: Run) -> None:
        if self.best is None:
            return
        if self._kept:
            net = run.net
            net.parameters[...] = net.backend.asarray(self._kept[0])
            net.state[...] = net.backend.asarray(self._kept[1])
            self._kept = []
        if run.verbose:
            taken = ", whose parameters the network has" if self.restore else ""
            print(f"EarlyStopping: the best {self.monitor}, {self.best:.4g}, was that of epoch "
                  f"{self.best_epoch} of {run.epoch}{taken}")
