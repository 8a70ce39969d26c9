"""Figures that say how good a network's output is."""

from __future__ import annotations

from xpnet.backends import Backend
from xpnet.layer import Array


def correct(backend: Backend, y: Array, target: Array) -> Array:
    """How many samples have their largest output at the target's class, as a scalar array on the backend.

    y (K, N); target is labels (N,) or one-hot (K, N).
    """
    labels = target if target.ndim == 1 else target.argmax(axis=0)
    return (y.argmax(axis=0) == labels).sum()
