"""CIFAR-10 and CIFAR-100 in their binary format: records of one or two labels and 3,072 bytes."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from xpnet.checks import expect_choice
from xpnet.data.dataset import Dataset
from xpnet.data.download import Content, fetch
from xpnet.data.find import Files, all_files, layouts, locate, plain
from xpnet.data.idx import read_at_most, unpacked
from xpnet.data.standard import dataset

PIXELS = 3 * 32 * 32
MOST = 1 << 28              # bytes of an unpacked archive, which have 185 million
MIRRORS = "https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"
PICKLED = (" The Python version of CIFAR is pickled, and a pickle could run code: take the binary "
           "version.")

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
FINE = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
tulip turtle wardrobe whale willow_tree wolf woman worm"""
COARSE = """aquatic_mammals fish flowers food_containers fruit_and_vegetables
household_electrical_devices household_furniture insects large_carnivores
large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2"""


class CifarSet(NamedTuple):
    name: str
    files: tuple[str, ...]          # of training, and the one for testing
    images: int                     # in each training file; 10,000 in the other
    tested: int
    labels: int                     # bytes before the pixels
    archive: str
    content: Content


TEN = CifarSet("cifar10", (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"),
               10000, 10000, 1, "cifar-10-binary.tar.gz",
               Content(170_052_171, md5="c32a1d4ab5d03f1284b67883e8d87530"))
HUNDRED = CifarSet("cifar100", ("train.bin", "test.bin"), 50000, 10000, 2,
                   "cifar-100-binary.tar.gz",
                   Content(168_513_733, md5="03b5dce01913d631647c71ecec9e9cb8"))


def cifar10(data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """CIFAR-10, 60,000 colour images of 32 x 32 pixels in ten classes.

        record = label (1 byte) | 1024 red | 1024 green | 1024 blue, row by row

    x (50000, 3, 32, 32) uint8; `test` has 10,000. A download is compared with the MD5 that its
    author publishes for the archive; of other files, sizes and labels are checked.

    Args:
        data_dir: a folder with the six .bin files of the binary version, or with its archive
            cifar-10-binary.tar.gz, in it or in a folder below. By default `$XPNET_HOME`, then the
            user's cache folder, then a download, which is kept in the cache folder.

    Raises:
        As `mnist` does.

    Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    (x, y), (x_test, y_test) = _load(TEN, data_dir)
    return dataset("cifar10", x, y[:, 0], x_test, y_test[:, 0], CIFAR10.split())


def cifar100(labels: str = "fine", data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """CIFAR-100, 60,000 colour images of 32 x 32 pixels in 100 classes, or in 20 groups of them.

        record = group (1 byte) | class (1 byte) | 1024 red | 1024 green | 1024 blue, row by row

    x (50000, 3, 32, 32) uint8; `test` has 10,000. Checked as `cifar10`.

    Args:
        labels: "fine" for the 100 classes, "coarse" for the 20 groups.
        data_dir: as for `cifar10`: train.bin and test.bin, or cifar-100-binary.tar.gz.

    Raises:
        As `mnist` does.

    Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    which = expect_choice("cifar100", "labels", labels, ("fine", "coarse"))
    (x, y), (x_test, y_test) = _load(HUNDRED, data_dir)
    column, names = (1, FINE) if which == "fine" else (0, COARSE)
    return dataset("cifar100", x, y[:, column], x_test, y_test[:, column], names.split())


Part = tuple[np.ndarray, np.ndarray]        # images (N, 3, 32, 32), labels (N, 1 or 2)


def _load(kind: CifarSet, data_dir: str | os.PathLike[str] | None) -> tuple[Part, Part]:
    found = locate(kind.name, data_dir, lambda root: _search(kind, root), kind.files,
                   lambda folder: _download(kind, folder),
                   f" The archive {kind.archive} will do, too.{PICKLED}")
    count = len(kind.files) - 1
    train, test = _empty(kind, count * kind.images), _empty(kind, kind.tested)
    missing = set(kind.files)
    for name, content, who in _contents(kind, found):
        if name == kind.files[-1]:
            x, y = test
        else:
            start = kind.files.index(name) * kind.images
            x, y = (a[start:start + kind.images] for a in train)
        _take(content, who, kind, x, y)
        missing.discard(name)
    if missing:
        raise ValueError(f"{kind.name} '{next(iter(found.values()))}': expected "
                         f"{', '.join(kind.files)} in the archive. "
                         f"Received: an archive without {min(missing)}.")
    return train, test


def _empty(kind: CifarSet, count: int) -> Part:
    return (np.empty((count, 3, 32, 32), np.uint8), np.empty((count, kind.labels), np.uint8))


def _search(kind: CifarSet, root: Path) -> Files | None:
    files = next(layouts(root, kind.files), None)
    if files is not None:
        return files
    return next(({kind.archive: path} for path in all_files(root)
                 if plain(path.name).removesuffix("-tar").removesuffix("-tgz")
                 == plain(kind.archive).removesuffix("-tar")), None)


def _download(kind: CifarSet, folder: Path) -> Files:
    fetch([mirror + kind.archive for mirror in MIRRORS], folder / kind.archive, kind.content)
    return {kind.archive: folder / kind.archive}


def _contents(kind: CifarSet, found: Files) -> Iterator[tuple[str, bytearray, str]]:
    """The content of each file with its name and how errors name it: from a folder, or from the
    archive, which is read once and never unpacked to the disk. At most a byte more than the file
    should have."""
    def read(name: str, file: IO[bytes]) -> bytearray:
        images = kind.tested if name == kind.files[-1] else kind.images
        return read_at_most(file, images * (kind.labels + PIXELS) + 1)

    if kind.archive not in found:
        for name, path in found.items():
            who = f"{kind.name} '{path}'"
            with open(path, "rb") as packed, unpacked(packed, who) as file:
                content = read(name, file)
            yield name, content, who
        return
    path, wanted = found[kind.archive], {plain(name): name for name in kind.files}
    who = f"{kind.name} '{path}'"
    with open(path, "rb") as packed, unpacked(packed, who) as inside:
        try:
            # A stream asks for few bytes at a time, whatever lengths a damaged archive declares.
            archive = tarfile.open(fileobj=_Bounded(inside), mode="r|")     # type: ignore[call-overload]
            for member in archive:
                name = wanted.get(plain(os.path.basename(member.name)), "")
                if name and member.isreg() and (part := archive.extractfile(member)):
                    yield name, read(name, part), f"{who}, {member.name}"
        except (tarfile.TarError, ValueError) as error:
            raise ValueError(f"{who}: expected a sound tar archive. "
                             f"Received: a damaged one ({error}).") from error


class _Bounded:
    """A file of which no more than MOST bytes can be read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, MOST

    def read(self, size: int) -> bytes:
        content = self.file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise tarfile.ReadError(f"more than {MOST} bytes")
        return content


def _take(content: bytearray, who: str, kind: CifarSet, x: np.ndarray, y: np.ndarray) -> None:
    """Copy the records of a file into images and labels."""
    record = kind.labels + PIXELS
    if len(content) != len(x) * record:
        more = len(content) > len(x) * record
        received = f"more than {len(x) * record}" if more else len(content)
        raise ValueError(f"{who}: expected {len(x) * record} bytes, {len(x)} records of {record}. "
                         f"Received: {received}; the file is {'too long' if more else 'truncated'}"
                         ".")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    y[:] = records[:, :kind.labels]
    x[:] = records[:, kind.labels:].reshape(x.shape)
    for column, classes in enumerate((10,) if kind.labels == 1 else (20, 100)):
        if y[:, column].max() >= classes:
            raise ValueError(f"{who}: expected labels from 0 to {classes - 1}. "
                             f"Received: a label {y[:, column].max()}.")
