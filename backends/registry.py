"""Backends by name: the built-in ones, and those that users register."""

from __future__ import annotations

from collections.abc import Callable

from xpnet.backends.arguments import TF32, expect_choice, expect_flag, nearest, shown, wrong
from xpnet.backends.base import Backend
from xpnet.backends.errors import BackendError

BUILT_IN = ("numpy", "numba", "cupy")

_registered: dict[str, Callable[[], Backend]] = {}


def get_backend(name: str | Backend = "auto", *, tf32: str = "convolutions", autotune: bool = False
                ) -> Backend:
    """The backend called `name`; a Backend is returned as it is.

    Args:
        name: "numpy", "numba", "cupy" (the first GPU), "cupy:1" (the second), a registered name, or
            "auto": a GPU if one can be used, else Numba if it is installed, else NumPy.
            `backend.note` says why "auto" could not use the others.
        tf32: when a GPU rounds float32 operands to TF32: "never", in "convolutions", or "always".
            CPUs never do.
        autotune: whether a GPU measures which of several alternatives is fastest for each new
            shape, and remembers it. Alternatives differ in the last bits of their results.

    Raises BackendError if the named backend cannot be used here, ValueError for an unknown name.
    """
    tf32 = expect_choice("get_backend", "tf32", tf32, TF32)
    autotune = expect_flag("get_backend", "autotune", autotune)
    if isinstance(name, Backend):
        return name
    try:
        if not isinstance(name, str):
            raise wrong("get_backend", "name to be a string or a Backend", "name", name)
        if name == "auto":
            return _auto(tf32, autotune)
        if name == "numpy":
            return _numpy()
        if name == "numba":
            return _numba()
        device = _device(name)
        if device is not None:
            return _cupy(device, tf32=tf32, autotune=autotune)
        if name in _registered:
            return _own(name)
    except BackendError as error:       # the reason says as much as the traceback
        raise error.with_traceback(None) from None
    near = nearest(name, ["auto", *BUILT_IN, *_registered])
    raise ValueError(f'get_backend: expected "auto", "numpy", "numba", "cupy" or "cupy:DEVICE"'
                     f"{''.join(f', or {one!r}' for one in _registered)}"
                     f"{f', perhaps {near!r}' if near else ''}. Received: {shown(name)}.")


def register(name: str, factory: Callable[[], Backend]) -> None:
    """Make `get_backend(name)` return factory(), for your own backend.

    The backend gets the attribute `name`, by which a network on it is pickled: a process that reads
    the network has to register the name too. `available` lists the backend if the factory returns
    one; a factory raises BackendError if the backend cannot be used on this machine.

    Args:
        name: a string without ":".
        factory: a function without arguments that returns a new Backend, e.g. its class.

    Raises ValueError for a name that is taken or contains ":", TypeError for a factory that is not
    callable.
    """
    if not isinstance(name, str) or not name or ":" in name:
        raise wrong("register", 'name to be a string that is not empty, without ":"', "name", name)
    if name in ("auto", *BUILT_IN, *_registered):
        raise ValueError(f"register: expected a name that is not taken. Received: name={name!r}.")
    if not callable(factory):
        raise TypeError(str(wrong("register", "factory to be a function that returns a Backend",
                                  "factory", factory)))
    _registered[name] = factory


def is_name(name: str) -> bool:
    """Whether get_backend knows this name."""
    return name in ("numpy", "numba", *_registered) or _device(name) is not None


def available() -> list[str]:
    """Names of the backends that can be used here. Each GPU has its own."""
    names = ["numpy"]
    for name in ("numba", "cupy", *_registered):
        try:
            get_backend(name)
        except BackendError:
            continue
        names += [name] if name != "cupy" else [f"cupy:{device}" for device in range(_gpus())]
    return names


def _auto(tf32: str, autotune: bool) -> Backend:
    try:
        return _cupy(0, "", tf32, autotune)
    except BackendError as error:
        missing = f"no GPU: {_without_name(error)}"
    try:
        return _numba(missing)
    except BackendError as error:
        return _numpy(f"{missing}; {_without_name(error)}")


def _without_name(error: BackendError) -> str:
    """The reason without the name of the backend in front of it."""
    return error.reason.partition(": ")[2]


def _device(name: object) -> int | None:
    """The number of the GPU in "cupy" or "cupy:DEVICE"; None for other names."""
    kind, colon, device = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind != "cupy" or colon and not (device.isdecimal() and len(device) < 10):
        return None
    return int(device or 0)


def _numpy(note: str = "") -> Backend:
    from xpnet.backends.numpy.backend import NumpyBackend
    return NumpyBackend(note=note)


def _numba(note: str = "") -> Backend:
    try:
        from xpnet.backends.numba.backend import NumbaBackend
    except ImportError as error:
        reason = ("Numba is not installed" if getattr(error, "name", None) == "numba"
                  else f"Numba cannot be imported ({error})")
        raise BackendError(f"numba: {reason}", "Install it: pip install 'xpnet[fast]'") from error
    return NumbaBackend(note=note)


def _cupy(device: int, note: str = "", tf32: str = "convolutions", autotune: bool = False
          ) -> Backend:
    from xpnet.backends.cupy.backend import CupyBackend
    return CupyBackend(device, note=note, tf32=tf32, autotune=autotune)


def _gpus() -> int:
    from xpnet.backends.cupy.backend import device_count
    return device_count()


def _own(name: str) -> Backend:
    backend = _registered[name]()
    if not isinstance(backend, Backend):
        raise TypeError(f"get_backend: expected the factory of {name!r} to return a Backend. "
                        f"Received: {shown(backend)}.")
    backend.name = name
    return backend
