"""Training on a real GPU: captured steps against steps that are not, samples that travel against
samples that lie there, and a loss curve against NumPy's. What these tests do is what
test_capture.py and test_input_pipeline.py do on a pretended GPU; that CUDA takes it is seen only
here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu import gpu_or_skip, skip_module_without_gpu
from gpu_cases import ByCublas, FromTheHost, Looking, Waiting, learned, network, samples
from nets import same
from parity import distance

import xpnet as xn
from xpnet import models
from xpnet.backends import Backend

pytestmark = pytest.mark.gpu
skip_module_without_gpu()
QUIET: dict[str, Any] = {"loss": "cross_entropy", "verbose": False}


@pytest.fixture(scope="module")
def gpu() -> Backend:
    return gpu_or_skip()


def fitted(gpu: Backend, capture: bool, count: int = 400,
           **settings: Any) -> tuple[dict[str, np.ndarray], list[Any]]:
    given = QUIET | {"optimizer": xn.Adam(1e-2), "epochs": 4, "batch_size": 8} | settings
    net = network(gpu)
    history = net.fit(*samples(count), capture=capture, validation=samples(99, seed=1), **given)
    assert net.step is not None and net.step.capture == capture       # capturing did not fail
    return (learned(net) | {"predicted": net.predict(samples(300, seed=2)[0])},
            history["loss"] + history["val_loss"])


@pytest.mark.parametrize("settings", [
    {}, {"count": 403, "schedule": "one_cycle"},
    {"optimizer": xn.SGD(0.05, momentum=0.9, nesterov=True)},
    {"optimizer": xn.AdamW(1e-2), "shuffle": False},
    {"optimizer": xn.Regularized(xn.RMSprop(1e-3, momentum=0.5, centered=True, eps=1e-3), l1=1e-4,
                                 clip_value=0.5, clip_norm=1.0, max_norm=2.0),
     "schedule": xn.ReduceOnPlateau(patience=0)},
], ids=["adam", "short last batch, one cycle", "nesterov", "adamw", "regularized"])
def test_captured_steps_have_the_same_bits(settings: dict[str, Any], gpu: Backend):
    eager, captured = fitted(gpu, False, **settings), fitted(gpu, True, **settings)
    assert same(captured[0], eager[0]) and captured[1] == eager[1]
    again = fitted(gpu, True, **settings)
    assert same(again[0], captured[0])


MODELS: dict[str, tuple[Callable[..., xn.Network], tuple[int, ...], int]] = {
    "numpy_cnn": (models.numpy_cnn, (1, 28, 28), 10), "bilici": (models.bilici, (1, 28, 28), 10),
    "lenet5": (models.lenet5, (1, 32, 32), 10), "lecun1989": (models.lecun1989, (1, 16, 16), 1),
    "resnet18": (models.resnet18, (3, 32, 32), 10)}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_captured(name: str, gpu: Backend):
    make, shape, classes = MODELS[name]
    rng = np.random.default_rng(0)
    x, y = rng.random((64, *shape), np.float32), rng.integers(0, classes, 64)
    targets: Any = (rng.random(64), "half_squared_error") if classes == 1 else (y, "cross_entropy")
    found = []
    for capture in (False, True):
        net = make(shape, backend=gpu)
        history = net.fit(x, targets[0], loss=targets[1], optimizer=xn.SGD(1e-3), epochs=2,
                          batch_size=8, capture=capture, verbose=False)
        assert net.step is not None and net.step.capture == capture
        found.append((learned(net), history["loss"]))
    assert same(found[0][0], found[1][0]) and found[0][1] == found[1][1]


@pytest.mark.parametrize("loss", [FromTheHost(), ByCublas(), Waiting(), Looking()],
                         ids=lambda loss: type(loss).__name__)
def test_what_cannot_be_captured_falls_back(loss: xn.Loss, gpu: Backend):
    net, control = network(gpu), network(gpu)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net.fit(*samples(), loss=loss, optimizer=xn.Adam(1e-2), batch_size=4, epochs=3,
                verbose=False)
    assert [str(w.message)[:46] for w in caught] == ["TrainStep: the step could not be captured "
                                                     "and "]
    control.fit(*samples(), loss=loss, optimizer=xn.Adam(1e-2), batch_size=4, epochs=3,
                verbose=False, capture=False)
    assert same(learned(net), learned(control))
    fitted(gpu, True)                           # nothing is left of the failure


def test_samples_that_do_not_fit_train_the_same(gpu: Backend, monkeypatch: pytest.MonkeyPatch):
    there = fitted(gpu, True, count=2003)
    monkeypatch.setattr("xpnet.backends.cupy.batches.SHARE", 0.0)
    assert type(gpu.feed(samples()[0], np.float32, 8)).__name__ == "HostFeed"
    for _ in range(5):                          # a race would not show each time
        travelling = fitted(gpu, True, count=2003)
        assert same(travelling[0], there[0]) and travelling[1] == there[1]


def test_a_large_batch_through_the_ring(gpu: Backend, monkeypatch: pytest.MonkeyPatch):
    """Copies that take long: 12 MB each, read at once."""
    monkeypatch.setattr("xpnet.backends.cupy.batches.SHARE", 0.0)
    x = np.random.default_rng(0).integers(0, 256, (4096, 3, 32, 32)).astype(np.float32)
    with gpu.stream():
        feed = gpu.feed(x, np.float32, 1024)
        order = np.random.default_rng(1).permutation(4096)
        feed.arrange(order)
        batches = [feed.batch(k % 4 * 1024, k % 4 * 1024 + 1024) for k in range(20)]
        for k, batch in enumerate(batches):
            right = np.moveaxis(x[order[k % 4 * 1024:k % 4 * 1024 + 1024]], 0, -1)
            assert np.array_equal(gpu.to_numpy(batch), right)


def test_streams_of_the_user(gpu: Backend):
    """What was computed on another stream just before is there in time, and what a step computes is
    there after it."""
    xp = gpu.xp
    x, y = samples(64)
    with xp.cuda.Stream(non_blocking=True):
        there = xp.asarray(np.repeat(x, 4096, axis=0))
        for _ in range(20):
            there = there + xp.uint8(1)         # keeps the stream busy
        net = network(gpu)
        net.fit(there[::4096], y, **QUIET, optimizer=xn.Adam(1e-2), epochs=4, batch_size=8)
        found = learned(net)
        step = xn.TrainStep(net, xn.CrossEntropy(), xn.SGD(0.0))
        before = net.counters.copy()
        for _ in range(10):
            step(net.batch_last(x), gpu.asarray(y))
        assert gpu.to_numpy(net.counters - before).tolist() == [10, 0]
    control = network(gpu)
    control.fit(x + np.uint8(20), y, **QUIET, optimizer=xn.Adam(1e-2), epochs=4, batch_size=8,
                capture=False)
    assert same(found, learned(control))


def test_the_loss_curve_is_numpys(gpu: Backend):
    """Twenty epochs of 50 steps with dropout, batch norm and Adam: NumPy's float32 and float64 end
    2e-6 apart."""
    curves = []
    for backend in (gpu, "numpy"):
        net = network(backend)
        history = net.fit(*samples(400), **QUIET, optimizer=xn.Adam(1e-3), epochs=20, batch_size=8)
        curves.append((np.array(history["loss"]), net.predict(samples(50, seed=1)[0])))
    (gpu_curve, gpu_output), (numpy_curve, numpy_output) = curves
    assert numpy_curve[-1] < 0.7 * numpy_curve[0]
    np.testing.assert_allclose(gpu_curve, numpy_curve, rtol=1e-3)
    assert distance(gpu_output, numpy_output) < 1e-2
