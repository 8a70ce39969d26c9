"""Predictions for image files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from xpnet.checks import CONTROL, expect_choice, expect_integer, shown
from xpnet.graph import Graph
from xpnet.graph_checks import softmax_below
from xpnet.tables import html_table, table
from xpnet.trained import FITS
from xpnet.training.goals import Goal, known_goals, probability
from xpnet.training.prediction import changed_outputs

PROBABILITY, SCORE, OUTPUT = "probability", "score", "output"
MOST_SHOWN = 100        # files in a table
MOST_OUTPUTS = 8        # numbers of a file in a table


@dataclass(frozen=True)
class FilePrediction:
    """The prediction for one image file.

    Attributes:
        path: of the file.
        classes: the names of the most likely classes, the first one first; () for a loss that is
            not about classes.
        values: the probabilities of these classes; their outputs, for a loss without softmax or
            sigmoid; all outputs, if there are no classes.
    """

    path: str
    classes: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def name(self) -> str | None:
        """The name of the most likely class."""
        return self.classes[0] if self.classes else None

    @property
    def value(self) -> float:
        """The probability of this class, or the first output."""
        return self.values[0]


class FilePredictions(Sequence[FilePrediction]):
    """The predictions for image files, in the order of the files: a sequence of FilePrediction.

    Print it for a table; a notebook shows it.

    Attributes:
        what: what the values are: "probability", "score" or "output".
        outputs: (N, K), the probabilities of all classes, or all outputs.
    """

    def __init__(self, rows: Sequence[FilePrediction], what: str, outputs: np.ndarray) -> None:
        self._rows, self.what, self.outputs = tuple(rows), what, outputs

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> FilePrediction: ...

    @overload
    def __getitem__(self, index: slice) -> FilePredictions: ...

    def __getitem__(self, index: int | slice) -> FilePrediction | FilePredictions:
        if isinstance(index, slice):
            return FilePredictions(self._rows[index], self.what, self.outputs[index])
        return self._rows[index]

    @property
    def _table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]], list[str]]:
        """The head, the lines, and the lines below them."""
        more = len(self) - MOST_SHOWN
        below = [f"and {more:,} more files"] if more > 0 else []
        rows, lines = self._rows[:MOST_SHOWN], list[tuple[str, ...]]()
        if self.what == OUTPUT:
            for row in rows:
                numbers = [f"{value:.4g}" for value in row.values[:MOST_OUTPUTS]]
                rest = ["..."] if len(row.values) > MOST_OUTPUTS else []
                lines.append((in_one_line(row.path), ", ".join(numbers + rest)))
            return ("file", OUTPUT), lines, below
        digits = ".4f" if self.what == PROBABILITY else ".4g"
        for row in rows:
            for k, (name, value) in enumerate(zip(row.classes, row.values, strict=True)):
                lines.append(("" if k else in_one_line(row.path), name, f"{value:{digits}}"))
        return ("file", "class", self.what), lines, below

    def __repr__(self) -> str:
        head, lines, below = self._table
        return "\n".join([*table(head, lines, len(head) - 1), *below])

    def _repr_html_(self) -> str:
        head, lines, below = self._table
        return html_table(head, lines, len(head) - 1, below)


def in_one_line(path: str) -> str:
    """A path without control characters, which the names of files may have."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], path)


def predict_files(net: Graph, paths: Any, *, top: int = 1, fit: str | None = None,
                  loss: Any = None, batch_size: int = 256) -> FilePredictions:
    """Predictions for image files, which are read as the network's training read them.

    A file is converted as by xn.data.read_image, to the channels and the size of the input, and
    divided by `net.scale`. Files are read in threads while the network computes.

    Args:
        net: a network with one input (C, H, W), C 1 or 3, and one output (K,).
        paths: a file or folder, or a list of files and folders. Of a folder, the image files in it
            and in the folders inside it are taken, sorted by name.
        top: how many of the most likely classes a row has.
        fit: "crop" or "stretch", see read_image. By default as the images of the last fit, and
            "crop" if they did not come from files.
        loss: says whether outputs are logits; that of the last fit by default.
        batch_size: files of a forward pass.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is no image or is damaged, the network has other inputs or outputs, or
            `net.scale` is not known.
        ImportError: Pillow is not installed.
    """
    who = "predict_files"
    shape = _expect_images(net, who)
    goal, = known_goals(net, loss, None, who)
    top, batch_size = expect_integer(who, "top", top), expect_integer(who, "batch_size", batch_size)
    fit = expect_choice(who, "fit", net.trained.image_fit or FITS[0] if fit is None else fit, FITS)
    scale = net.trained.scale
    if scale is None:
        raise ValueError(f"{who}: expected a network that knows what pixels are divided by; set "
                         "net.scale = 255, or net.scale = 1 if the network takes bytes. Received: "
                         "net.scale=None.")
    files = _files(paths, who)
    found = _outputs(net, goal, files, shape, fit, scale, batch_size, who)
    what = _what(goal)
    if what == OUTPUT:
        rows = [FilePrediction(str(file), (), tuple(y.tolist()))
                for file, y in zip(files, found, strict=True)]
        return FilePredictions(rows, what, found)
    names, found = _classes(net, what, found)
    rows = []
    for file, y in zip(files, found, strict=True):
        best = np.argsort(-y, kind="stable")[:top]          # of equal values the first one
        rows.append(FilePrediction(str(file), tuple(names[k] for k in best),
                                   tuple(y[best].tolist())))
    return FilePredictions(rows, what, found)


def _expect_images(net: Graph, who: str) -> tuple[int, int, int]:
    """The shape of the images that the network takes."""
    ins, outs = ([node.shape for node in ports.nodes] for ports in (net.ins, net.outs))
    if len(ins) > 1 or len(ins[0]) != 3 or ins[0][0] not in (1, 3):
        raise ValueError(f"{who}: expected a network with one input (C, H, W) of 1 or 3 channels. "
                         f"Received: inputs {ins}.")
    if len(outs) > 1 or len(outs[0]) != 1:
        raise ValueError(f"{who}: expected a network with one output (K,). Received: outputs "
                         f"{outs}.")
    channels, rows, columns = ins[0]
    return channels, rows, columns


def _files(paths: Any, who: str) -> list[Path]:
    """The files in the order of `paths`, those of a folder sorted."""
    from xpnet.data.folder import pictures_in
    from xpnet.data.images import picture_file
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if isinstance(paths, bytes | np.ndarray | Mapping) or not isinstance(paths, Iterable):
        raise TypeError(f"{who}: expected a path or a list of paths. Received: {shown(paths)}.")
    found: list[Path] = []
    for path in paths:
        is_folder = isinstance(path, str | os.PathLike) and os.path.isdir(os.path.expanduser(path))
        found += (pictures_in(Path(path).expanduser(), who) if is_folder
                  else [picture_file(path, who)])
    if not found:
        raise ValueError(f"{who}: expected at least one path. Received: none.")
    return found


def _outputs(net: Graph, goal: Goal, files: Sequence[Path], shape: tuple[int, int, int], fit: str,
             scale: float, batch_size: int, who: str) -> np.ndarray:
    """(N, K) probabilities or outputs."""
    from xpnet.data.dataset import Dataset
    from xpnet.data.images import ImageError, Pictures
    data = Dataset(Pictures(files, shape, fit, who), scale=scale)
    try:
        return changed_outputs(net, data, [probability(net.backend, goal)], batch_size, who)[0]
    except RuntimeError as error:
        if isinstance(error.__cause__, ImageError | OSError):   # it names the file
            raise error.__cause__ from None
        raise


def _what(goal: Goal) -> str:
    if goal.loss.takes_logits or softmax_below(goal.output):
        return PROBABILITY
    return SCORE if goal.loss.counts_hits else OUTPUT


def _classes(net: Graph, what: str, found: np.ndarray) -> tuple[Sequence[str], np.ndarray]:
    """The names of the classes, and a column for each: a single probability is that of the second
    of two classes."""
    names, K = net.trained.classes, found.shape[1]
    if K == 1 and what == PROBABILITY and (names is None or len(names) == 2):
        found = np.concatenate([1 - found, found], axis=1)
    return names or [str(k) for k in range(found.shape[1])], found
