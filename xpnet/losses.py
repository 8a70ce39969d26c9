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


class CrossEntropy(Loss):
    """Softmax and cross entropy in one: L = mean over N of -sum over k of t[k] log softmax(z)[k], dz = (softmax(z) - t) / N.

    z (K, N) are logits; targets are integer labels (N,) or probabilities (N, K), "one-hot". Bridle 1990.
    ValueError for labels outside 0..K-1, for NaN, for probabilities that are negative or do not sum to 1.
    """

    takes_logits = True

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        if len(out_shape) != 1:
            raise ValueError(f"CrossEntropy: expected a network whose output is (classes,). Received: output shape {out_shape}.")
        classes = out_shape[0]
        target = finite_array(target, "CrossEntropy: targets")
        if target.ndim == 1:
            if target.size and (target.min() < 0 or target.max() >= classes):
                raise ValueError(f"CrossEntropy: expected labels from 0 to {classes - 1}. "
                                 f"Received: labels from {target.min()} to {target.max()}.")
            labels = target.astype(np.int64)
            if (labels != target).any():
                raise ValueError("CrossEntropy: expected labels to be whole numbers. "
                                 f"Received: {target[labels != target][0]} among {target.dtype} labels.")
            return labels
        if target.shape[1:] != (classes,):
            raise ValueError(f"CrossEntropy: expected labels of shape (N,) or probabilities (N, {classes}). "
                             f"Received: shape {target.shape}.")
        if (target < 0).any() or not np.allclose(target.sum(axis=1), 1, atol=1e-4):
            raise ValueError("CrossEntropy: expected each row of the targets to be a distribution, not negative and with sum 1. "
                             f"Received: values from {target.min()} to {target.max()}, sums from {target.sum(axis=1).min()} "
                             f"to {target.sum(axis=1).max()}.")
        return target.astype(dtype, copy=False)

    def __call__(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array]:
        return backend.softmax_cross_entropy(y, target)


class MeanSquaredError(Loss):
    """L = mean over all elements of (y - t)^2, dy = 2 (y - t) / number of elements."""

    def __call__(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array]:
        error = y - target
        return (error * error).sum() / y.size, error * (2.0 / y.size)


class HalfSquaredError(Loss):
    """L = mean over the batch of 1/2 sum over the outputs of (y - t)^2, dy = (y - t) / N (LeCun et al. 1989)."""

    def __call__(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array]:
        N = y.shape[-1]
        error = y - target
        return (error * error).sum() / (2 * N), error * (1.0 / N)


LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy, "mean_squared_error": MeanSquaredError, "half_squared_error": HalfSquaredError,
}


def get_loss(loss: str | Loss) -> Loss:
    """The loss called by one of the names in LOSSES; a Loss is returned as it is."""
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"get_loss: expected a Loss or one of {', '.join(LOSSES)}. Received: {loss!r}.")
    return LOSSES[loss]()


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
