"""What fit shows while a network trains: a line for each epoch, and one bar for all epochs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, TextIO

from xpnet.training.callbacks import Callback, Run


class ProgressBar(Callback):
    """A line with the figures of each epoch, and below the lines a bar for the whole training.

    All of this goes to stderr. In a file or a pipe there is no bar, and each line also says how
    much time is left. In a notebook it goes to stdout, because notebooks show stderr as an error,
    and the bar is a widget if there is ipywidgets.
    """

    SECONDS = 0.2       # between two fetches of figures from the backend, which wait for the GPU
    FORMAT = "{desc}{percentage:4.0f}%|{bar}| {remaining} left{postfix}"

    def __init__(self) -> None:
        self.bar: Any = None
        self.heads: list[str] = []      # those above the lines
        self.shown_at = 0.0

    def on_train_begin(self, run: Run) -> None:
        self.heads = []

    def on_epoch_begin(self, run: Run) -> None:
        self.shown_at = 0.0
        text = f"epoch {run.epoch}/{run.epochs}"
        if self.bar is not None:
            self.bar.set_description_str(text, refresh=False)
        elif in_notebook() or (sys.stderr is not None and sys.stderr.isatty()):
            self.bar = _bar(total=run.total, initial=run.steps, desc=text, file=_out(),
                            bar_format=self.FORMAT, dynamic_ncols=True, leave=False,
                            smoothing=0)    # the mean speed, which contains the validations

    def on_batch_end(self, run: Run) -> None:
        if self.bar is None:
            return
        self.bar.update()
        if time.perf_counter() - self.shown_at > self.SECONDS:
            self.bar.set_postfix_str(", ".join(f"{name} {number(value)}" for name, value
                                               in run.figures().items()))
            self.shown_at = time.perf_counter()

    def on_epoch_end(self, run: Run) -> None:
        out = _out()
        if out is None:
            return
        cells = self._cells(run)
        widths = [max(len(name), 2 * len(str(run.epochs)) + 1 if name == "epoch" else 7)
                  for name in cells]
        lines: list[Iterable[str]] = [cells.values()]
        if list(cells) != self.heads:
            self.heads = list(cells)
            lines.insert(0, cells.keys())
        if self.bar is not None:        # until the next batch, so that callbacks can print
            self.bar.clear()
        for line in lines:
            print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)),
                  file=out, flush=True)

    def _cells(self, run: Run) -> dict[str, str]:
        """The last row of the history, as text."""
        row = run.history.rows[-1]
        cells = {name: number(value) for name, value in row.items()}
        cells["epoch"] += f"/{run.epochs}"
        cells["seconds"] = f"{row['seconds']:.1f}"
        if self.bar is None:
            cells["left"] = duration(row["seconds"] * (run.total - run.steps) / run.batch)
        return cells

    def on_train_end(self, run: Run) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None


def number(value: float) -> str:
    """A figure in about seven characters."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"


def duration(seconds: float) -> str:
    """Minutes and seconds, 05:09, and hours if there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook. Does not import IPython."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _out() -> TextIO | None:
    """Where to; None under pythonw, which has no console."""
    return sys.stdout if in_notebook() else sys.stderr


def _bar(**options: Any) -> Any:
    if in_notebook() and find_spec("ipywidgets") is not None:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return tqdm(**options)
