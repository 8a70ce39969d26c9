"""The record of a training."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xpnet.checks import expect_choice, shown
from xpnet.io.files import write_atomically
from xpnet.schedules import rises
from xpnet.tables import html_table

Row = dict[str, float]


@dataclass(frozen=True)
class Divergence:
    """How a training diverged.

    `epoch`, `step`: after which a parameter or running statistic was NaN or infinite, from 1.
    `good`: the last step after which all were known to be finite.
    `where`: where the first such value appeared, in words; "" if it was not looked for.
    `layer`: the name of the layer in which it appeared; None if it was in no layer.
    `restored`: the step whose parameters the network has now; None if they are not finite.
    """

    epoch: int
    step: int
    good: int
    where: str
    layer: str | None
    restored: int | None

    def __str__(self) -> str:
        by = "" if self.good == self.step - 1 else "by "
        where = f", first {self.where}" if self.where else ""
        left = ("" if self.restored is None else
                f", and the network has the parameters of step {self.restored:,}")
        return (f"parameters or running statistics became NaN or infinite in epoch {self.epoch} "
                f"({by}step {self.step:,}) of this fit{where}; the training ended{left}")


class History:
    """What happened in a fit: `rows`, a dict for each epoch.

    A row has epoch, loss, accuracy (for classes), val_loss, val_accuracy (with validation data), lr
    and seconds; with several outputs the figures of each too, e.g. digit_loss, val_digit_loss.
    Callbacks may add columns. With fit(steps=) the last row may be of part of an epoch.
    `history["loss"]` is a column, and `for name in history` goes through the names of the columns.

    `stopped` is True if a callback or fit's `until` ended the training. `interrupted` is True if
    Ctrl-C did; the last row is then of part of an epoch, and its validation figures are NaN.
    `diverged` is True if it ended because the parameters were no longer finite; `divergence` says
    in which step and layer, see StopOnNaN.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.interrupted = self.stopped = self.diverged = False
        self.divergence: Divergence | None = None

    @property
    def ended(self) -> bool:
        """Whether there is no next epoch, however many were asked for."""
        return self.interrupted or self.stopped or self.diverged

    # --- columns ----------------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """The names of the columns."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, key: str) -> list[float]:
        if self.rows and key not in self.keys():
            raise KeyError(f"History: expected one of {', '.join(self)}. Received: {shown(key)}.")
        return [row.get(key, math.nan) for row in self.rows]

    def best(self, monitor: str, mode: str = "auto") -> Row:
        """The row with the best value of a column, the first of equal ones.

        Args:
            monitor: the name of the column, e.g. "val_loss".
            mode: "min", "max", or "auto": the largest value if the name ends in "accuracy", else
                the smallest.

        Raises:
            ValueError: there is no such column, or it has no number that is not NaN.
        """
        largest = expect_mode("History.best", mode, monitor)
        rows = [row for row in self.rows if not math.isnan(monitored("History.best", monitor, row))]
        if not rows:
            raise ValueError("History.best: expected an epoch with a number in the column. "
                             f"Received: {len(self.rows)} epochs without one.")
        return (max if largest else min)(rows, key=lambda row: row[monitor])

    # --- files and tables -------------------------------------------------------------------------

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file: a line with the names of the columns, and a line for each epoch."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.keys())
        writer.writerows([row.get(name, math.nan) for name in self] for row in self.rows)
        write_atomically(path, text.getvalue().encode(), who="History.to_csv")

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file: a list of objects, one for each epoch, with null for NaN and infinity.
        """
        text = ",\n".join(" " + as_json(row) for row in self.rows)
        write_atomically(path, f"[\n{text}\n]\n".encode(), who="History.to_json")

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for each epoch.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("History.to_pandas: expected pandas. "
                              f"Received: {error}. Remedy: pip install pandas") from error
        return pandas.DataFrame(self.rows, columns=self.keys())

    def plot(self, columns: Sequence[str] | None = None, *, ax: Any = None) -> Any:
        """A figure with the losses over the epochs and, for classes, the accuracies beside them.

        See xpnet.viz.show_training, which also draws several trainings together.
        """
        from xpnet.viz.curves import show_training
        return show_training(self, columns, ax=ax)

    def _repr_html_(self) -> str:
        lines = [[shortly(row.get(name, math.nan)) for name in self] for row in self.rows]
        return html_table(self.keys(), lines, left=0, below=[repr(self)])

    def __repr__(self) -> str:
        return (f"<History of {len(self.rows)} epochs{', interrupted' if self.interrupted else ''}"
                f"{', stopped' if self.stopped else ''}{', diverged' if self.diverged else ''}>")


def as_json(row: Mapping[str, float]) -> str:
    """A row as a JSON object on one line; JSON has no NaN and no infinity, which become null."""
    return json.dumps({name: value if math.isfinite(value) else None
                       for name, value in row.items()})


def shortly(value: float) -> str:
    """A number of a row for a table."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def expect_mode(who: str, mode: str, monitor: str) -> bool:
    """Whether the largest value of a column is the best one: mode "max", or "auto" for a name that
    ends in "accuracy"."""
    mode = expect_choice(who, "mode", mode, ("auto", "min", "max"))
    return mode == "max" or mode == "auto" and isinstance(monitor, str) and rises(monitor)


def monitored(who: str, monitor: str, row: Mapping[str, float]) -> float:
    """The value of a column in a row; ValueError with the names of the columns if it is missing."""
    if not isinstance(monitor, str) or monitor not in row:
        raise ValueError(f"{who}: expected monitor to be one of {', '.join(row)}. Received: "
                         f"monitor={shown(monitor)}.")
    return row[monitor]
