"""Converted images on disk: one file, written once, which later runs map into memory.

    pixels, N x C x H x W bytes | footer, JSON | SHA-256 of the footer | its length, 8 bytes | MAGIC

The footer has the key that the pixels follow from, the shape, which pictures were skipped, and a
digest of 64 images. It comes last, because only then is the number of images known. A file of
another length or with another digest is damaged, and is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xpnet.checks import is_integer
from xpnet.io.files import atomic_file

MAGIC = b"xpnet pixels 1\n\0"
TAIL = 32 + 8 + len(MAGIC)
LONGEST = 1 << 26           # bytes of a footer
SAMPLED = 64
NONE = "image_folder: expected a picture that can be read. Received: none."


class Images(NamedTuple):
    pixels: np.ndarray          # (N, C, H, W) uint8, read-only
    skipped: list[int]          # the pictures that could not be read


def load(path: Path, key: str, shape: Sequence[int], count: int) -> Images | None:
    """The images of `count` pictures in a cache file that was written with this key, or None if
    there is no such file, or it is damaged."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - TAIL, 0))
            tail = file.read(TAIL)
            length = int.from_bytes(tail[32:40], "little")
            if not tail.endswith(MAGIC) or len(tail) < TAIL or length > min(LONGEST, size - TAIL):
                return None
            file.seek(size - TAIL - length)
            footer = file.read(length)
            if hashlib.sha256(footer).digest() != tail[:32]:
                return None
            about = json.loads(footer)
            skipped = about["skipped"]
            N = count - len(skipped)
            if (about["key"] != key or N < 1 or not all(is_integer(i, 0, count - 1)
                                                        for i in skipped)
                    or size != N * int(np.prod(shape)) + length + TAIL):
                return None
            pixels = np.memmap(file, np.uint8, "r", shape=(N, *shape))
            return Images(pixels, skipped) if _sampled(pixels) == about["sampled"] else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def store(path: Path, key: str, shape: Sequence[int], images: Iterable[np.ndarray | None]) -> None:
    """Write the images in their order; None is a picture that is skipped.

    Raises ValueError if all are skipped, and OSError if the file cannot be written.
    """
    skipped, N = [], 0
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        for number, image in enumerate(images):
            if image is None:
                skipped.append(number)
            else:
                with _explained(path):
                    file.write(image.tobytes())
                N += 1
        if N == 0:
            raise ValueError(NONE)
        with _explained(path):
            file.flush()
            pixels = np.memmap(file, np.uint8, "r", shape=(N, *shape))
            about = {"key": key, "skipped": skipped, "sampled": _sampled(pixels)}
            del pixels
            footer = json.dumps(about).encode()
            file.seek(0, 2)
            file.write(footer + hashlib.sha256(footer).digest()
                       + len(footer).to_bytes(8, "little") + MAGIC)
            file.flush()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"image_folder: expected to keep the images in {path.parent}; "
                      f"cache=False keeps them in memory. Received: {error.strerror}") from error


def remove_others(path: Path, pattern: str) -> None:
    """Remove older files of the same folder and settings. On Windows, files that a process has
    mapped stay."""
    for other in path.parent.glob(pattern):
        if other != path:
            with suppress(OSError):
                other.unlink()


def _sampled(pixels: np.ndarray) -> str:
    some = np.unique(np.arange(SAMPLED) * (len(pixels) - 1) // (SAMPLED - 1))
    return hashlib.sha256(pixels[some].tobytes()).hexdigest()


def digest(parts: Any) -> str:
    """A key: the digest of what JSON can hold."""
    text = json.dumps(parts, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
