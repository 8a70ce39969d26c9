"""EMNIST: handwritten letters and digits, turned the right way round."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import BinaryIO

import numpy as np

from xpnet.checks import expect_choice
from xpnet.data.dataset import Dataset
from xpnet.data.download import Content, fetch
from xpnet.data.find import Files, all_files, layouts, locate, plain
from xpnet.data.idx import idx_array, read_at_most
from xpnet.data.standard import dataset

SPLITS = {      # the classes of each; upper and lower case are merged where they look alike
    "byclass": digits + ascii_uppercase + ascii_lowercase,
    "bymerge": digits + ascii_uppercase + "abdefghnqrt",
    "balanced": digits + ascii_uppercase + "abdefghnqrt",
    "letters": ascii_uppercase,
    "digits": digits,
    "mnist": digits,
}
ARCHIVE = "gzip.zip"        # of all splits, 536 MB
ARCHIVES = {"gzip-zip", "emnist-zip", "emnist-gzip-zip"}
URLS = ("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
        "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip")
CONTENT = Content(600_000_000, md5="58c8d27c78d21e728a6bc7b3cc06412e")
MOST = 1 << 30              # bytes of a file in the archive


def emnist(split: str = "balanced", data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """EMNIST, handwritten digits and letters of 28 x 28 pixels in the form of MNIST.

    x (N, 1, 28, 28) uint8, with a `test` part. The files have the images transposed; here they are
    upright. The labels of "letters", 1 to 26 in the files, are 0 to 25. A download, 536 MB of all
    splits, is compared with its known MD5. Of other files, shapes and labels are checked; there is
    no checksum of each that we could be sure of.

    Args:
        split: "balanced" (47 classes, 131,600 images), "letters" (26, 145,600), "digits" (10,
            280,000), "mnist" (10, 70,000), "byclass" (62, 814,255) or "bymerge" (47, 814,255).
        data_dir: a folder with the four files of the split, plain or packed with gzip, or with
            their archive gzip.zip. By default `$XPNET_HOME`, then the user's cache folder, then a
            download, which is kept in the cache folder.

    Raises:
        As `mnist` does.

    Cohen, Afshar, Tapson, van Schaik, "EMNIST: an extension of MNIST to handwritten letters", 2017.
    """
    split = expect_choice("emnist", "split", split, list(SPLITS))
    names = [f"emnist-{split}-{part}-{kind}-ubyte" for part in ("train", "test")
             for kind in ("images-idx3", "labels-idx1")]
    found = locate("emnist", data_dir, lambda root: _search(root, names), names, _download,
                   f" The archive {ARCHIVE} of all files will do, too.")
    arrays = []
    for name in names:
        with _opened(found, name) as (file, who):
            wanted = (None, 28, 28) if "images" in name else (None,)
            arrays.append(idx_array(file, who, wanted))
    x, y = _part(split, *arrays[:2])
    return dataset(f"emnist {split}", x, y, *_part(split, *arrays[2:]), tuple(SPLITS[split]))


def _part(split: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upright images (N, 1, 28, 28), and labels from 0."""
    first = 1 if split == "letters" else 0
    last = first + len(SPLITS[split]) - 1
    if len(images) != len(labels) or len(labels) == 0:
        raise ValueError(f"emnist: expected a label for each image. Received: {len(images)} images "
                         f"and {len(labels)} labels.")
    if labels.min() < first or labels.max() > last:
        raise ValueError(f"emnist: expected labels from {first} to {last} in {split}. "
                         f"Received: {labels.min()} to {labels.max()}.")
    return np.ascontiguousarray(images.transpose(0, 2, 1))[:, None], labels - first


def _search(root: Path, names: list[str]) -> Files | None:
    files = next(layouts(root, names), None)
    if files is not None:
        return files
    return next(({ARCHIVE: path} for path in all_files(root) if plain(path.name) in ARCHIVES), None)


def _download(folder: Path) -> Files:
    fetch(URLS, folder / ARCHIVE, CONTENT)
    return {ARCHIVE: folder / ARCHIVE}


@contextmanager
def _opened(found: Files, name: str) -> Iterator[tuple[BinaryIO, str]]:
    """A file, in a folder or in the archive, and how errors name it."""
    if name in found:
        with open(found[name], "rb") as file:
            yield file, f"emnist '{found[name]}'"
        return
    path = found[ARCHIVE]
    who = f"emnist '{path}'"
    try:
        with zipfile.ZipFile(path) as archive:
            member = next((info for info in archive.infolist()
                           if plain(os.path.basename(info.filename)) == name), None)
            if member is None:
                raise ValueError(f"{who}: expected {name}.gz in the archive. Received: an archive "
                                 "without it.")
            with archive.open(member) as packed:
                content = read_at_most(packed, MOST + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError,
            OverflowError) as error:
        raise ValueError(f"{who}: expected a sound zip archive. Received: {error}.") from error
    if len(content) > MOST:
        raise ValueError(f"{who}: expected at most {MOST} bytes in {name}. Received: more.")
    yield io.BytesIO(content), f"{who}, {name}"
