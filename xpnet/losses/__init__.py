"""Losses, one file per kind, and their names."""

from __future__ import annotations

from xpnet.losses.base import Loss
from xpnet.losses.classification import CrossEntropy
from xpnet.losses.regression import HalfSquaredError, MeanSquaredError

__all__ = ["CrossEntropy", "HalfSquaredError", "Loss", "MeanSquaredError"]

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
