"""Losses for classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss, finite_array


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
