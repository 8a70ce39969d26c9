"""The handwritten digits of scikit-learn, MNIST and Fashion-MNIST."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from string import digits as numerals
from typing import NamedTuple

import numpy as np

from xpnet.checks import expect_integer
from xpnet.data.dataset import Dataset
from xpnet.data.download import Content, fetch
from xpnet.data.find import Files, layouts, locate, plain
from xpnet.data.idx import idx_array

DIGITS = tuple(numerals)
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
           "Bag", "Ankle boot")


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
            f'Received: {error}. Remedy: pip install "xpnet[data]"') from error

    bundle = load_digits()
    x = bundle.images.astype(np.uint8)[:, None]            # (N, 1, 8, 8)
    y = bundle.target.astype(np.int64)                     # (N,)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.2, stratify=y, random_state=seed)
    return dataset("digits", x_train, y_train, x_test, y_test, DIGITS, scale=16)


def dataset(name: str, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray,
            classes: Sequence[str], scale: float = 255) -> Dataset:
    """A Dataset with a test part."""
    test = Dataset(x_test, y_test, classes=classes, scale=scale, name=f"{name}, test")
    return Dataset(x, y, classes=classes, scale=scale, test=test, name=name)


# --- four files in the format IDX -----------------------------------------------------------------

class IdxFile(NamedTuple):
    name: str
    shape: tuple[int | None, ...]
    content: Content


class IdxSet(NamedTuple):
    """Training images and labels, test images and labels, in this order."""

    name: str
    files: tuple[IdxFile, ...]
    mirrors: tuple[str, ...]
    classes: tuple[str, ...]
    folder: str                     # what the name of its folder contains
    labels: str = ""                # SHA-256 of the test labels, if they must be these
    not_labels: str = ""            # or if they must not be these


NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
         "t10k-labels-idx1-ubyte")
SHAPES = (60000, 28, 28), (60000,), (10000, 28, 28), (10000,)
SIZES = 47_040_016, 60_008, 7_840_016, 10_008                   # bytes, unpacked
OTHERS = "fashion", "emnist", "kmnist", "qmnist", "notmnist"    # sets with files of these names

MNIST = IdxSet(
    "mnist",
    tuple(IdxFile(name, shape, Content(size, sha256)) for name, shape, size, sha256 in zip(
        NAMES, SHAPES, SIZES,
        ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
         "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
         "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
         "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"))),
    ("https://ossci-datasets.s3.amazonaws.com/mnist/",
     "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    DIGITS, "mnist", labels="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2")

FASHION = IdxSet(
    "fashion_mnist",
    tuple(IdxFile(name, shape, Content(size, md5=md5)) for name, shape, size, md5 in zip(
        NAMES, SHAPES, SIZES,
        ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
         "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"))),
    ("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
     "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
     "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"),
    CLOTHES, "fashion", not_labels=MNIST.labels)


def mnist(data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """MNIST, 70,000 handwritten digits of 28 x 28 pixels.

    x (60000, 1, 28, 28) uint8; `test` has 10,000. The labels must be those of MNIST, by their
    SHA-256: other data sets have files of the same names. Downloads are compared with the SHA-256
    of the unpacked files.

    Args:
        data_dir: a folder with the four files, plain or packed with gzip, in it or in a folder
            below, with their usual names in any spelling. By default `$XPNET_HOME`, then the user's
            cache folder, then a download, which is kept in the cache folder.

    Raises:
        FileNotFoundError: a file is missing in `data_dir`.
        ValueError: a file is not the one of MNIST.
        OSError: the download failed.

    LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    return _load(MNIST, data_dir)


def fashion_mnist(data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Fashion-MNIST, 70,000 pictures of clothes, shoes and bags of 28 x 28 pixels.

    x (60000, 1, 28, 28) uint8; `test` has 10,000. Downloads are compared with the MD5 that the
    authors publish for the packed files. Of other files, shapes and labels are checked, and that
    the labels are not MNIST's, whose files have the same names.

    Args:
        data_dir: see `mnist`; outside of `data_dir`, the name of the folder must contain "fashion".

    Raises:
        As `mnist` does.

    Xiao, Rasul, Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms", 2017.
    """
    return _load(FASHION, data_dir)


def _load(kind: IdxSet, data_dir: str | os.PathLike[str] | None) -> Dataset:
    names = [file.name for file in kind.files]
    found = locate(kind.name, data_dir, lambda root: _search(kind, root, data_dir is not None),
                   names, lambda folder: _download(kind, folder),
                   " Folders that are named after another data set are left out.")
    x, y, x_test, y_test = (_read(found[file.name], file, kind) for file in kind.files)
    _expect_labels(kind, y_test, found[names[-1]])
    return dataset(kind.name, x[:, None], y, x_test[:, None], y_test, kind.classes)


def _search(kind: IdxSet, root: Path, named: bool) -> Files | None:
    """The files in `root`, in the first folder whose name, from `root` on, fits; in a folder that
    the user named, any folder that is not called like another data set, if there is no such."""
    found = list(layouts(root, [file.name for file in kind.files]))

    def word(files: Files) -> str:
        """The part of the path that says which data set it is."""
        folder = files[kind.files[-1].name].parent
        path = plain(str(folder.relative_to(root))).replace("-", "")
        return next((other for other in OTHERS if other in path),
                    "mnist" if "mnist" in path else "")

    own = [files for files in found if word(files) == kind.folder]
    # Without a name they may be anyone's: MNIST's are known by their labels.
    own += [files for files in found if word(files) == "" and (named or kind.labels)]
    return own[0] if own else None


def _download(kind: IdxSet, folder: Path) -> Files:
    """The files in `folder`; those that are missing are downloaded."""
    found = {}
    for file in kind.files:
        packed, path = folder / f"{file.name}.gz", folder / file.name
        if not (path.is_file() or packed.is_file()):
            fetch([mirror + packed.name for mirror in kind.mirrors], packed, file.content)
        found[file.name] = path if path.is_file() else packed
    return found


def _read(path: Path, file: IdxFile, kind: IdxSet) -> np.ndarray:
    with open(path, "rb") as packed:
        array = idx_array(packed, f"{kind.name} '{path}'", file.shape)
    last = len(kind.classes) - 1
    if array.ndim == 1 and array.max(initial=0) > last:
        raise ValueError(f"{kind.name} '{path}': expected labels from 0 to {last}. "
                         f"Received: a label {array.max()}.")
    return array


def _expect_labels(kind: IdxSet, y_test: np.ndarray, path: Path) -> None:
    header = b"\0\0\x08\x01" + len(y_test).to_bytes(4, "big")
    received = hashlib.sha256(header + y_test.tobytes()).hexdigest()
    if kind.labels and received != kind.labels:
        raise ValueError(f"{kind.name} '{path}': expected the labels of MNIST. Received: others; "
                         "Fashion-MNIST's files, for example, have the same names.")
    if received == kind.not_labels:
        raise ValueError(f"{kind.name} '{path}': expected labels of clothes. Received: the labels "
                         "of MNIST, whose files have the same names.")
