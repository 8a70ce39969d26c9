"""Array backends: the handle that layers are written against. `get_backend` makes one; nothing here knows layers."""

from __future__ import annotations

from xpnet.backends.arguments import TF32, expect_choice, expect_flag, shown
from xpnet.backends.base import Backend
from xpnet.backends.errors import BackendError
from xpnet.backends.window import Window

__all__ = ["Backend", "BackendError", "Window", "available", "get_backend"]

def get_backend(name: str | Backend = "auto", *, tf32: str = "convolutions", autotune: bool = False) -> Backend:
    """The backend called `name`: "numpy", "numba", "cupy" (the first GPU), "cupy:1" (the second) or "auto".

    "auto" takes a GPU where one can be used, else Numba where it is installed, else NumPy, and keeps the reason in
    `backend.note`. A named backend that cannot be used is a BackendError. A Backend is returned as it is.
    On a GPU, `tf32` says where float32 operands are rounded to TF32: "never", in "convolutions", or "always". With autotune it
    measures which of its ways is the fastest for each new shape, and remembers it; another way gives other bits. CPUs
    keep all digits and have one way only.
    """
    tf32 = expect_choice("get_backend", "tf32", tf32, TF32)
    autotune = expect_flag("get_backend", "autotune", autotune)
    if isinstance(name, Backend):
        return name
    kind, _, device = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind == "auto" and not device:
        reasons: list[str] = []
        for make in (lambda note: _cupy(0, note, tf32, autotune), _numba):
            try:
                return make(", because ".join(['chosen by "auto"', *reasons]))
            except BackendError as error:
                reasons.append(error.reason)
        return _numpy(f'chosen by "auto", because {"; ".join(reasons)}')
    try:
        if kind == "numpy" and not device:
            return _numpy()
        if kind == "numba" and not device:
            return _numba()
        if kind == "cupy" and (device.isdecimal() and len(device) < 10 or name == "cupy"):
            return _cupy(int(device or 0), tf32=tf32, autotune=autotune)
    except BackendError as error:       # its reason says what the tracebacks below it would
        raise error.with_traceback(None) from None
    raise ValueError(f'get_backend: expected "auto", "numpy", "numba", "cupy" or "cupy:DEVICE". Received: {shown(name)}.')


def available() -> list[str]:
    """Names of the backends that can be used here, one for each GPU."""
    names = ["numpy"]
    try:
        _numba()
        names.append("numba")
    except BackendError:
        pass
    try:
        _cupy(0)
    except BackendError:
        return names
    from xpnet.backends.cupy.backend import device_count
    return names + [f"cupy:{device}" for device in range(device_count())]


def _numpy(note: str = "") -> Backend:
    from xpnet.backends.numpy.backend import NumpyBackend
    return NumpyBackend(note=note)


def _numba(note: str = "") -> Backend:
    try:
        from xpnet.backends.numba.backend import NumbaBackend
    except ImportError as error:
        raise BackendError(f"numba: Numba cannot be imported ({error})", "Install it: pip install 'xpnet[fast]'") from error
    return NumbaBackend(note=note)


def _cupy(device: int, note: str = "", tf32: str = "convolutions", autotune: bool = False) -> Backend:
    from xpnet.backends.cupy.backend import CupyBackend
    return CupyBackend(device, note=note, tf32=tf32, autotune=autotune)
