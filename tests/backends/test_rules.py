"""The table of optimizer rules: which versions a rule has, and that the plain one is enough on every backend."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy, installed

import xpnet as xn
from xpnet.backends import Backend, cupy_optimizers, get_backend, numpy_optimizers
from xpnet.backends.cupy_backend import CupyBackend
from xpnet.backends.rules import RULES, Rule, with_decay
from xpnet.optim.base import Updater


def momentum_of_signs(xp: Any, w: Any, g: Any, m: Any, hyper: Any, decayed: int) -> None:
    """m = mu m + (1 - mu) g', w -= lr sign(m): a rule that no backend has a version of."""
    lr, mu, decay = hyper.astype(w.dtype)
    g = with_decay(w, g, decay, decayed)
    m *= mu
    m += (1 - mu) * g
    w -= lr * xp.sign(m)


class Signs(xn.Optimizer):
    """An optimizer with a rule of its own."""

    rule = "signs"

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        return lr, 0.9, 0.1


@pytest.fixture
def signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "signs", Rule(momentum_of_signs, ("m",), ("lr", "mu", "decay")))


@pytest.fixture(params=["base", "numpy", "numba", "emulated"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "emulated":
        folder: Path = request.getfixturevalue("folder")
        with installed(FakeCupy(folder, kernels=("random_bits", "assign"), checks=("-O0",))):
            yield CupyBackend()
        return
    if request.param == "numba":
        pytest.importorskip("numba", reason="Numba is not installed")
    yield Backend() if request.param == "base" else get_backend(request.param)


def trained(backend: Backend) -> np.ndarray:
    layer = xn.Linear(400).initialize((1000,), backend=backend)         # W is larger than a chunk
    updater = Updater(Signs(), layer.buffers)
    for step in range(3):
        gradient = np.random.default_rng(step).normal(size=layer.buffers.grads.shape)
        with backend.scope():
            layer.buffers.grads[...] = backend.asarray(gradient, np.float32)
            updater.step()
    return backend.to_numpy(layer.buffers.parameters)


@pytest.mark.usefixtures("signs")
def test_a_rule_that_is_only_in_the_table_works_on_every_backend(backend: Backend):
    np.testing.assert_array_equal(trained(backend), trained(Backend()))


def test_the_table_is_right_about_its_functions():
    for name, rule in RULES.items():
        parameters = list(inspect.signature(rule.apply).parameters)
        assert parameters == ["xp", "w", "g", *rule.slots, "hyper", "decayed"] and rule.apply.__name__ == name


def test_every_fast_version_belongs_to_a_rule():
    """A version whose name is misspelt would never run."""
    assert numpy_optimizers.FAST.keys() <= RULES.keys()
    assert cupy_optimizers.structs().keys() == RULES.keys()
    pytest.importorskip("numba", reason="Numba is not installed")
    from xpnet.backends import numba_optimizers
    assert numba_optimizers.KERNELS.keys() == RULES.keys()


def test_every_optimizer_gives_its_rule_what_it_takes():
    for make in xn.optim.OPTIMIZERS.values():
        optimizer = make()
        rule = RULES[optimizer.rule]
        assert len(optimizer.hyper(1, optimizer.lr)) == len(rule.hyper) and set(optimizer.unused) <= set(rule.slots)


@pytest.mark.parametrize(("changes", "message"), [
    ({"rule": "adm"}, 'update: expected rule to be one of sgd, .*, perhaps "adam"'),
    ({"slots": [None]}, "update: expected 2 slots and 7 hyper-parameters for the rule adam. Received: 1 and 7"),
    ({"hyper": np.ones(6)}, "update: expected 2 slots and 7 hyper-parameters for the rule adam. Received: 2 and 6"),
])
def test_what_does_not_fit_a_rule_is_refused(changes: dict[str, Any], message: str, backend: Backend):
    w, g, m, v = (backend.asarray(np.ones(3, np.float32)) for _ in range(4))
    hyper = backend.asarray(changes.get("hyper", np.ones(7)))
    arguments = {"rule": "adam", "w": w, "g": g, "slots": [m, v]} | changes | {"hyper": hyper}
    with pytest.raises(ValueError, match=message):
        backend.update(**arguments, decayed=3)
