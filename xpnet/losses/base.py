"""Losses: a scalar for a batch, and its gradient by the network's output.

A loss is called with (backend, y, target), y (D, ..., N) and the target batch-last; it returns the loss as a scalar
array on the backend (no host synchronisation) and dy like y. `targets` checks what users hand in, before any work.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.layer import Array, Shape


class Loss:
    """Base class of the losses."""

    takes_logits = False    # True: softmax is part of the loss

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        """The target on the host, batch-first and checked: (N,) + out_shape, or (N,) for a single output."""
        target = finite_array(target, f"{type(self).__name__}: targets")
        if target.shape[1:] != out_shape and not (target.ndim == 1 and out_shape == (1,)):
            raise ValueError(f"{type(self).__name__}: expected targets of shape (N, {', '.join(map(str, out_shape))}). "
                             f"Received: shape {target.shape}.")
        return target.reshape(-1, *out_shape).astype(dtype, copy=False)

    def __call__(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array]:
        raise NotImplementedError(f"{type(self).__name__}: expected a method __call__(backend, y, target).")


def real_array(a: Any, who: str) -> np.ndarray:
    """`a` as a NumPy array of real numbers; an error for anything else."""
    try:
        a = np.asarray(a)
    except ValueError as error:     # nested lists of different lengths
        raise ValueError(f"{who}: expected an array of numbers. Received: {type(a).__name__} ({error}).") from error
    if a.dtype.kind not in "buif":
        raise TypeError(f"{who}: expected real numbers. Received: an array of dtype {a.dtype}.")
    return a


def finite_array(a: Any, who: str) -> np.ndarray:
    """`a` as a NumPy array of real numbers, none of them NaN or infinite; an error for anything else."""
    a = real_array(a, who)
    if a.dtype.kind == "f" and not np.isfinite(a).all():
        raise ValueError(f"{who}: expected finite numbers. Received: NaN or infinity among them.")
    return a
