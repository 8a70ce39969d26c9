"""Data sets: MNIST, and the handwritten digits of scikit-learn."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from xpnet.backends.user_cache import cache_folder
from xpnet.checks import expect_integer
from xpnet.data.dataset import Dataset
from xpnet.data.download import fetch
from xpnet.data.idx import read_header, read_idx, unpacked
from xpnet.io.files import name_of

DIGITS = tuple("0123456789")


def digits(seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels that scikit-learn contains: no download.

    x (1437, 1, 8, 8) uint8 from 0 to 16, scale 16; `test` has 360. The same proportion of each
    class is in both parts, and the same seed gives the same split.

    Raises:
        ImportError: scikit-learn is not installed.

    Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998; scikit-learn contains its test part.
    """
    seed = expect_integer("digits", "seed", seed, 0, 2**32 - 1)
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(
            "digits: expected scikit-learn, which contains the images. "
            f'Received: {error}. Remedy: pip install "xpnet[data]"'
        ) from error

    bundle = load_digits()
    x = bundle.images.astype(np.uint8)[:, None]            # (N, 1, 8, 8)
    y = bundle.target.astype(np.int64)                     # (N,)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.2, stratify=y, random_state=seed)
    return _dataset("digits", x_train, y_train, x_test, y_test, DIGITS, scale=16)


def _dataset(name: str, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray,
             classes: Sequence[str], scale: float = 255) -> Dataset:
    test = Dataset(x_test, y_test, classes=classes, scale=scale, name=f"{name}, test")
    return Dataset(x, y, classes=classes, scale=scale, test=test, name=name)


class _File(NamedTuple):
    name: str
    shape: tuple[int, ...]
    sha256: str  # of the unpacked file


FILES = (
    _File("train-images-idx3-ubyte", (60000, 28, 28),
          "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    _File("train-labels-idx1-ubyte", (60000,),
          "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    _File("t10k-images-idx3-ubyte", (10000, 28, 28),
          "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    _File("t10k-labels-idx1-ubyte", (10000,),
          "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
)
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/",
           "https://storage.googleapis.com/cvdf-datasets/mnist/")


def mnist(data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """MNIST, 70,000 handwritten digits of 28 x 28 pixels.

        x (60000, 1, 28, 28) uint8; `test` has 10,000.

    Args:
        data_dir: a folder with the four files, plain or packed with gzip, or with a folder `mnist`
            of them. By default `$XPNET_HOME`, then the user's cache folder, then a download, which
            is checked and kept in the cache folder.

    Raises:
        FileNotFoundError: a file is missing in `data_dir`.
        ValueError: a file is not the one of MNIST.
        OSError: the download failed.

    LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    x, y, x_test, y_test = (_read(path, file)
                            for path, file in zip(_find(data_dir), FILES, strict=True))
    return _dataset("mnist", x[:, None], y, x_test[:, None], y_test, DIGITS)    # (N, 1, 28, 28)


def _find(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """The four files, in the order of FILES."""
    if data_dir is not None:
        # Only this folder is searched: files from elsewhere would hide a mistake.
        folder = Path(name_of(data_dir, "mnist")).expanduser()
        return _in_folder(folder) or _refuse(folder)

    if (home := os.environ.get("XPNET_HOME")) and (files := _in_folder(Path(home).expanduser())):
        return files
    cache = cache_folder()
    if files := _in_folder(cache):
        return files
    place = cache / "mnist"
    return [_existing(place, file) or _download(file, place) for file in FILES]


def _in_folder(folder: Path) -> list[Path] | None:
    """The four files in `folder` or in its subfolder `mnist`.

    Never some from each: the files of Fashion-MNIST have the same names.
    """
    for place in (folder, folder / "mnist"):
        files = [path for file in FILES if (path := _existing(place, file))]
        if len(files) == len(FILES):
            return files
    return None


def _existing(place: Path, file: _File) -> Path | None:
    return next((path for path in (place / file.name, place / f"{file.name}.gz") if path.is_file()),
                None)


def _refuse(folder: Path) -> NoReturn:
    names = ", ".join(file.name for file in FILES)
    here = [file.name for file in FILES
            if _existing(folder, file) or _existing(folder / "mnist", file)]
    state = (f"a folder that has {', '.join(here) or 'none of them'}" if folder.is_dir()
             else "no such folder")
    raise FileNotFoundError(
        f"mnist '{folder}': expected the files {names}, plain or .gz, here or in a folder mnist. "
        f"Received: {state}.")


def _download(file: _File, folder: Path) -> Path:
    path = folder / f"{file.name}.gz"
    # the header of IDX, and a byte for each number
    size = 4 + 4 * len(file.shape) + math.prod(file.shape)
    fetch([mirror + path.name for mirror in MIRRORS], path, file.sha256, size)
    return path


def _read(path: Path, file: _File) -> np.ndarray:
    with open(path, "rb") as packed, unpacked(packed, f"mnist '{path}'") as content:
        shape, dtype = read_header(content, f"mnist '{path}'")
    # checked before the data are unpacked, which may be of any size
    if shape != file.shape or dtype != np.uint8:
        raise ValueError(f"mnist '{path}': expected shape {file.shape} of uint8. "
                         f"Received: {shape} of {dtype.name}.")
    array = read_idx(path)
    if array.ndim == 1 and array.max() > 9:
        raise ValueError(f"mnist '{path}': expected labels from 0 to 9. "
                         f"Received: a label {array.max()}.")
    return array
