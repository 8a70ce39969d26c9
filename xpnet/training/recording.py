"""A callback that records the running statistics of batch norms."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import Checked
from xpnet.layers.normalization import BatchNorm
from xpnet.training.callbacks import Callback, Run


class RunningStatistics(Checked, Callback):
    """Record the running mean and variance of every batch norm during a training.

    `steps` has the numbers of batches after which they were recorded, `means[layer]` and
    `variances[layer]` an array (C,) for each. They are read from the backend, which waits for a
    GPU. A further training adds to the record, and its batches are counted after those of the
    earlier ones. Batch norms that are children of other layers are not recorded.
    xpnet.viz.show_statistics draws the record.

    Args:
        every: after how many batches they are recorded.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = self.expect_integer("every", every)
        self.steps: list[int] = []
        self.means: dict[str, list[np.ndarray]] = {}
        self.variances: dict[str, list[np.ndarray]] = {}
        self._before = 0        # batches of earlier trainings,
        self._done = 0          # and with those of this one

    def state(self) -> dict[str, Any]:
        return {"steps": list(self.steps), "before": self._before,
                "means": {name: list(found) for name, found in self.means.items()},
                "variances": {name: list(found) for name, found in self.variances.items()}}

    def load_state(self, run: Run, state: dict[str, Any]) -> None:
        self.steps, self._before = list(state["steps"]), state["before"]
        self._done = self._before + run.steps
        self.means = {name: list(found) for name, found in state["means"].items()}
        self.variances = {name: list(found) for name, found in state["variances"].items()}

    def on_train_begin(self, run: Run) -> None:
        self._before = self._done

    def on_batch_end(self, run: Run) -> None:
        self._done = self._before + run.steps
        if run.steps % self.every:
            return
        self.steps.append(self._done)
        to_numpy = run.net.backend.to_numpy
        for name, layer in run.net.layer_names.items():
            if isinstance(layer, BatchNorm):
                for record, p in ((self.means, layer.mean), (self.variances, layer.var)):
                    record.setdefault(name, []).append(np.array(to_numpy(p.data)))
