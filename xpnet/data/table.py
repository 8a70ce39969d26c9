"""Images in a CSV file, a row for each: the form of Kaggle's digit recognizer."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from xpnet.checks import expect_seed, expect_share, is_integer, items, wrong
from xpnet.data.dataset import Dataset
from xpnet.data.find import plain
from xpnet.data.idx import unpacked
from xpnet.io import formats
from xpnet.io.files import name_of

WHO = "csv_images"
LONGEST = 1 << 22           # bytes of a line
CHUNK = 1 << 22             # bytes of lines that are converted at a time
REMEDY = "; read a file of NumPy with np.load, and pass the arrays to net.fit"


def csv_images(path: str | os.PathLike[str], *, test: str | os.PathLike[str] | None = None,
               shape: tuple[int, int, int] | None = None, label: str | int | None = "label",
               validation: float | None = None, seed: int = 0) -> Dataset:
    """Images in a CSV file, plain or packed with gzip: a row for each, with its label and the
    pixels, 0 to 255, channel by channel and row by row.

        label,pixel0,pixel1,...
        7,0,12,...

    x (N, C, H, W) uint8. A first row with names is found by itself; a column "id" is left out.

    Args:
        path: the file, or a folder with train.csv and perhaps test.csv.
        test: a file for the test part; it may lack the column of labels.
        shape: (C, H, W); by default one channel and H = W.
        label: the name or the number of the column of labels; in a file without names, "label" is
            column 0. None if there are no labels.
        validation: the share that is split off, see `Dataset.split`.
        seed: of this split.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is not of this form.
    """
    sizes = _expect_shape(shape)
    if label is not None and not is_integer(label, 0) and not (isinstance(label, str) and label):
        raise wrong(WHO, "label to be None or the name or number of a column", "label", label)
    share = 0.0 if validation is None else expect_share(WHO, "validation", validation)
    seed = expect_seed(WHO, seed)
    place = Path(name_of(path, WHO)).expanduser()
    other = None if test is None else Path(name_of(test, WHO)).expanduser()
    if place.is_dir():
        other = _in_folder(place, "test.csv") if other is None else other
        place = _in_folder(place, "train.csv") or place / "train.csv"
    for file in (place, other):
        if file is not None and not file.is_file():
            raise FileNotFoundError(f"{WHO}: expected a CSV file. Received: {file}, which does not "
                                    "exist.")
    x, y = _read(place, sizes, label, must=True)
    data = Dataset(x, y, name=place.stem)
    if other is not None:
        x_test, y_test = _read(other, x.shape[1:], label, must=False)
        if y_test is not None and data.classes is not None and y_test.max() >= len(data.classes):
            raise ValueError(f"{WHO} '{other}': expected labels from 0 to {len(data.classes) - 1}, "
                             f"as in {place}. Received: a label {y_test.max()}.")
        data.test = Dataset(x_test, y_test, classes=data.classes, name=other.stem)
    return data.split(share, seed) if share else data


def _expect_shape(shape: object) -> tuple[int, ...] | None:
    if shape is None:
        return None
    sizes = items(shape)
    if not sizes or len(sizes) != 3 or not all(is_integer(size, 1, 2**14) for size in sizes):
        raise wrong(WHO, "shape to be None or (C, H, W)", "shape", shape)
    return tuple(map(int, sizes))


def _in_folder(folder: Path, name: str) -> Path | None:
    return next((path for path in sorted(folder.iterdir()) if plain(path.name) == plain(name)),
                None)


class _Columns(NamedTuple):
    """What the columns of a file are."""

    number: int
    label: int | None
    pixels: list[int]


def _read(path: Path, shape: Sequence[int] | None, label: str | int | None, must: bool
          ) -> tuple[np.ndarray, np.ndarray | None]:
    """Images and labels; `must` says whether there have to be labels, if `label` is not None."""
    who = f"{WHO} '{path}'"
    images, labels, row = [], [], 0
    with open(path, "rb") as packed, unpacked(packed, who) as file:
        lines = _lines(file, who)
        first = next(lines, None)
        if first is None:
            raise ValueError(f"{who}: expected a row for each image. Received: an empty file.")
        if "\0" in first:
            remedy = REMEDY if formats.of_name(path) == "NumPy" else ""
            raise ValueError(f"{who}: expected a CSV file, which is text{remedy}. Received: a file "
                             "of another format.")
        columns, has_names = _columns(first, shape, label, must, who)
        shape = _shape(len(columns.pixels), shape, who)
        for chunk in _chunks(lines, [] if has_names else [first]):
            numbers = _numbers(chunk, columns.number, f"{who}, from row {row}")
            pixels = numbers[:, columns.pixels]
            if pixels.max() > 255:
                raise ValueError(f"{who}, from row {row}: expected pixels from 0 to 255. "
                                 f"Received: {pixels.max()}.")
            images.append(pixels.astype(np.uint8).reshape(-1, *shape))
            if columns.label is not None:
                labels.append(numbers[:, columns.label])
            row += len(numbers)
    if not row:
        raise ValueError(f"{who}: expected a row for each image. Received: a row of names alone.")
    return np.concatenate(images), np.concatenate(labels) if labels else None


def _lines(file: IO[bytes], who: str) -> Iterator[str]:
    """The lines of a file that are not empty. Raises ValueError for one that is too long."""
    while line := file.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise ValueError(f"{who}: expected lines of at most {LONGEST} bytes. "
                             "Received: a longer one.")
        text = line.decode("latin-1").removeprefix("\xef\xbb\xbf").strip()      # the mark of UTF-8
        if text:
            yield text


def _chunks(lines: Iterator[str], chunk: list[str]) -> Iterator[list[str]]:
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line)
        if size > CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _columns(first: str, shape: Sequence[int] | None, label: str | int | None, must: bool, who: str
             ) -> tuple[_Columns, bool]:
    """What the columns are, by the first row, and whether this row has names."""
    names = [name.strip().strip('"').casefold() for name in first.split(",")]
    has_names = not all(_is_number(name) for name in names)
    left = [k for k, name in enumerate(names) if not (has_names and name == "id")]
    column: int | None = None
    if isinstance(label, str) and has_names:
        column = names.index(label.casefold()) if label.casefold() in names else None
    elif label is not None:
        column = 0 if isinstance(label, str) else int(label)
        # without names, the number of columns tells whether a test file has labels
        if not must and shape is not None and len(left) == math.prod(shape):
            column = None
        elif column >= len(names):
            raise ValueError(f"{who}: expected a column {column} of labels. "
                             f"Received: {len(names)} columns.")
    if must and label is not None and column is None:
        raise ValueError(f"{who}: expected a column {label!r}; label=None for a file without "
                         f"labels. Received: the columns {', '.join(names[:5])[:80]}, ...")
    return _Columns(len(names), column, [k for k in left if k != column]), has_names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shape(pixels: int, shape: Sequence[int] | None, who: str) -> tuple[int, ...]:
    if shape is None:
        side = math.isqrt(pixels)
        shape = 1, side, side
    if math.prod(shape) != pixels or pixels == 0:
        raise ValueError(f"{who}: expected columns for the pixels of images of shape "
                         f"{tuple(shape)}; shape=(C, H, W) says another. "
                         f"Received: {pixels} columns.")
    return tuple(shape)


def _numbers(lines: list[str], columns: int, who: str) -> np.ndarray:
    """The whole numbers in some rows, (rows, columns) int64."""
    try:
        numbers = np.loadtxt(lines, np.float64, comments=None, delimiter=",", quotechar='"',
                             ndmin=2)
    except ValueError as error:
        reason = " ".join(str(error).partition(";")[0].split())[:160].rstrip(".")
        raise ValueError(f"{who}: expected rows of numbers. Received: {reason}.") from error
    if numbers.shape[1] != columns:
        raise ValueError(f"{who}: expected {columns} columns. Received: {numbers.shape[1]}.")
    if not ((numbers >= 0) & (numbers < 2**31) & (numbers == np.floor(numbers))).all():
        raise ValueError(f"{who}: expected whole numbers, 0 or larger. "
                         "Received: others among them.")
    return numbers.astype(np.int64)
