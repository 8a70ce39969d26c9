"""Trainings that diverge: fit warns once, stops if the parameters are NaN, and metrics of NaN are
NaN."""

from __future__ import annotations

import math
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_cases import network, pretended, samples
from loss_cases import CASES, TARGET, Y
from nets import blobs, same, small, values

import xpnet as xn
from xpnet.training.totals import OutputTotals

# NumPy also warns of overflows before that; Numba and a GPU do not.
pytestmark = pytest.mark.filterwarnings("ignore:.*(encountered in|divide by zero):RuntimeWarning")
FIT: dict[str, Any] = {"loss": "cross_entropy", "verbose": False}


class Late(xn.CrossEntropy):
    """Cross entropy whose loss or gradient is spoiled from one call on."""

    def __init__(self, call: int, loss: float = 1.0, gradient: float = 1.0) -> None:
        super().__init__()
        self.call, self.calls, self.factors = call, 0, (loss, gradient)

    def __call__(self, backend: Any, y: Any, target: Any) -> Any:
        self.calls += 1
        loss, dy = super().__call__(backend, y, target)
        f, g = self.factors if self.calls >= self.call else (1.0, 1.0)
        return loss * y.dtype.type(f), dy * y.dtype.type(g)


def warned(caught: list[warnings.WarningMessage]) -> list[warnings.WarningMessage]:
    return [w for w in caught if str(w.message).startswith("fit: ")]


def fitted(net: xn.Network, data: Any,
           **settings: Any) -> tuple[Any, list[warnings.WarningMessage]]:
    """Without capture if the code of a loss has to run in each step."""
    usual = FIT | {"optimizer": xn.SGD(0.1), "epochs": 6, "batch_size": 30,
                   "capture": not isinstance(settings.get("loss"), Late)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = net.fit(*data, **usual | settings)
    return history, warned(caught)


def noticed(backend: xn.Backend, step: int) -> str:
    """When a NaN of this step is noticed: at once on a CPU, on a GPU after the epoch of four
    steps."""
    return f"(step {step})" if backend.xp is np else f"(by step {-(-step // 4) * 4})"


def test_a_training_that_diverges_stops_at_the_step(backend):
    """A gradient that is NaN from step 10 on: the third epoch of four steps."""
    net = small(backend)            # each validation is a call of the loss, too
    history, caught = fitted(net, blobs(), loss=Late(12, gradient=math.nan), validation=blobs(9))
    assert [str(w.message) for w in caught] == [
        "fit: parameters or running statistics became NaN or infinite in epoch 3 "
        f"{noticed(backend, 10)} of this fit, first in the gradient of the loss; the training "
        "ended, and the network has the parameters of step 8. A smaller learning rate, clipped "
        "gradients (xn.Regularized) or inputs around 0 may help"]
    assert caught[0].category is RuntimeWarning and caught[0].filename == __file__
    assert (history.diverged and len(history.rows) == 3
            and repr(history) == "<History of 3 epochs, diverged>")
    if backend.xp is np:
        assert all(map(math.isfinite, history["loss"]))         # computed before the step
    assert math.isnan(history["val_loss"][-1]) and math.isfinite(history["val_loss"][-2])


def test_the_last_good_parameters_are_left(backend):
    net, control = small(backend), small(backend)
    fitted(net, blobs(), loss=Late(10, gradient=math.nan))
    fitted(control, blobs(), epochs=2)
    left, good = values(net), values(control)
    assert all(np.array_equal(left[name], good[name]) for name in ("parameters", "state"))


def test_the_state_of_the_optimizer_is_dropped(backend):
    net, optimizer = small(backend), xn.SGD(0.1, momentum=0.9)
    fitted(net, blobs(), loss=Late(2, gradient=math.nan), optimizer=optimizer)
    history, caught = fitted(net, blobs(), optimizer=optimizer)
    assert not history.diverged and not caught and history["accuracy"][-1] > 0.9


def test_without_restore_no_copy_is_kept(backend):
    net = small(backend)
    history, caught = fitted(net, blobs(), loss=Late(10, gradient=math.nan),
                             callbacks=[xn.StopOnNaN(restore=False)])
    assert len(caught) == 1 and str(caught[0].message).startswith(
        "fit: parameters or running statistics became NaN or infinite in epoch 3 "
        f"{noticed(backend, 10)} of this fit; the training ended. A")
    assert np.isnan(values(net)["parameters"]).any() and history.divergence.restored is None


class Spoiling(xn.Identity):
    """The identity until, in training, its input has the value that is looked for."""

    def __init__(self, side: str, value: float, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.side, self.value = side, value

    def _spoiled(self, x: Any) -> Any:
        return x * np.float32(math.inf)

    def forward(self, x: Any, mode: str = xn.PREDICT) -> Any:
        self.found = bool((x == self.value).any())
        return self._spoiled(x) if self.found and self.side == "forward" else x

    def backward(self, dy: Any, accumulate: bool = False) -> Any:
        return self._spoiled(dy) if self.found and self.side == "backward" else dy


@pytest.mark.parametrize("side", ["forward", "backward"])
def test_the_layer_is_named(side, backend):
    """The layer spoils the batch with sample 77, whatever the parameters are."""
    x, y = blobs()
    x[77] = 5.0
    net = xn.Sequential([xn.PReLU(), xn.Identity(), Spoiling(side, 5.0, name="spoils"),
                         xn.Linear(3)], input_shape=(2,), backend=backend)
    history, caught = fitted(net, (x, y), capture=False, callbacks=[xn.StopOnNaN(every=1)])
    assert history.divergence.layer == "spoils" and history.diverged and len(caught) == 1
    assert f"first in the {side} pass of spoils;" in str(caught[0].message)
    assert np.isfinite(values(net)["parameters"]).all()


def test_an_update_that_overflows(backend):
    """The batch itself is finite with the last good parameters."""
    history, _ = fitted(small(backend), blobs(), optimizer=xn.SGD(3e38, momentum=0.9), epochs=1)
    assert history.diverged and history.divergence.step <= (2 if backend.xp is np else 4)
    assert history.divergence.layer is None or history.divergence.step == 2


def test_the_last_step_of_a_fit_counts(backend):
    """The loss is still finite, because it is computed before the step."""
    history, caught = fitted(small(backend), blobs(), loss=Late(24, gradient=math.inf))
    assert history.diverged and len(history.rows) == 6 and math.isfinite(history["loss"][-1])
    assert len(caught) == 1
    assert f"in epoch 6 {noticed(backend, 24)} of this fit" in str(caught[0].message)


@pytest.mark.parametrize("factor, said", [(math.nan, "nan"), (math.inf, "inf")])
def test_a_loss_that_is_not_finite_gives_one_warning_and_the_training_continues(
        factor, said, backend):
    net, control = small(backend), small(backend)
    history, caught = fitted(net, blobs(), loss=Late(10, loss=factor))
    assert [str(w.message) for w in caught] == [
        f"fit: the loss became {said} in epoch 3 (by step 12) of this fit; the parameters are "
        f"finite, and the training goes on"]
    assert not history.diverged and len(history.rows) == 6
    fitted(control, blobs())
    assert same(values(net), values(control))


def test_a_normal_training_gives_no_warning(backend):
    history, caught = fitted(small(backend), blobs())
    assert not caught and not history.diverged and len(history.rows) == 6


def test_running_statistics_are_checked_too(backend):
    net = xn.Sequential([xn.BatchNorm1d(), xn.Linear(3)], input_shape=(2,), backend=backend)
    net.layers[0].var.data[...] = np.inf
    history, caught = fitted(net, blobs())
    assert history.diverged and len(history.rows) == len(caught) == 1


@pytest.mark.parametrize("capture", [False, True])
def test_on_an_emulated_gpu(capture: bool, folder: Path):
    """Also with captured steps, and after the same epoch."""
    with pretended(folder) as (backend, gpus):
        net = network(backend)
        history, caught = fitted(net, samples(40), optimizer=xn.SGD(1e20), batch_size=8,
                                 capture=capture)
        assert (history.diverged and len(caught) == 1
                and "in epoch 1 (by step 5)" in str(caught[0].message))
        assert gpus.graphs == capture


def test_a_large_learning_rate_on_every_backend(backend):
    x, y = blobs()
    net = xn.Sequential([xn.Linear(8, activation="relu"), xn.Linear(1)], input_shape=(2,),
                        backend=backend)
    history, caught = fitted(net, (100 * x, y[:, None]), loss="mean_squared_error",
                             optimizer=xn.SGD(10.0), epochs=50)
    assert history.diverged and len(history.rows) < 10 and len(caught) == 1


# --- metrics --------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", [case for case in CASES.values() if case.loss.counts_hits],
                         ids=lambda c: type(c.loss).__name__)
def test_scores_that_are_nan_have_no_accuracy(case, backend):
    y, target = Y[case.y].astype(np.float32), TARGET[case.target]
    net = xn.Sequential([xn.Identity()], input_shape=y.shape[1:], backend=backend)
    assert math.isfinite(net.evaluate(y, target, loss=case.loss)["accuracy"])
    y[...] = math.nan
    figures = OutputTotals(net.backend, case.loss)
    goal = case.loss.targets(target, y.shape[1:], y.dtype)
    on_backend = [backend.asarray(np.ascontiguousarray(np.moveaxis(a, 0, -1))) for a in (y, goal)]
    figures.add(case.loss(backend, *on_backend)[0], *on_backend)
    result = figures.result()
    assert math.isnan(result["loss"]) and math.isnan(result["accuracy"])


def test_a_network_of_nan_has_no_accuracy(backend):
    net, (x, y) = small(backend), blobs()
    net.layers[-1].W.data[0, 0] = math.nan
    for loss in ("cross_entropy", xn.CrossEntropy(weight=(1, 2, 3)),
                 xn.CrossEntropy(ignore_index=7), xn.CrossEntropy(label_smoothing=0.1),
                 xn.CrammerSingerHinge(), xn.WestonWatkinsHinge()):
        figures = net.evaluate(x, y, loss=loss)
        assert math.isnan(figures["loss"]) and math.isnan(figures["accuracy"]), loss


# --- no console -----------------------------------------------------------------------------------

def test_without_a_console(monkeypatch):
    """pythonw has neither stdout nor stderr."""
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    net, (x, y) = small(), blobs()
    history = net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), validation=(x, y),
                      epochs=2)
    print(net.summary())
    assert len(history.rows) == 2


def test_without_stderr_the_first_line_is_still_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    net, (x, y) = small(), blobs()
    net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1))
    assert re.fullmatch(r"training \d+ parameters on 120 samples, backend numpy\n",
                        capsys.readouterr().out)
