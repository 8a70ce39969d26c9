"""Activations, softmax and dropout on an NVIDIA GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends import activations
from xpnet.backends.base import Array, Backend
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.rows import (
    accesses,
    add_parts,
    along_array,
    along_rows,
    has_kernels,
    room_for_parts,
)

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


FEW_PIECES = 4          # of losses: one block adds them up about as fast as a second launch starts


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels launched here, by family, as they are passed to the compiler."""
    types = cuda_launch.types_and_extreme_widths()
    functions = [name for activation, name in cuda_launch.ACTIVATIONS.items()
                 if activation is not None]
    return {
        "activation": (
            *(f"activation_forward<{name}, {width}, {function}>" for name, width in types
              for function in functions),
            *(f"{kernel}<{name}, {width}, {function}>" for name, width in types
              for kernel in ("add", "activation_backward")
              for function in cuda_launch.ACTIVATIONS.values()),
            *(f"curve_{way}<{name}, {width}>" for name, width in types
              for way in ("forward", "backward")),
            *(f"add_parts<{name}>" for name in cuda_launch.TYPES.values()),
        ),
        "softmax": (
            *(f"{kernel}<{name}, {width}, {kept}>" for name, width in types
              for kernel in ("softmax", "softmax_backward", "cross_entropy_of_labels",
                             "cross_entropy")
              for kept in ((0,) if width == 1 else (0, cuda_launch.KEPT))),
            *(f"mean_of_losses<{name}>" for name in cuda_launch.TYPES.values()),
        ),
        "dropout": (
            "random_bits",
            *(f"dropout<{name}, {width}>" for name, width in cuda_launch.types_and_widths()),
            *(f"dropout_dx<{name}, {width}>" for name, width in types),
        ),
    }


def has_kernel(activation: str | None) -> bool:
    """Whether there is a kernel for an activation; the others run as plain array code."""
    return activation in cuda_launch.ACTIVATIONS or activation in cuda_launch.curves()


def activate(self: CupyBackend, z: Array, activation: str | None, constants: tuple[float, ...] = ()
             ) -> Array:
    if activation is None or not has_kernel(activation) or not has_kernels(z):
        return Backend.activate(self, z, activation, constants)
    z = self._contiguous(z)
    y = self.empty(z.shape, z.dtype)
    types, launch = along_array(4, z, y)
    _launch_activation(self, "forward", types, launch, (z, y, np.int64(z.size)), activation,
                       constants)
    return y


def argmax(self: CupyBackend, x: Array, axis: int) -> Array:
    """CuPy's own `argmax` gives any of several NaNs, not the first."""
    largest = x.max(axis=axis, keepdims=True)           # NaN if there is one
    return ((x == largest) | (x != x)).argmax(axis=axis)


def add(self: CupyBackend, a: Array, b: Array, activation: str | None = None) -> Array:
    if not has_kernels(a, b):
        return Backend.add(self, a, b, activation)
    if activation not in cuda_launch.ACTIVATIONS:
        return self.activate(self.add(a, b), activation)
    a, b = self._contiguous(a), self._contiguous(b)
    y = self.empty(a.shape, a.dtype)
    types, launch = along_array(2, a, b, y)
    self._launch("activation", f"add<{types}, {cuda_launch.ACTIVATIONS[activation]}>", launch,
                 a, b, y, np.int64(y.size))
    return y


def activation_backward(self: CupyBackend, dy: Array, y: Array, activation: str | None,
                        constants: tuple[float, ...] = (), *, bias_grad: Array | None = None,
                        accumulate: bool = False) -> Array:
    arrays = (dy, y) if bias_grad is None else (dy, y, bias_grad)
    if (activation is None and bias_grad is None or not has_kernel(activation)
        or not has_kernels(*arrays)
            or bias_grad is not None and not bias_grad.flags.c_contiguous):
        return Backend.activation_backward(self, dy, y, activation, constants, bias_grad=bias_grad,
                                           accumulate=accumulate)
    shape, given = dy.shape, dy
    dy, y = self._contiguous(dy), self._contiguous(y)
    if bias_grad is None:
        dy = dy.reshape(1, -1)  # rows do not matter if nothing is summed
    dz = dy if activation is None else self.empty(dy.shape, dy.dtype)
    types, launch, pieces = along_rows(dy, y, dz)
    parts = room_for_parts(self, pieces, dy.dtype)
    sums = self.empty((1,), dy.dtype) if bias_grad is None else bias_grad
    _launch_activation(self, "backward", types, launch,
                       (dy, y, dz, sums, np.bool_(accumulate), parts, pieces),
                            activation, constants)
    if bias_grad is not None and pieces["per_row"] > 1:
        add_parts(self, parts, bias_grad, accumulate)
    return given if activation is None else dz.reshape(shape)


def _launch_activation(self: CupyBackend, way: str, types: str,
                       launch: tuple[cuda_launch.Grid, cuda_launch.Grid],
                       arguments: tuple[Any, ...], activation: str | None,
                       constants: tuple[float, ...]) -> None:
    """Launch the kernel compiled for this activation, or the one that gets its number."""
    if activation is None or activation in cuda_launch.ACTIVATIONS:
        self._launch("activation", f"activation_{way}<{types}, "
                                   f"{cuda_launch.ACTIVATIONS[activation]}>", launch, *arguments)
    else:
        p, q, *_ = (*activations.constants_of(activation, constants), 0.0, 0.0)
        self._launch("activation", f"curve_{way}<{types}>", launch, *arguments,
                     np.int32(cuda_launch.curves().index(activation)), np.float64(p), np.float64(q))


def softmax(self: CupyBackend, z: Array) -> Array:
    if not has_kernels(z):
        return Backend.softmax(self, z)
    z = self._contiguous(z)
    y = self.empty(z.shape, z.dtype)
    types, launch, sizes = _classes(self, z, y)
    self._launch("softmax", f"softmax<{types}>", launch, z, y, *sizes)
    return y


def softmax_dx(self: CupyBackend, dy: Array, y: Array) -> Array:
    if not has_kernels(dy, y):
        return Backend.softmax_dx(self, dy, y)
    dy, y = self._contiguous(dy), self._contiguous(y)
    dz = self.empty(y.shape, y.dtype)
    types, launch, sizes = _classes(self, dy, y, dz)
    self._launch("softmax", f"softmax_backward<{types}>", launch, dy, y, dz, *sizes)
    return dz


def softmax_cross_entropy(self: CupyBackend, z: Array, target: Array) -> tuple[Array, Array]:
    labels = target.ndim == 1 and target.dtype.kind in "iu"
    if not (has_kernels(z) if labels else target.shape == z.shape and has_kernels(z, target)):
        return Backend.softmax_cross_entropy(self, z, target)
    z, target = self._contiguous(z), self._contiguous(target)
    if labels:
        with self.scope():
            target = target.astype(np.int64, copy=False)
    dz, loss = self.empty(z.shape, z.dtype), self.empty((), z.dtype)
    losses = self.empty(z.shape[1:], np.promote_types(z.dtype, np.float32))
    types, launch, sizes = _classes(self, z, dz) if labels else _classes(self, z, target, dz)
    kernel = "cross_entropy_of_labels" if labels else "cross_entropy"
    self._launch("softmax", f"{kernel}<{types}>", launch, z, target, dz, losses, *sizes)
    _mean_of_losses(self, losses, loss)
    return loss, dz


def _mean_of_losses(self: CupyBackend, losses: Array, loss: Array) -> None:
    """loss () = the mean of losses (N,): in one launch up to a few thousand, in two beyond."""
    N, kernel = losses.size, f"mean_of_losses<{cuda_launch.TYPES[loss.dtype]}>"
    (grid, block), pieces = cuda_launch.row_pieces(1, N, 1)
    if pieces["per_row"] > FEW_PIECES:
        parts = room_for_parts(self, pieces, loss.dtype)
        self._launch("softmax", kernel, (grid, block), losses, loss, parts, np.int64(N), pieces)
        losses = parts
    whole = cuda_launch.struct(cuda_launch.PIECES, (losses.size, losses.size, 1, 1))
    self._launch("softmax", kernel, cuda_launch.flat_launch(1), losses, loss, losses, np.int64(N),
                 whole)


def _classes(self: CupyBackend, *arrays: Array
             ) -> tuple[str, tuple[cuda_launch.Grid, cuda_launch.Grid], tuple[np.int32, np.int64]]:
    """(template arguments, launch, (number of classes, number of samples)) for kernels that loop
    over the first axis."""
    a = arrays[0]
    K = a.shape[0]
    samples = a.size // K
    width, kept, launch = cuda_launch.softmax_launch(
        K, samples, cuda_launch.extreme_width(samples, accesses(arrays)))
    return (f"{cuda_launch.TYPES[a.dtype]}, {width}, {kept}", launch,
            (np.int32(K), np.int64(samples)))


def random_bits(self: CupyBackend, n: int, key: tuple[int, int], counter: Array) -> Array:
    bits = self.empty((n,), np.uint32)
    self._launch("dropout", "random_bits", cuda_launch.flat_launch(-(-n // 8)),
                 bits, np.int64(n), np.uint64(key[0]), np.uint64(key[1]), counter)
    return bits


def dropout(self: CupyBackend, x: Array, p: float, key: tuple[int, int],
            counter: Array) -> tuple[Array, Array]:
    if x.dtype not in cuda_launch.TYPES:
        return Backend.dropout(self, x, p, key, counter)
    x = self._contiguous(x)
    y, keep = self.empty(x.shape, x.dtype), self.empty(x.shape, np.bool_)
    V = self._width(x.size, x, y, keep)
    self._launch("dropout", f"dropout<{cuda_launch.TYPES[x.dtype]}, {V}>",
                 cuda_launch.flat_launch(-(-x.size // 8)), x, y, keep, np.int64(x.size),
                 np.uint64(round(p * 2.0**32)), np.float64(1.0 / (1.0 - p)), np.uint64(key[0]),
                 np.uint64(key[1]), counter)
    return y, keep


def dropout_dx(self: CupyBackend, dy: Array, p: float, keep: Array) -> Array:
    if not has_kernels(dy) or keep.dtype != np.bool_:
        return Backend.dropout_dx(self, dy, p, keep)
    dy, keep = self._contiguous(dy), self._contiguous(keep)
    dx = self.empty(dy.shape, dy.dtype)
    types, launch = along_array(4, dy, dx, keep)
    self._launch("dropout", f"dropout_dx<{types}>", launch, dy, keep, dx,
                 np.float64(1.0 / (1.0 - p)), np.int64(dy.size))
    return dx
