"""The record of a training."""

from __future__ import annotations


class History:
    """What happened in a fit: `rows`, a dict for each epoch.

    A row has epoch, loss, accuracy (for classes), val_loss, val_accuracy (with validation data), lr
    and seconds; with several outputs the figures of each too, e.g. digit_loss, val_digit_loss.
    `history["loss"]` is a column.

    `stopped` is True if a callback or fit's `until` ended the training. `interrupted` is True if
    Ctrl-C did; the last row is then of part of an epoch, and its validation figures are NaN.
    `diverged` is True if it ended because the parameters were no longer finite.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.interrupted = self.stopped = self.diverged = False

    def __getitem__(self, key: str) -> list[float]:
        return [row[key] for row in self.rows]

    def __repr__(self) -> str:
        return (f"<History of {len(self.rows)} epochs{', interrupted' if self.interrupted else ''}"
                f"{', stopped' if self.stopped else ''}{', diverged' if self.diverged else ''}>")

    @property
    def ended(self) -> bool:
        """Whether there is no next epoch, however many were asked for."""
        return self.interrupted or self.stopped or self.diverged
