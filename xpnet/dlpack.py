"""Arrays of other libraries, such as PyTorch: by DLPack they are arrays of NumPy or of a backend,
with the same memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.base import Array

# The kinds of DLPack. NumPy also takes memory of the host that CUDA has pinned.
HOST, CUDA = 1, 2
DEVICES = {HOST: "the host", CUDA: "CUDA", 3: "the host", 10: "ROCm", 13: "CUDA managed memory"}


def from_dlpack(a: Any, who: str, xp: Any, because: str) -> Array:
    """The same memory as an array of `xp`, on its current device. Raises ValueError if it is the
    memory of another device.

    `because` is why it has to be that device, and what to do, for the error.
    """
    (kind, number), (own, own_number) = device(a), device(xp.empty(0, np.float32))
    name, own_name = (DEVICES.get(k, f"DLPack device {k}") for k in (kind, own))
    if name != own_name or (name != DEVICES[HOST] and number != own_number):
        raise ValueError(f"{who}: expected an array in the memory of {own_name}, {because}. "
                         f"Received: {type(a).__name__} in the memory of {name} {number}.")
    try:
        return xp.from_dlpack(a)
    except Exception as error:      # a dtype that the array module lacks, an array with gradients
        raise TypeError(f"{who}: expected an array that {xp.__name__}.from_dlpack takes. Received: "
                        f"{type(a).__name__} ({error}).") from error


def device(a: Any) -> tuple[int, int]:
    """(kind, number) of the device of a DLPack array."""
    kind, number = map(int, a.__dlpack_device__())
    return kind, number


def own_array(a: Any, who: str, backend: Backend) -> Any:
    """`a` itself, or, if it is an array of another library, the same memory as an array of the
    backend, or of NumPy if it is memory of the host. Raises ValueError for any other device."""
    xp = backend.xp
    if isinstance(a, np.ndarray | np.generic | xp.ndarray) or not hasattr(a, "__dlpack_device__"):
        return a
    kind, _ = device(a)
    if DEVICES.get(kind) == DEVICES[HOST]:
        return from_dlpack(a, who, np, "")
    remedy = ', or move the network by net.to("cupy")' if kind == CUDA and xp is np else ""
    with backend.scope():
        return from_dlpack(a, who, xp, f"where backend {backend.name} computes; copy it there"
                           + remedy)


def host_array(a: Any, who: str, backend: Backend) -> Any:
    """The same, but an array of a GPU is copied to the host."""
    a = own_array(a, who, backend)
    return backend.to_numpy(a) if hasattr(a, "__cuda_array_interface__") else a
