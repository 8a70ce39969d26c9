"""Arrays of other libraries, by DLPack: the same memory, never written to, on the right device."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import Exported
from fake_cupy import FakeCupy, installed
from gpu_cases import learned, network, samples
from nets import blobs, same, small, values

import xpnet as xn
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.dlpack import host_array, own_array

X, Y = blobs(40)
SETTINGS: dict[str, Any] = {"loss": "cross_entropy", "batch_size": 16, "verbose": False}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_they_train_and_predict_like_numpy_arrays(dtype, plain_backend):
    """Samples, targets, weights, validation; the bits are those of NumPy arrays."""
    results = []
    for make in (np.array, lambda a: Exported(np.array(a))):
        net = small(plain_backend, dtype=dtype)
        x, y, weight = make(X), make(Y), make(np.linspace(0.5, 2, 40))
        history = net.fit(x, y, sample_weight=weight, validation=(x, y), **SETTINGS)
        net.fit(x, y, validation=0.25, class_weight="balanced", **SETTINGS)
        figures = net.evaluate(x, y, metrics={"hits": lambda a, b: (a.argmax(1) == b).sum()})
        results.append((values(net), history["val_loss"], figures, net.predict(x).tobytes(),
                        net.predict_proba(x).tobytes(), plain_backend.to_numpy(net(x)).tobytes(),
                        net.input_gradient(x, y).tobytes(),
                        net.predict_samples(x, 3)[0].tobytes()))
    assert same(results[0][0], results[1][0]) and results[0][1:] == results[1][1:]


def test_the_memory_is_shared_and_not_written_to():
    x, y = X.copy(), Y.copy()
    net = small()
    assert np.shares_memory(net.check_inputs(Exported(x))[0], x)
    net.fit(Exported(x), Exported(y), shuffle=False, **SETTINGS)
    assert np.array_equal(x, X) and np.array_equal(y, Y)


def test_several_inputs():
    a, b = xn.Input((2,)), xn.Input((2,))
    net = xn.Network({"a": a, "b": b}, xn.Linear(1)(xn.Add()(a, b)), backend="numpy")
    y = net.predict({"a": Exported(X), "b": X})
    np.testing.assert_array_equal(y, net.predict({"a": X, "b": Exported(X)}))


def test_parameters_take_them():
    net = small()
    wanted = np.arange(32, dtype=np.float32).reshape(net.layers[0].W.data.shape)
    net.layers[0].W.data = Exported(wanted)
    np.testing.assert_array_equal(net.layers[0].W.data, wanted)


@pytest.mark.parametrize("device, where, remedy", [
    ((2, 1), "CUDA 1", ', or move the network by net.to("cupy")'),
    ((8, 0), "DLPack device 8 0", ""), ((10, 2), "ROCm 2", "")])
def test_another_device_is_refused(device, where, remedy):
    x, y = Exported(X, device), Exported(Y, device)
    net, end = small(), (f"expected an array in the memory of the host, where backend numpy "
                         f"computes; copy it there{remedy}. Received: Exported in the memory of "
                         f"{where}.")
    for who, call in {
            "Network: input": lambda: net.fit(x, Y, **SETTINGS),
            "fit: targets": lambda: net.fit(X, y, **SETTINGS),
            "fit: sample_weight": lambda: net.fit(X, Y, sample_weight=x, **SETTINGS),
            "fit: validation: targets": lambda: net.fit(X, Y, validation=(X, y), **SETTINGS),
            "evaluate: targets": lambda: net.evaluate(X, y, loss="cross_entropy"),
            "Network: parameters": lambda: setattr(net, "parameters", x)}.items():
        with pytest.raises(ValueError, match="^" + re.escape(f"{who}: {end}") + "$"):
            call()
    with pytest.raises(ValueError, match="^" + re.escape(f"Network: input: {end}") + "$"):
        net.predict(x)


def test_what_numpy_does_not_take():
    class Odd(Exported):
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("can't export tensors that require gradient")

    with pytest.raises(TypeError, match=r"^Network: input: expected an array that "
                                        r"numpy.from_dlpack takes. Received: Odd \(can't export "
                                        r"tensors that require gradient\)\.$"):
        small().predict(Odd(X))
    with pytest.raises(TypeError, match="expected real numbers. Received: .* complex"):
        small().predict(Exported(X.astype(np.complex64)))
    with pytest.raises(ValueError, match="expected finite samples"):
        small().fit(Exported(X + np.float32(np.inf)), Y, **SETTINGS)


def test_on_a_gpu(folder: Path):
    """Arrays of its memory are taken as they are, those of the host too; another GPU's are
    refused."""
    x, y = samples(24)
    results = []
    for form in ("numpy", "host", "gpu"):
        with installed(FakeCupy(folder, 2)) as cupy:
            backend = CupyBackend(1, tf32="never")

            def on_gpu(a: np.ndarray, number: int = 1, cupy=cupy) -> Exported:
                with cupy.cuda.Device(number):
                    return Exported(cupy.to_device(a))

            held = {"numpy": lambda a: a, "host": Exported, "gpu": on_gpu}[form]
            net = network(backend)
            given = held(x)
            if form == "gpu":
                assert own_array(given, "test", backend) is given.array
                assert np.array_equal(host_array(given, "test", backend), x)
            else:
                assert np.shares_memory(own_array(given, "test", backend), x)
            history = net.fit(given, held(y), optimizer=xn.SGD(0.1), loss="cross_entropy",
                              batch_size=8, validation=(given, held(y)), verbose=False)
            results.append((learned(net), history["loss"], history["val_loss"],
                            net.predict(given).tobytes()))
            with pytest.raises(ValueError, match=re.escape(
                    "Network: input: expected an array in the memory of CUDA, where backend "
                    "cupy:1 computes; copy it there. Received: Exported in the memory of CUDA 0.")):
                net.predict(on_gpu(x, 0))
    for result in results[1:]:
        assert same(result[0], results[0][0]) and result[1:] == results[0][1:]
