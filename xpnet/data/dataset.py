"""Dataset: samples with labels or targets, which are read a batch at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from xpnet.augment.base import augmented, expect_augmentations
from xpnet.augment.mixing import Mixing
from xpnet.checks import (
    expect_class_names,
    expect_instance,
    expect_integer,
    expect_positive,
    expect_seed,
    expect_share,
    is_integer,
    shown,
)
from xpnet.data.source import ArraySource, Source, source
from xpnet.data.split import split

Array = Any
Indices = Any
MOST_CLASSES = 2**16
SAMPLED = 64            # samples whose content is in the fingerprint


class Dataset:
    """Samples x (N, ...) with labels y (N,) or targets y (N, ...), read a batch at a time.

        data[indices] -> (x, y),  indices an int, a slice, or an array of ints or of N bools

    Nothing is copied, so that a memory map may be larger than the memory, and nothing is written
    to. Arrays of the host come back as NumPy arrays, those of a slice as read-only views. Without y
    the data set is for predictions: data[indices] -> (x, None).

    Args:
        x: an array or memory map, a DLPack array in the memory of `xp`, or an object of your own
            with `__len__` and `__getitem__(indices)`. The object gets an increasing NumPy array of
            int64, and returns an array of these samples.
        y: labels (N,), whole numbers from 0 or names; or targets, floats (N,) or numbers (N, ...),
            in any form that x may have.
        classes: the names of the classes, in the order of their numbers. By default the numbers, or
            the sorted names if y has names.
        scale: what the samples are divided by before they enter a network. "auto" is 255 for images
            (C, H, W) of uint8, and None, nothing, otherwise.
        validation: a Dataset of the same kind, to validate with.
        test: a Dataset of the same kind, to test with.
        name: for repr.
        xp: the array module of x and y, e.g. net.xp for arrays on a GPU.

    Attributes:
        shape: of one sample.
        dtype: of the samples, as they are kept.
        labels: (N,) int64, or None if y has targets or is missing.
        classes: a tuple of names, or None if there are no labels.
        image_fit: how image files were made to fit by image_folder, "crop" or "stretch"; else None.

    Raises:
        ValueError: an array is on another device, or x and y do not fit together.
        TypeError: x or y is no array, or has other elements than real numbers.
    """

    def __init__(self, x: Any, y: Any = None, *, classes: Sequence[str] | None = None,
                 scale: float | str | None = "auto", validation: Dataset | None = None,
                 test: Dataset | None = None, name: str = "Dataset", xp: Any = np) -> None:
        self._x: Source = source(x, "Dataset: x", xp)
        self._y: Source | None = None
        self._where: np.ndarray | None = None       # the samples of a subset
        self.image_fit: str | None = None
        self.name, self.xp = name, xp
        self.shape, self.dtype = self._x.shape, self._x.dtype
        self.labels: np.ndarray | None = None
        self.classes: tuple[str, ...] | None = None
        if y is not None:
            self._take(y, classes)
        elif classes is not None:       # a data set for predictions knows what they mean
            self.classes = expect_class_names("Dataset", classes)
        if isinstance(scale, str) and scale == "auto":
            scale = 255 if self.dtype == np.uint8 and len(self.shape) == 3 else None
        self.scale = None if scale is None else expect_positive("Dataset", "scale", scale)
        self.validation = self._part("validation", validation)
        self.test = self._part("test", test)

    def _take(self, y: Any, classes: Sequence[str] | None) -> None:
        """Take labels or targets."""
        names = None if classes is None else expect_class_names("Dataset", classes)
        flat = y
        if isinstance(y, list | tuple | range):
            with suppress(ValueError):      # of lists of different lengths, which source() refuses
                flat = np.asarray(y)
        if isinstance(flat, np.ndarray) and flat.dtype.kind in "US" and flat.ndim == 1:
            flat, names = _numbered(flat, names)
        targets = source(flat, "Dataset: y", self.xp)
        if len(targets) != len(self._x):
            raise ValueError(f"Dataset: expected a label or target for each of the {len(self._x)} "
                             f"samples. Received: {len(targets)}.")
        if targets.shape == () and targets.dtype.kind in "bui":
            self.labels = labels = np.array(self.to_host(targets.read(slice(None))), np.int64)
            labels.flags.writeable = False
            low, high = int(labels.min()), int(labels.max())
            most = MOST_CLASSES if names is None else len(names)
            if low < 0 or high >= most:
                raise ValueError(f"Dataset: expected labels from 0 to {most - 1}; numbers that are "
                                 f"no labels as floats. Received: labels from {low} to {high}.")
            self.classes = names or tuple(map(str, range(high + 1)))
        elif names is not None:
            raise ValueError("Dataset: expected labels (N,) of whole numbers, as classes have "
                             f"names. Received: y of shape {(len(targets), *targets.shape)} and "
                             f"dtype {targets.dtype}.")
        else:
            self._y = targets

    def _part(self, what: str, data: Dataset | None) -> Dataset | None:
        if data is None:
            return None
        expect_instance("Dataset", what, data, Dataset, "None or a Dataset")
        for field in ("shape", "dtype", "scale", "classes"):
            own, other = getattr(self, field), getattr(data, field)
            if own != other and not (field == "classes" and data.labels is None):
                raise ValueError(f"Dataset: expected {what} to have {field}={shown(own)}. "
                                 f"Received: {field}={shown(other)}.")
        return data

    # --- reading ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._x) if self._where is None else len(self._where)

    def __getitem__(self, indices: Indices) -> tuple[Array, Array]:
        if is_integer(indices):
            x, y = self[np.array([indices])]
            return x[0], None if y is None else y[0]
        chosen = self._chosen(indices)
        where = chosen if self._where is None else self._where[chosen]
        y = self.labels[chosen] if self.labels is not None else None
        return self._x.read(where), y if self._y is None else self._y.read(where)

    def _chosen(self, indices: Indices) -> np.ndarray | slice:
        """The indices as a slice or as an array of int64, none of them negative."""
        if isinstance(indices, slice):
            return indices
        try:
            chosen = np.asarray(indices)
        except ValueError:                  # lists of different lengths
            chosen = np.empty((), object)
        if chosen.dtype == bool and chosen.shape == (len(self),):
            return np.flatnonzero(chosen)
        if chosen.ndim != 1 or chosen.dtype.kind not in "ui" and chosen.size:
            raise TypeError("Dataset: expected indices as an int, a slice, or an array (K,) of "
                            f"ints. Received: {shown(indices)}.")
        chosen = chosen.astype(np.int64, copy=False)
        if chosen.size and not -len(self) <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"Dataset: expected indices from {-len(self)} to {len(self) - 1}. "
                             f"Received: {chosen.min()} to {chosen.max()}.")
        return np.where(chosen < 0, chosen + len(self), chosen)

    def scaled(self, x: Array) -> Array:
        """Samples as a network takes them: float32(x) / float32(scale), or x if scale is None."""
        return x if self.scale is None else x.astype(np.float32) / np.float32(self.scale)

    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """All samples, scaled, and their labels: `x_train, y_train, x_test, y_test =
        data.arrays()`.

        For data sets that fit into memory. x_train has no samples of `validation`.

        Raises:
            ValueError: there is no test part.
        """
        if self.test is None:
            raise ValueError("Dataset.arrays: expected a data set with a test part; data[:] "
                             f"returns samples and labels. Received: {self!r}.")
        (x, y), (x_test, y_test) = self[:], self.test[:]
        return self.scaled(x), y, self.test.scaled(x_test), y_test

    @property
    def array(self) -> Array | None:
        """All samples (N, ...) as one array, if that is what they are: None for a subset, a memory
        map, and an object of your own."""
        array = self._x.array if isinstance(self._x, ArraySource) else None
        return None if self._where is not None or isinstance(array, np.memmap) else array

    @property
    def targets(self) -> Array | None:
        """Labels or targets of all samples, in memory; None if there are none."""
        if self._y is None:
            return self.labels
        return self._y.read(slice(None) if self._where is None else self._where)

    # --- parts ------------------------------------------------------------------------------------

    def subset(self, indices: Indices) -> Dataset:
        """The data set of some samples, without copying them; it has no validation or test part."""
        chosen = self._chosen(indices)
        if isinstance(chosen, slice):
            chosen = np.arange(len(self))[chosen]
        if len(chosen) == 0:
            raise ValueError("Dataset.subset: expected at least one sample. Received: none.")
        part = object.__new__(Dataset)
        part.__dict__ |= self.__dict__
        part._where = chosen if self._where is None else self._where[chosen]
        part.validation = part.test = None
        if self.labels is not None:
            part.labels = self.labels[chosen]
            part.labels.flags.writeable = False
        return part

    def split(self, validation: float = 0.2, seed: int = 0) -> Dataset:
        """Split off a part for validation: `data = data.split(0.2); data.validation`.

        With labels, each class has the same share in both parts, to within one sample. The samples
        of a part keep their order. The same seed gives the same split on every platform. The test
        part stays.

        Args:
            validation: the share of the samples that is split off.

        Raises:
            ValueError: a class would be missing in one of the parts, or there is a validation part.
        """
        share = expect_share("Dataset.split", "validation", validation)
        seed = expect_seed("Dataset.split", seed)
        if self.validation is not None:
            raise ValueError("Dataset.split: expected a data set without a validation part. "
                             f"Received: {self!r}.")
        stays, off = split("Dataset.split", self.labels, len(self), share, seed,
                           names=None if self.labels is None else self.classes)
        part = self.subset(stays)
        part.validation, part.test = self.subset(off), self.test
        return part

    # --- looking at it ----------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """A digest that changes if the data set does: of lengths, shape, dtype, scale, classes, all
        labels, and the content of 64 samples. To notice that a training is resumed with other
        data."""
        digest = hashlib.sha256(json.dumps([len(self), self.shape, self.dtype.name, self.scale,
                                            self.classes]).encode())
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        some = np.unique(np.arange(SAMPLED) * (len(self) - 1) // (SAMPLED - 1))
        for a in self[some]:
            if a is not None:
                a = self.to_host(a)
                digest.update(f"{a.dtype.name} {a.shape}".encode())
                digest.update(a.astype(a.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def show(self, count: int = 12, *, columns: int = 6, augment: Any = ()) -> Any:
        """A figure of `count` images, spread over the data set, with the names of their classes.

        Returns a matplotlib Figure: a notebook shows it, and `figure.savefig("file.png")` saves it.

        Args:
            augment: augmentations, as `fit` takes them. The images are those that a network with
                seed 0 sees in its first epoch.

        Raises:
            ValueError: the samples are no images of 1 or 3 channels, or an augmentation mixes two
                samples.
            ImportError: matplotlib is not installed.
        """
        from xpnet.viz.images import figure_of
        count = min(expect_integer("Dataset.show", "count", count), len(self))
        columns = expect_integer("Dataset.show", "columns", columns)
        if len(self.shape) != 3 or self.shape[0] not in (1, 3):
            raise ValueError("Dataset.show: expected images (C, H, W) of 1 or 3 channels. "
                             f"Received: samples of shape {self.shape}.")
        changes = expect_augmentations("Dataset.show", augment)
        if any(isinstance(change, Mixing) for change in changes):
            raise ValueError("Dataset.show: expected augmentations of single images. Received: "
                             f"{shown(augment)}, which mixes two.")
        some = np.arange(count) * (len(self) - 1) // max(count - 1, 1)
        x = self.to_host(self.scaled(self[some][0])).astype(np.float64)
        x = np.moveaxis(augmented(np, np.moveaxis(x, 0, -1), changes, samples=some), -1, 0)
        if self.scale is not None:
            x = np.clip(x, 0, 1)
        else:
            low, high = x.min(), x.max()
            x = (x - low) / (high - low if high > low else 1)
        known = self.labels is not None and self.classes is not None
        titles = ([self.classes[k] for k in self.labels[some]] if known   # type: ignore[index]
                  else [f"{i:,}" for i in some])
        return figure_of("Dataset.show", x, titles, columns)

    def to_host(self, a: Array) -> np.ndarray:
        """An array of samples, which may be on a GPU, as a NumPy array."""
        return np.asarray(a) if self.xp is np else self.xp.asnumpy(a)

    def __repr__(self) -> str:
        parts = [f"{len(self):,} samples {self.shape} {self.dtype}"]
        if self.labels is not None and self.classes is not None:
            listed = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
            parts.append(f"{len(self.classes)} classes ({listed})")
        elif self._y is not None:
            parts.append(f"targets {self._y.shape} {self._y.dtype}")
        else:
            parts.append("no labels")
        parts += [f"{what} {len(part):,}" for what, part in
                  (("validation", self.validation), ("test", self.test)) if part is not None]
        return f"<{self.name}: {'; '.join(parts)}>"


def _numbered(y: np.ndarray, names: tuple[str, ...] | None
              ) -> tuple[np.ndarray, tuple[str, ...]]:
    """Names of classes as numbers, and all names."""
    found, numbers = np.unique(y.astype(str), return_inverse=True)
    names = tuple(map(str, found)) if names is None else names
    unknown = [str(name) for name in found if str(name) not in names]
    if unknown:
        raise ValueError(f"Dataset: expected labels among {shown(names)}. "
                         f"Received: {shown(unknown[0])}.")
    return np.array([names.index(str(name)) for name in found], np.int64)[numbers], names
