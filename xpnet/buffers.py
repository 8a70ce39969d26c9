"""The flat arrays that parameters, their gradients and the state of layers live in."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import real_array
from xpnet.dlpack import own_array
from xpnet.initializers import Initializer, generator

Array = Any
Shape = tuple[int, ...]

ALIGNMENT = 256         # bytes; every view starts on a full memory transaction


def copy_in(who: str, name: str, array: Array | None, value: Any, backend: Backend | None) -> None:
    """array[...] = value, for an assignment to the attribute `name`.

    The array is a view that others share, so it must not be replaced.
    """
    if value is array:                  # p.data += x has changed it already, and assigns it
        return
    if array is None or backend is None:
        raise ValueError(f"{who}: expected an assignment to {name} once there is such an array. "
                         f"Received: {type(value).__name__}, before a network or `initialize` made "
                         "one, or for a state, which has no grad.")
    value = own_array(value, f"{who}: {name}", backend)
    if not hasattr(value, "__cuda_array_interface__"):
        value = real_array(value, f"{who}: {name}")
    if value.shape != array.shape:
        raise ValueError(f"{who}: expected {name} of shape {array.shape}. Received: shape "
                         f"{value.shape}.")
    with backend.scope():
        array[...] = backend.asarray(value, array.dtype)


class Parameter:
    """An array that a layer declares.

    `data` is what the layer computes with, `grad` its gradient (None for a state). Both are views
    of flat arrays. An assignment, p.data = values, copies the values into the view.
    """

    def __init__(self, name: str, shape: Shape, init: Initializer, fan_in: int, fan_out: int,
                 decay: bool, units: int = 1) -> None:
        self.name, self.shape, self.init = name, shape, init
        self.fan_in, self.fan_out, self.decay = fan_in, fan_out, decay
        self.units = units              # how many axes say which unit a weight leads to
        self.backend: Backend | None = None
        self.data: Array = None
        self.grad: Array = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("data", "grad") and name in vars(self):
            copy_in(f"Parameter {self.name!r}", name, vars(self)[name], value, self.backend)
        else:
            super().__setattr__(name, value)

    def place(self, backend: Backend, data: Array, grad: Array = None) -> None:
        """Make these views the parameter's arrays."""
        vars(self).update(backend=backend, data=data, grad=grad)

    def __repr__(self) -> str:
        return f"<Parameter {self.name} of shape {self.shape}>"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def draw(self, seed: int, full_name: str) -> np.ndarray:
        """Initial values on the host, the same for every backend."""
        return self.init(generator(seed, full_name), self.shape, self.fan_in, self.fan_out)


class Owner(Protocol):
    """What the buffers need to know of a layer."""

    parameters: list[Parameter]
    states: list[Parameter]

    @property
    def who(self) -> str: ...
    @property
    def trainable(self) -> bool: ...
    @property
    def lr_scale(self) -> float: ...


Part = tuple[int, int, Any]     # start, stop, the first layer


class Buffers:
    """Three flat arrays: the parameters, their gradients and the state of some layers.

    The layers get views of them. Weights that decay come first, so that an optimizer step, a clip
    or a checkpoint is one operation on one array.

    Args:
        layers: the layers by their names, in the order in which their arrays are placed.
        values: arrays to begin with instead of initial values, by full names ("conv1.W").
    """

    def __init__(self, layers: Mapping[str, Owner], backend: Backend, dtype: Any, seed: int,
                 values: Mapping[str, np.ndarray] | None = None) -> None:
        self.backend, self.dtype = backend, np.dtype(dtype)
        self.layers: list[Owner] = list(layers.values())
        pairs = [(layer, p) for layer in self.layers for p in layer.parameters]
        self.placed = [pair for pair in pairs if pair[1].decay]
        self.placed += [pair for pair in pairs if not pair[1].decay]
        self.offsets, sizes = self._offsets([p for _, p in self.placed])
        self.decayed = sum(sizes[:sum(p.decay for _, p in self.placed)])
        states = [p for layer in self.layers for p in layer.states]
        self.state_offsets, state_sizes = self._offsets(states)

        self.arrays = {f"{name}.{p.name}": p for name, layer in layers.items()
                       for p in layer.parameters}
        self.arrays |= {f"{name}.{p.name}": p for name, layer in layers.items()
                        for p in layer.states}
        self._expect_memory(sum(sizes), sum(state_sizes))
        try:
            self._allocate(sum(sizes), sum(state_sizes), states, seed, values or {})
        except MemoryError as error:
            raise self._too_large(sum(sizes), sum(state_sizes)) from error

    def _allocate(self, size: int, state_size: int, states: list[Parameter], seed: int,
                  values: Mapping[str, np.ndarray]) -> None:
        backend = self.backend
        self.parameters = backend.zeros((size,), self.dtype)
        self.grads = backend.zeros((size,), self.dtype)
        self.state = backend.zeros((state_size,), self.dtype)
        with backend.scope():
            for (_, p), offset in zip(self.placed, self.offsets, strict=True):
                part = slice(offset, offset + p.size)
                p.place(backend, self.parameters[part].reshape(p.shape),
                        self.grads[part].reshape(p.shape))
            for p, offset in zip(states, self.state_offsets, strict=True):
                p.place(backend, self.state[offset:offset + p.size].reshape(p.shape))
            for name, p in self.arrays.items():
                value = values[name] if name in values else p.draw(seed, name)
                p.data[...] = backend.asarray(value, self.dtype)

    def _expect_memory(self, size: int, state_size: int) -> None:
        """MemoryError if parameters and state cannot fit into the machine's memory.

        Systems promise more memory than they have.
        """
        memory = _machine_memory() if self.backend.xp is np else None
        if memory is not None and (size + state_size) * self.dtype.itemsize > memory:
            raise self._too_large(size, state_size)

    def _too_large(self, size: int, state_size: int) -> MemoryError:
        layer, largest = max(((layer, p) for layer in self.layers
                              for p in layer.parameters + layer.states),
                             key=lambda pair: pair[1].size)
        gib = self.dtype.itemsize / 2**30
        return MemoryError(f"{layer.who}: expected parameters and state that fit into the memory "
                           f"of {self.backend.name}. Received: {(size + state_size) * gib:,.1f} "
                           f"GiB, {largest.size * gib:,.1f} GiB of them {largest.name} of shape "
                           f"{largest.shape}.")

    def _offsets(self, parameters: Sequence[Parameter]) -> tuple[list[int], list[int]]:
        """Where each view starts, and its number of elements with the gap that aligns the next."""
        unit = ALIGNMENT // self.dtype.itemsize
        sizes = [-(-p.size // unit) * unit for p in parameters]
        return list(accumulate(sizes, initial=0))[:-1], sizes

    def trained(self, steps: Mapping[Any, int]) -> list[Part]:
        """The contiguous parts (start, stop, layer) of the flat buffers that may be trained.

        Frozen layers are left out. All layers of a part have the same number of `steps` behind
        them and the same factor of the learning rate; `layer` is the first of them.
        """
        stops = [*self.offsets, self.parameters.size][1:]
        parts: list[Part] = []
        for (layer, _), start, stop in zip(self.placed, self.offsets, stops, strict=True):
            if not layer.trainable:
                continue
            if parts and parts[-1][1] == start and _alike(parts[-1][2], layer, steps):
                start, _, layer = parts.pop()
            parts.append((start, stop, layer))
        return parts


def _alike(a: Owner, b: Owner, steps: Mapping[Any, int]) -> bool:
    """Whether one update of a rule can serve both layers."""
    return steps[a] == steps[b] and a.lr_scale == b.lr_scale


def _machine_memory() -> int | None:
    """Bytes of memory that the machine has; None if the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
