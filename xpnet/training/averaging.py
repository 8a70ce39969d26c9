"""Averages of the parameters over the steps of a training."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import Checked
from xpnet.layer import Array
from xpnet.training.callbacks import Callback, Run


class ExponentialMovingAverage(Checked, Callback):
    """Exponential moving average of the parameters: A = decay A + (1 - decay) W after each update
    (Polyak and Juditsky 1992; the exponential form as in Tarvainen and Valpola 2017, eq. 2).

    A starts as the parameters before the first step; it is one array on the network's backend, and
    there is a second one for the parameters while the averages are in the network. Nothing waits
    for a GPU, and captured steps stay captured.

    The averages are in the network during the validation of each epoch and until the next epoch
    begins, so that what later callbacks save or keep at `on_epoch_end` are the averages. Running
    statistics are not averaged: `net.population_statistics(x)` computes those of the averages.

    Args:
        decay: from 0 to 1, below 1. About 1 / (1 - decay) updates count.
        use: whether the network has the averages at the end, and not the last parameters. After a
            training that diverged it has the last good parameters in any case.
    """

    def __init__(self, decay: float = 0.999, use: bool = True) -> None:
        self.decay = self.expect_share("decay", decay)
        self.use = self.expect_flag("use", use)
        self._average: Array | None = None
        self._backend: Backend | None = None
        self._trained: Array | None = None      # the parameters, while the averages are in use

    def on_train_begin(self, run: Run) -> None:
        self._average, self._backend = run.net.parameters.copy(), run.net.backend

    def state(self) -> dict[str, Any]:
        arrays = {"average": self._average, "trained": self._trained}
        return {name: np.array(self._backend.to_numpy(a)) for name, a in arrays.items()
                if a is not None and self._backend is not None}

    def load_state(self, run: Run, state: dict[str, Any]) -> None:
        self._backend = run.net.backend
        self._average = self._backend.asarray(state["average"])
        self._trained = self._backend.asarray(state["trained"]) if "trained" in state else None

    def on_epoch_begin(self, run: Run) -> None:
        self._put_back(run)
        if self._backend is not run.net.backend:        # a callback has moved the network
            assert self._average is not None and self._backend is not None
            self._average = run.net.backend.asarray(self._backend.to_numpy(self._average))
            self._backend = run.net.backend

    def on_batch_end(self, run: Run) -> None:
        """A += (1 - decay) (W - A), in place."""
        assert self._average is not None
        if run.updated:
            self._average += (1 - self.decay) * (run.net.parameters - self._average)

    def on_validation_begin(self, run: Run) -> None:
        if not run.history.diverged:
            self._trained = run.net.parameters.copy()
            run.net.parameters[...] = self._average

    def on_train_end(self, run: Run) -> None:
        if not self.use or run.history.diverged:
            self._put_back(run)
        elif self._trained is None and self._average is not None:   # the training ended by an error
            run.net.parameters[...] = self._average
        self._average = self._backend = self._trained = None

    def _put_back(self, run: Run) -> None:
        if self._trained is not None:
            assert self._backend is not None
            if self._backend is not run.net.backend:
                self._trained = run.net.backend.asarray(self._backend.to_numpy(self._trained))
            run.net.parameters[...] = self._trained
            self._trained = None
