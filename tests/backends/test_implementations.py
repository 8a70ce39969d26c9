"""Which implementation of a backend's methods ran: `trace` counts them, and every one of them is
tested."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cpu_cases import LARGE
from parity import normal, run
from parity_cases import CASES

from xpnet.backends import Backend, Window, get_backend
from xpnet.backends.numpy.backend import NumpyBackend
from xpnet.backends.tracing import computing_methods, implementations, trace
from xpnet.layer import Layer
from xpnet.layers import Conv2d, ReLU
from xpnet.losses import CrossEntropy
from xpnet.testing import check_loss_precision, check_precision

# --- the tables of the CPU backends ---------------------------------------------------------------

@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_the_tables_reach_every_override_and_every_kernel(
        name: str, monkeypatch: pytest.MonkeyPatch):
    """An override or a Numba kernel that no call of the tables reaches would not be tested."""
    called = called_kernels(monkeypatch) if name == "numba" else set()
    backend = get_backend(name)
    own = {version for version in implementations(type(backend)).values() if version[1] == name}
    with trace(backend) as ran:
        for case in CASES + LARGE:
            if case.method in computing_methods():
                run(case, backend)
    assert len(own) > 10 and own - ran.keys() == set()
    if name == "numba":
        assert {kernel.compiled.__name__ for kernel in kernels() if kernel not in called} == set()


def called_kernels(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """The set of Numba kernels that are called from now on."""
    pytest.importorskip("numba", reason="Numba is not installed")
    from xpnet.backends.numba.kernels.jit import Kernel
    called, call = set(), Kernel.__call__

    def counted(self: Kernel, *args: Any) -> Any:
        called.add(self)
        return call(self, *args)

    monkeypatch.setattr(Kernel, "__call__", counted)
    return called


def kernels() -> Iterator[Any]:
    """All kernels of Numba."""
    from xpnet.backends.numba.kernels.jit import Kernel
    for name, module in list(sys.modules.items()):
        if name.startswith("xpnet.backends.numba.kernels."):
            yield from (value for value in vars(module).values() if isinstance(value, Kernel))


# --- trace ----------------------------------------------------------------------------------------

def test_a_call_counts_for_the_implementation_that_computes_it():
    """A float32 product runs a kernel; a float64 product goes to NumPy, and softmax_dx to the
    reference."""
    pytest.importorskip("numba", reason="Numba is not installed")
    backend = get_backend("numba")
    a, b = normal(3, 4), normal(4, 5)
    with trace(backend) as ran:
        backend.gemm(a, b)
        backend.gemm(a.astype(float), b.astype(float))
        backend.gemm(a, b, activation="tanh")
        backend.softmax_dx(a, a)
        get_backend("numpy").gemm(a, b)                     # a call of another backend
    assert ran == {("gemm", "numba"): 2, ("gemm", "numpy"): 1, ("activate", "numpy"): 1,
                   ("softmax_dx", "plain"): 1}


def test_the_reference_counts_as_plain_and_activate_without_an_activation_does_not_count():
    backend = Backend()
    with trace(backend) as ran:
        backend.conv2d(normal(2, 5, 5, 3), normal(4, 2, 3, 3), Window.make(3))
    assert ran == {("conv2d", "plain"): 1, ("im2col", "plain"): 1, ("gemm", "plain"): 1}


def test_after_an_error_the_profiler_is_restored():
    before = sys.getprofile()
    with pytest.raises(ValueError), trace(NumpyBackend()):
        NumpyBackend().gemm(normal(3, 4), normal(3, 4))
    assert sys.getprofile() is before


# --- precision ------------------------------------------------------------------------------------

class Doubled(NumpyBackend):
    """Right in float64, and wrong in the fifth digit of a float32 gradient."""

    def conv2d_dW(self, x, dy, window, *, groups=1, out=None, accumulate=False):
        dW = super().conv2d_dW(x, dy, window, groups=groups, out=out, accumulate=accumulate)
        if dW.dtype == np.float32:
            dW[0] *= 1.0001
        return dW


def test_precision_finds_a_wrong_float32_gradient():
    layer = Conv2d(4, 3)
    assert 0 < check_precision(layer, (2, 6, 5), backend="numpy") < 1e-6
    assert check_precision(layer, (2, 6, 5), backend=Doubled(), dtype="float64") < 1e-12
    with pytest.raises(AssertionError,
                       match=r"^check_precision: Conv2d: expected dW within 1e-05 of the float64 "
                             r"reference\. Received: a relative error of \d\.\de-05\.$"):
        check_precision(layer, (2, 6, 5), backend=Doubled())
    assert not layer.built


def test_precision_with_inputs_and_a_tolerance():
    x = normal(3, 7)
    x.flags.writeable = False
    assert check_precision(ReLU(), (3,), backend="numpy", inputs=(x,)) == 0
    assert check_precision(Conv2d(4, 3), (2, 6, 5), backend=Doubled(), tolerance=1e-3,
                           batch=1) > 1e-5


def test_precision_finds_another_type():
    class Wide(Layer):
        """Y = X, in float64 for every input."""

        def build(self, in_shape):
            return in_shape

        def forward(self, x, mode="predict"):
            self.remember(mode)
            return x.astype(np.float64)

        def backward(self, dy, accumulate=False):
            self.recall()
            return dy

    with pytest.raises(AssertionError,
                       match=r"expected y of float32 \(3, 3\)\. Received: float64 \(3, 3\)\.$"):
        check_precision(Wide(), (3,), backend="numpy")


def test_precision_of_a_loss():
    class Doubtful(CrossEntropy):
        """A gradient that is wrong in float32."""

        def __call__(self, backend, y, target):
            loss, dy = super().__call__(backend, y, target)
            return loss, dy * np.float32(1.001) if y.dtype == np.float32 else dy

    labels = np.array([0, 2, 1, 2])
    assert check_loss_precision(CrossEntropy(), (3,), labels, backend="numpy") < 1e-6
    with pytest.raises(AssertionError,
                       match="^check_loss_precision: Doubtful: expected dy within 1e-05 "):
        check_loss_precision(Doubtful(), (3,), labels, backend="numpy")
