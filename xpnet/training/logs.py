"""Files with a line for each epoch."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from xpnet.checks import warn_caller
from xpnet.history import as_json
from xpnet.io.files import append, name_of
from xpnet.training.callbacks import Callback, Run


class Log(Callback):
    """A text file with a line for each complete epoch; a subclass says what the lines are.

    What the file contains is never lost: the lines of a second training are appended if its rows
    have the same columns. Each line is written before the next epoch begins; if that fails, there
    is a RuntimeWarning, and the line is written with the next one.
    """

    head_lines = 0              # lines before those of epochs
    leader_only = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = name_of(path, type(self).__name__)
        self._there = 0         # epochs to come whose lines are in the file already
        self._waiting: list[dict[str, float]] = []      # rows that could not be written yet

    def columns_of(self, line: str) -> list[str]:
        """The columns of a file, given its first line. Raises ValueError for another format."""
        raise NotImplementedError

    def head(self, row: Mapping[str, float]) -> str:
        """What a new file begins with."""
        return ""

    def line(self, row: Mapping[str, float]) -> str:
        """The line of an epoch."""
        raise NotImplementedError

    def on_train_begin(self, run: Run) -> None:
        """Raise the system's error now if the file cannot be written, not after an epoch."""
        self._there, self._waiting = 0, []
        with self._open():
            pass

    def state(self) -> dict[str, Any]:
        return {"lines": self._lines(), "waiting": self._waiting}

    def load_state(self, run: Run, state: dict[str, Any]) -> None:
        """Lines that were written after the checkpoint belong to rows that were waiting, and to
        epochs that are repeated."""
        new, waiting = max(self._lines() - state["lines"], 0), state["waiting"]
        self._there, self._waiting = max(new - len(waiting), 0), waiting[new:]

    def _lines(self) -> int:
        """How many lines of epochs the file has."""
        with self._open() as file:
            file.seek(0)
            return max(sum(1 for _ in file) - self.head_lines, 0)

    def on_epoch_end(self, run: Run) -> None:
        row = run.history.rows[-1]
        if run.partial:                 # a resumed training has the whole epoch
            return
        if self._there:
            self._there -= 1
            return
        self._waiting.append(row)
        try:
            with self._open() as file:
                text = (self.head(row) if file.tell() == 0 else
                        self._continued(file, list(row)))
            append(self.path, (text + "".join(map(self.line, self._waiting))).encode())
        except OSError as error:
            warn_caller(f"fit: a line of {self.path} could not be written, and the training goes "
                        f"on ({error})")
        else:
            self._waiting = []

    def _open(self) -> io.BufferedRandom:
        return open(self.path, "a+b")

    def _continued(self, file: io.BufferedRandom, columns: Sequence[str]) -> str:
        """What comes before the next line of an old file: a line end if its last line has none."""
        file.seek(0)
        try:
            found = self.columns_of(file.readline().decode())
        except ValueError:          # json's and Unicode's errors are ValueErrors
            found = []
        if found != list(columns):
            received = f"the columns {', '.join(found)}" if found else "another format"
            raise ValueError(f"{type(self).__name__}: expected a new file, or one with the columns "
                             f"{', '.join(columns)}. Received: {self.path}, which has {received}.")
        file.seek(-1, os.SEEK_END)
        return "" if file.read(1) == b"\n" else "\n"


class CSVLog(Log):
    """Write each epoch's row of the history as a line of a CSV file.

    The first line has the names of the columns. If the file exists and has the same columns, the
    lines are appended.

    Args:
        path: the name of the file, in a folder that exists.

    Raises:
        ValueError: at the end of the first epoch, the file has other columns. It is not changed.
    """

    head_lines = 1

    def columns_of(self, line: str) -> list[str]:
        return next(csv.reader([line.rstrip("\n")]), [])

    def head(self, row: Mapping[str, float]) -> str:
        return _csv(list(row))

    def line(self, row: Mapping[str, float]) -> str:
        return _csv(list(row.values()))


class JSONLog(Log):
    """Write each epoch's row of the history as a JSON object on a line of its own.

    NaN and infinity are null. If the file exists and its first object has the same columns, the
    lines are appended.

    Args:
        path: the name of the file, in a folder that exists.

    Raises:
        ValueError: at the end of the first epoch, the file has other columns. It is not changed.
    """

    def columns_of(self, line: str) -> list[str]:
        row = json.loads(line)
        return list(row) if isinstance(row, dict) else []

    def line(self, row: Mapping[str, float]) -> str:
        return as_json(row) + "\n"


def _csv(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
