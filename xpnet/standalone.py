"""A layer without a network: it has its own arrays, and checks what it is called with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends import Backend, get_backend
from xpnet.buffers import Array, Buffers, Shape
from xpnet.checks import (
    PREDICT,
    SAMPLE,
    TRAIN,
    expect_choice,
    expect_dtype,
    expect_no_mask,
    expect_seed,
    wrong,
)

if TYPE_CHECKING:
    from xpnet.layer import Layer


def initialize(layer: Layer, in_shapes: Sequence[Shape], backend: str | Backend, dtype: Any,
               seed: int) -> None:
    """Build a layer and allocate its parameters; from then on its forward and backward are checked.

    In a network the network checks what comes in.
    """
    dtype, seed = expect_dtype(layer.who, dtype), expect_seed(layer.who, seed)
    if "parameters" in vars(layer) and layer.built:
        raise ValueError(f"{layer.who}: expected a layer that is not in use. Received: a layer "
                         "that is built already.")
    layer.connect(*in_shapes)
    layer.name = layer.name or layer.kind
    backend = get_backend(backend)
    layer.buffers = Buffers({layer.name: layer}, backend, dtype, seed)
    with backend.scope():
        layer.bind(backend, seed, backend.zeros((2,), np.uint64))
    layer.enter(0)
    vars(layer).update(forward=partial(_forward, layer), backward=partial(_backward, layer))


def _forward(layer: Layer, *xs: Array, mode: str = PREDICT) -> Array:
    expect_arrays(layer, xs, layer.in_shapes)
    mode = expect_choice(layer.who, "mode", mode, (PREDICT, TRAIN, SAMPLE))
    with layer.backend.scope():
        return type(layer).forward(layer, *xs, mode=mode)


def _backward(layer: Layer, dy: Array, accumulate: bool = False) -> Any:
    expect_arrays(layer, (dy,), (layer.out_shape,))
    with layer.backend.scope():
        return type(layer).backward(layer, dy, accumulate)


def expect_arrays(layer: Layer, arrays: Sequence[Array], shapes: Sequence[Shape]) -> None:
    """ValueError if these are not arrays (*shape, N) of the layer's dtype, one for each shape."""
    for a in arrays:
        expect_no_mask(layer.who, a)
    dtype = layer.buffers.dtype
    if len(arrays) == len(shapes) and all(
            hasattr(a, "dtype") and a.shape[:-1] == shape and a.ndim == len(shape) + 1
            and a.dtype == dtype for a, shape in zip(arrays, shapes)):
        return
    expected = [f"({', '.join(map(str, shape))}, N) of {dtype}" for shape in shapes]
    received = [f"{tuple(a.shape)} of {a.dtype}" if hasattr(a, "dtype") else type(a).__name__
                for a in arrays]
    few = received[:4] + [f"{len(received) - 4} more"] * (len(received) > 4)
    raise ValueError(f"{layer.who}: expected batch-last arrays, {' and '.join(expected)}. "
                     f"Received: {' and '.join(few) or 'nothing'}.")


def update(layer: Layer, optimizer: Any) -> None:
    """One step of an optimizer on the layer's own parameters."""
    if layer.updater is None or layer.updater.optimizer is not optimizer:
        if not callable(getattr(optimizer, "updater", None)):
            raise TypeError(str(wrong(layer.who, "optimizer to be an Optimizer, e.g. Adam(1e-3)",
                                      "optimizer", optimizer)))
        layer.updater = optimizer.updater(layer.buffers)
    with layer.backend.scope():
        layer.updater.step()
    layer.counters[0] += layer.counters.dtype.type(1)   # the next forward drops other elements
