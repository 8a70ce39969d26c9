"""With `np.seterr(all="raise")`, underflow to 0 raises nothing in the library; no other error is
silenced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_cases import CASES
from loss_cases import CASES as LOSSES
from loss_cases import TARGET, Y
from nets import blobs, small
from optimizer_cases import OPTIMIZERS
from skips import NO_NUMBA
from tiers import first, full

import xpnet as xn
from xpnet import functional

# Factors of the inputs for which squares, or products of squares, underflow.
TINY = {"float32": (1.0, 1e-20, 1e-36), "float64": (1.0, 1e-160, 1e-300)}


@pytest.fixture(autouse=True)
def every_error_raises():
    with np.errstate(all="raise"):
        yield


def underflows(call: Any) -> bool:
    try:
        call()
    except FloatingPointError as error:
        return "underflow" in str(error)
    return False


def test_the_setting_is_on():
    assert underflows(lambda: np.exp(np.float32(-1000)))
    with pytest.raises(FloatingPointError, match="overflow"):
        np.exp(np.float32(1000))


@pytest.mark.parametrize("dtype", first(TINY, "float32"))
@pytest.mark.parametrize("case", [
    pytest.param(case, marks=full) if case.label.startswith(("GRU", "LSTM")) else case
    for case in CASES if "Embedding" not in case.label], ids=str)      # each compiles for seconds
def test_layers(case, dtype, backend):
    """Tiny and large inputs. (Those of Embedding are tokens.)"""
    for scale in (*TINY[dtype], 30.0):
        layer = case.layer(backend, dtype)
        with np.errstate(under="ignore"):
            xs = [backend.asarray((x * scale).astype(dtype)) for x in case.inputs("float64")]
        y = layer.forward(*xs, mode=xn.TRAIN)
        layer.backward(y)
        layer.update(xn.Adam())
        layer.forward(*xs)


@pytest.mark.parametrize("name", first(OPTIMIZERS, "Adam", "Adadelta", "SGD"))
@pytest.mark.parametrize("dtype", TINY)
def test_training(dtype, name, backend):
    """Logits that are far apart, and vanishing gradients."""
    x, y = blobs()
    for scale in (*TINY[dtype], 1e3):
        with np.errstate(under="ignore"):
            samples = (x * scale).astype(dtype)
        net = small(backend, dtype=dtype)
        net.fit(samples, y, loss="cross_entropy", optimizer=OPTIMIZERS[name](), verbose=False,
                validation=(x, y))
        net.predict(x), net(x), net.predict_samples(x, 2)


@pytest.mark.parametrize("case", LOSSES.values(), ids=LOSSES)
def test_losses(case, backend):
    y = Y[case.y].astype(np.float32)
    net = xn.Sequential([xn.Identity()], input_shape=y.shape[1:], backend=backend)
    for scale in (1.0, 1e-30, 10.0 if case.y in ("numbers", "map") else 0.1):
        net.evaluate(y * np.float32(scale), TARGET[case.target], loss=case.loss)


@pytest.mark.parametrize("name", ["numpy", pytest.param("numba", marks=NO_NUMBA)])
def test_functions(name):
    x = np.full((2, 3, 5, 5), 1e-30, np.float32)
    W = np.full((4, 3, 3, 3), 1e-30, np.float32)
    functional.conv2d(x, W, backend=name)
    functional.batch_norm(x, np.ones(3, np.float32), np.zeros(3, np.float32), backend=name)


def test_what_is_computed_on_the_host():
    images = np.full((2, 12, 12), 1e-200)
    assert np.isfinite(xn.metrics.ssim(images, images / 2, sigma=0.1))
    assert np.isfinite(xn.metrics.psnr(images, images + 0.5))
    xn.SubtractiveNorm2d(31, sigma=0.1).initialize((1, 8, 8))
    xn.GaussianPool2d(31, sigma=0.1, padding="half").initialize((1, 8, 8))
    net = xn.Sequential([xn.Linear(3, bias=False), xn.BatchNorm1d(), xn.Whitening(eps=1e-9)],
                        input_shape=(2,), backend="numpy")
    net.layers[2].fit(1e-200 * np.random.default_rng(0).random((9, 3)))
    net.layers[0].W.data[...] = 1e-38
    net.layers[1].gamma.data[...] = 1e-38
    net.folded()


def test_other_errors_are_not_silenced():
    net = xn.Sequential([xn.Linear(2)], input_shape=(2,), backend="numpy")
    net.layers[0].W.data[...] = 1e30
    with pytest.raises(FloatingPointError, match="overflow"):
        net.predict(np.full((3, 2), 1e30, np.float32))
