"""Folders of pictures: one folder for each class, converted once and kept as a memory map."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xpnet.backends.cpu.threads import get_num_threads
from xpnet.backends.user_cache import cache_folder
from xpnet.checks import expect_flag, expect_seed, expect_share, shown, warn_caller
from xpnet.data import cache as stored
from xpnet.data.dataset import Dataset
from xpnet.data.images import SUFFIXES, ImageError, decode, pillow, sample_shape
from xpnet.io.files import name_of, one_at_a_time

WHO = "image_folder"
PARTS = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
         "validation": "validation", "dev": "validation", "test": "test", "testing": "test"}
NO_CLASSES = {"__macosx", "@eadir"}     # folders that archives and file servers add
DEEPEST = 8                             # folders inside the folder of a class
CHUNK = 512                             # pictures that are converted before any is written


def image_folder(folder: str | os.PathLike[str], size: int | tuple[int, int], *, channels: int = 3,
                 fit: str = "crop", validation: float | None = None, seed: int = 0,
                 cache: bool | str | os.PathLike[str] = True, skip_damaged: bool = False
                 ) -> Dataset:
    """The pictures of a folder that has a folder for each class, as images (channels, size, size)
    of bytes.

        folder/CLASS/**/picture.jpg            or        folder/train/CLASS/**/picture.jpg
                                                         folder/val/CLASS/**/picture.jpg
                                                         folder/test/CLASS/**/picture.jpg

    Classes and pictures are sorted by name, in the same order on every platform. Hidden files and
    files that are no pictures by their suffix are left out. `test` may have its pictures without
    folders for classes; then they have no labels.

    The pictures are converted once, in threads, as `read_image` does it, and kept in one file in
    the user's cache folder, which later runs map into memory: the images may be larger than the
    memory. It is made again if a picture is added, removed or changed (by name, size or time).
    Of several processes that begin together, one converts and the others wait for the file.

    Args:
        size: H = W, or (H, W).
        channels: 3 for colours, 1 for grey.
        fit: "crop" or "stretch", see `read_image`.
        validation: the share of the training pictures that is split off, see `Dataset.split`.
        seed: of this split.
        cache: True for the cache folder, False to keep the images in memory only, or another folder
            for the file.
        skip_damaged: leave out pictures that cannot be read, with a warning that counts them.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has not this form, or a picture cannot be read.
        ImportError: Pillow is not installed.
    """
    root = Path(name_of(folder, WHO)).expanduser()
    shape, fit = sample_shape(WHO, size, channels, fit)
    share = 0.0 if validation is None else expect_share(WHO, "validation", validation)
    seed, skip = expect_seed(WHO, seed), expect_flag(WHO, "skip_damaged", skip_damaged)
    place = _place(cache)
    pillow(WHO)
    if not root.is_dir():
        raise FileNotFoundError(f"{WHO}: expected a folder. Received: {root}, which "
                                f"{'is a file' if root.exists() else 'does not exist'}.")
    settings = _Settings(shape, fit, place, skip)
    parts = _parts(root)
    train = _labelled(parts["train"], settings, None)
    names = train.classes
    held_out = parts.get("validation")
    if held_out is not None and share:
        raise ValueError(f"{WHO}: expected no share for validation, because the folder has "
                         f"{held_out.name}. Received: validation={share:g}.")
    if held_out is not None:
        train.validation = _labelled(held_out, settings, names)
    if "test" in parts:
        folders = _folders(parts["test"])
        train.test = (_labelled(parts["test"], settings, names) if folders
                      else _unlabelled(parts["test"], settings, names))
    return train.split(share, seed) if share else train


class _Settings(NamedTuple):
    shape: tuple[int, int, int]
    fit: str
    place: Path | None          # where the cache file goes; None for memory
    skip: bool


class _Picture(NamedTuple):
    path: Path
    name: str                   # relative to the part's folder, with /
    size: int
    time: int


def _place(cache: object) -> Path | None:
    if isinstance(cache, bool | np.bool_):
        return cache_folder() / "images" if cache else None
    if not isinstance(cache, str | os.PathLike):
        raise ValueError(f"{WHO}: expected cache to be True, False or a folder. "
                         f"Received: cache={shown(cache)}.")
    return Path(name_of(cache, WHO)).expanduser()


# --- finding --------------------------------------------------------------------------------------

def _parts(root: Path) -> dict[str, Path]:
    """The folders of the parts: the folder itself, or those in it that are called train, val and
    test."""
    found: dict[str, Path] = {}
    folders = _folders(root)
    names = {name: PARTS.get(name.casefold()) for name in folders}
    if "train" not in names.values() or None in names.values():
        return {"train": root}
    for name, part in names.items():
        if part in found:
            raise ValueError(f"{WHO}: expected one folder for {part}. "
                             f"Received: {found[part].name} and {name} in {root}.")
        found[str(part)] = folders[name]
    return found


def _folders(root: Path) -> dict[str, Path]:
    """The folders in a folder by their names, sorted. The names are normalised, because macOS
    decomposes letters with accents."""
    found = {}
    with os.scandir(root) as entries:
        for entry in entries:
            if (entry.is_dir() and not entry.name.startswith(".")
                    and entry.name.casefold() not in NO_CLASSES):
                found[unicodedata.normalize("NFC", entry.name)] = root / entry.name
    return dict(sorted(found.items()))


def _pictures(folder: Path, prefix: str, who: str, depth: int = 0) -> Iterator[_Picture]:
    """The pictures in a folder and in the folders inside it; links to folders are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}{unicodedata.normalize('NFC', entry.name)}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if depth == DEEPEST:
                    raise ValueError(f"{who}: expected at most {DEEPEST} folders inside each "
                                     f"other. Received: {entry.path}.")
                if entry.name.casefold() not in NO_CLASSES:
                    yield from _pictures(folder / entry.name, f"{name}/", who, depth + 1)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                about = entry.stat()
                yield _Picture(folder / entry.name, name, about.st_size, about.st_mtime_ns)


def _sorted(folder: Path, prefix: str, who: str = WHO) -> list[_Picture]:
    return sorted(_pictures(folder, prefix, who), key=lambda picture: picture.name)


def pictures_in(folder: Path, who: str) -> list[Path]:
    """The pictures in a folder and in the folders inside it, sorted by name."""
    found = [picture.path for picture in _sorted(folder, "", who)]
    if not found:
        raise ValueError(f"{who}: expected pictures. Received: none in {folder}.")
    return found


# --- parts ----------------------------------------------------------------------------------------

def _labelled(folder: Path, settings: _Settings, names: tuple[str, ...] | None) -> Dataset:
    """A part whose pictures are in folders of classes; `names` are those of the training part."""
    folders = _folders(folder)
    if names is None:
        names = tuple(folders)
        if len(names) < 2:
            hint = f", {names[0]!r}; perhaps {folders[names[0]]} is meant" if names else ""
            raise ValueError(f"{WHO}: expected a folder for each of two classes or more in "
                             f"{folder}. Received: {len(names)}{hint}.")
    unknown = [name for name in folders if name not in names]
    if unknown:
        raise ValueError(f"{WHO}: expected the classes of the training part in {folder}. "
                         f"Received: {unknown[0]!r}, which is not among them.")
    pictures: list[_Picture] = []
    labels: list[int] = []
    for name, path in folders.items():
        found = _sorted(path, f"{name}/")
        if not found:
            raise ValueError(f"{WHO}: expected pictures in the folder of each class. "
                             f"Received: none in {path}.")
        pictures += found
        labels += [names.index(name)] * len(found)
    images = _converted(folder, pictures, settings)
    kept = np.delete(np.array(labels, np.int64), images.skipped)
    return _data(folder, images, settings, names, kept)


def _unlabelled(folder: Path, settings: _Settings, names: tuple[str, ...] | None) -> Dataset:
    pictures = _sorted(folder, "")
    if not pictures:
        raise ValueError(f"{WHO}: expected pictures. Received: none in {folder}.")
    return _data(folder, _converted(folder, pictures, settings), settings, names)


def _data(folder: Path, images: stored.Images, settings: _Settings, names: tuple[str, ...] | None,
          labels: np.ndarray | None = None) -> Dataset:
    data = Dataset(images.pixels, labels, classes=names, name=folder.name)
    data.image_fit = settings.fit
    return data


def _converted(folder: Path, pictures: list[_Picture], settings: _Settings) -> stored.Images:
    """The images of the pictures: from the cache file, or converted and kept there."""
    about = [str(folder.resolve()), settings.shape, settings.fit]
    key = stored.digest([*about, [picture[1:] for picture in pictures]])
    start = stored.digest(about)[:16]
    path = None if settings.place is None else settings.place / f"{start}-{key[:16]}.pixels"

    def kept() -> stored.Images | None:
        found = None if path is None else stored.load(path, key, settings.shape, len(pictures))
        return None if found is not None and found.skipped and not settings.skip else found

    images = kept()
    if images is None and path is not None:
        with suppress(OSError):             # an error of `store` explains why
            path.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(path.parent):    # several processes of a training, for example
            images = kept() or _convert(path, key, pictures, settings)
            stored.remove_others(path, f"{start}-*.pixels")
    elif images is None:
        images = _convert(None, key, pictures, settings)
    if images.skipped:
        first = pictures[images.skipped[0]].path
        warn_caller(f"{WHO}: skipped {len(images.skipped)} of {len(pictures)} pictures that "
                      f"cannot be read, the first of them {first}")
    return images


def _convert(path: Path | None, key: str, pictures: list[_Picture], settings: _Settings
             ) -> stored.Images:
    decoded = _decoded(pictures, settings)
    if path is None:
        found = list(decoded)
        skipped = [number for number, image in enumerate(found) if image is None]
        if len(skipped) == len(found):
            raise ValueError(stored.NONE)
        return stored.Images(np.stack([image for image in found if image is not None]), skipped)
    stored.store(path, key, settings.shape, decoded)
    images = stored.load(path, key, settings.shape, len(pictures))
    if images is None:
        raise OSError(f"{WHO}: expected to read {path}, which was just written. Received: other "
                      "content.")
    return images


def _decoded(pictures: list[_Picture], settings: _Settings) -> Iterator[np.ndarray | None]:
    """The images in order, converted in threads; None for one that is skipped."""
    from tqdm import tqdm

    def image(picture: _Picture) -> np.ndarray | None:
        try:
            return decode(picture.path, settings.shape, settings.fit, WHO)
        except ImageError:
            if settings.skip:
                return None
            raise

    with (ThreadPoolExecutor(get_num_threads()) as pool,
          tqdm(total=len(pictures), desc="converting", unit="picture", disable=None) as bar):
        for start in range(0, len(pictures), CHUNK):
            for result in pool.map(image, pictures[start:start + CHUNK]):
                bar.update()
                yield result
