"""The tables of optimizer rules and of activations: an entry is enough to work on every backend."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy, installed

import xpnet as xn
from xpnet.backends import Backend, Window, get_backend
from xpnet.backends.activations import ACTIVATIONS, Activation
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy import optimizers as cupy_optimizers
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.backends.numpy import optimizers as numpy_optimizers
from xpnet.backends.rules import RULES, Rule, with_decay
from xpnet.optim.base import Updater


def momentum_of_signs(xp: Any, w: Any, g: Any, m: Any, hyper: Any, decayed: int) -> None:
    """m = mu m + (1 - mu) g', w -= lr sign(m): a rule that no backend overrides."""
    lr, mu, decay = hyper.astype(w.dtype)
    g = with_decay(w, g, decay, decayed)
    m *= mu
    m += (1 - mu) * g
    w -= lr * xp.sign(m)


class Signs(xn.Optimizer):
    """An optimizer with its own rule."""

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
        with installed(FakeCupy(folder)):
            yield CupyBackend(tf32="never")
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


def test_the_entries_match_their_functions():
    for name, rule in RULES.items():
        parameters = list(inspect.signature(rule.apply).parameters)
        assert (parameters == ["xp", "w", "g", *rule.slots, "hyper", "decayed"]
                and rule.apply.__name__ == name)


def test_every_fast_version_belongs_to_a_rule():
    """A version whose name is misspelt would never run."""
    assert numpy_optimizers.FAST.keys() <= RULES.keys()
    assert cupy_optimizers.structs().keys() == RULES.keys()
    pytest.importorskip("numba", reason="Numba is not installed")
    from xpnet.backends.numba import optimizers as numba_optimizers
    assert numba_optimizers.KERNELS.keys() == RULES.keys()


def test_every_optimizer_passes_the_hyper_parameters_of_its_rule():
    for make in xn.optim.OPTIMIZERS.values():
        optimizer = make()
        rule = RULES[optimizer.rule]
        assert (len(optimizer.hyper(1, optimizer.lr)) == len(rule.hyper)
                and set(optimizer.unused) <= set(rule.slots))


@pytest.mark.parametrize(("changes", "message"), [
    ({"rule": "adm"}, 'update: expected rule to be one of sgd, .*, perhaps "adam"'),
    ({"slots": [None]},
     "update: expected 2 slots and 7 hyper-parameters for the rule adam. Received: 1 and 7"),
    ({"hyper": np.ones(6)},
     "update: expected 2 slots and 7 hyper-parameters for the rule adam. Received: 2 and 6"),
])
def test_what_does_not_fit_a_rule_is_refused(changes: dict[str, Any], message: str,
                                             backend: Backend):
    w, g, m, v = (backend.asarray(np.ones(3, np.float32)) for _ in range(4))
    hyper = backend.asarray(changes.get("hyper", np.ones(7)))
    arguments = {"rule": "adam", "w": w, "g": g, "slots": [m, v]} | changes | {"hyper": hyper}
    with pytest.raises(ValueError, match=message):
        backend.update(**arguments, decayed=3)


# --- activations ----------------------------------------------------------------------------------

@pytest.fixture
def squareplus(monkeypatch: pytest.MonkeyPatch) -> str:
    """An activation that no backend has a kernel for."""
    monkeypatch.setitem(ACTIVATIONS, "squareplus", Activation(
        lambda xp, z, b: 0.5 * (z + xp.sqrt(z * z + b)),
        lambda xp, z, b: 0.5 * (1 + z / xp.sqrt(z * z + b)), of="z", constants={"b": 4.0}))
    return "squareplus"


def test_an_activation_that_is_only_in_the_table_works_on_every_backend(
        squareplus: str, backend: Backend):
    rng = np.random.default_rng(0)
    x, W, b = (rng.normal(size=size).astype(np.float32)
               for size in ((2, 5, 6, 4), (3, 2, 3, 3), (3,)))
    scale, shift = np.ones(2, np.float32), np.zeros(2, np.float32)

    def answers(backend: Backend) -> list[np.ndarray]:
        X, F, bias, gamma, beta = (backend.asarray(a) for a in (x, W, b, scale, shift))
        grad = backend.zeros((2,), np.float32)
        with backend.scope():
            dz = backend.activation_backward(X, X, squareplus, bias_grad=grad)
            found = [backend.activate(X, squareplus), backend.activate(X, squareplus, (9.0,)),
                     dz, grad,
                     backend.gemm(F.reshape(3, 18), F.reshape(3, 18), trans_b=True, bias=bias,
                                  activation=squareplus),
                     backend.conv2d(X, F, Window.make(3), bias=bias, activation=squareplus),
                     backend.batch_norm(X, gamma, beta, 1e-5, activation=squareplus)[0],
                     backend.batch_norm_inference(X, gamma, beta, beta, gamma, 1e-5,
                                                  activation=squareplus)]
        return [backend.to_numpy(a) for a in found]

    for found, right in zip(answers(backend), answers(Backend()), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)


def test_a_layer_with_an_activation_that_is_only_in_the_table(squareplus: str, backend: Backend):
    layer = xn.Linear(3, activation=squareplus).initialize((4,), backend=backend)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    with backend.scope():
        y = layer.forward(backend.asarray(x), mode="train")
        dx = layer.backward(backend.asarray(np.ones((3, 5), np.float32)))
    W, bias = (backend.to_numpy(p.data) for p in (layer.W, layer.b))
    z = W @ x + bias[:, None]
    np.testing.assert_allclose(backend.to_numpy(y), (z + np.sqrt(z * z + 4)) / 2, rtol=1e-5)
    np.testing.assert_allclose(backend.to_numpy(dx), W.T @ (0.5 + 0.5 * z / np.sqrt(z * z + 4)),
                               rtol=1e-4)


def test_kernels_of_activations_belong_to_the_table():
    assert set(cuda_launch.curves()) <= ACTIVATIONS.keys()
    pytest.importorskip("numba", reason="Numba is not installed")
    from xpnet.backends.numba.elementwise import CURVE
    from xpnet.backends.numba.kernels import curves
    from xpnet.backends.numba.normalization import FLOOR
    assert {*curves.NUMBERS, *CURVE, *FLOOR} - {None} <= ACTIVATIONS.keys()
