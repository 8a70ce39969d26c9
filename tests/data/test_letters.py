"""EMNIST: upright images, names of classes, files in folders and in NIST's archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zipfile

import numpy as np
import pytest

from tests.data.test_idx import idx_bytes, save
from xpnet.data import emnist, letters
from xpnet.data.download import Content


def files_of(split: str) -> dict[str, bytes]:
    rng, first = np.random.default_rng(0), 1 if split == "letters" else 0
    found = {}
    for part, count in (("train", 6), ("test", 3)):
        start = f"emnist-{split}-{part}"
        found[f"{start}-images-idx3-ubyte"] = idx_bytes(
            rng.integers(0, 256, (count, 28, 28)).astype(np.uint8))
        labels = rng.integers(first, first + len(letters.SPLITS[split]), count).astype(np.uint8)
        labels[0] = first + len(letters.SPLITS[split]) - 1
        found[f"{start}-labels-idx1-ubyte"] = idx_bytes(labels)
    return found


def archive(files: dict[str, bytes]) -> bytes:
    """As NIST packs them: files packed with gzip, in a folder, in a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, content in files.items():
            packed.writestr(f"gzip/{name}.gz", gzip.compress(content, mtime=0))
    return file.getvalue()


@pytest.mark.parametrize("split", letters.SPLITS)
def test_every_split(tmp_path, nowhere, split):
    files = files_of(split)
    for name, content in files.items():
        save(tmp_path / "gzip" / f"{name}.gz", gzip.compress(content))
    data = emnist(split, tmp_path)
    raw = np.frombuffer(files[f"emnist-{split}-train-images-idx3-ubyte"][16:], np.uint8)
    for n, i, j in ((0, 3, 20), (5, 27, 0), (2, 10, 11)):
        assert data[n][0][0, i, j] == raw[n * 784 + j * 28 + i]         # turned
    assert data.shape == (1, 28, 28) and len(data) == 6 and len(data.test) == 3
    labels = np.frombuffer(files[f"emnist-{split}-train-labels-idx1-ubyte"][8:], np.uint8)
    np.testing.assert_array_equal(data.labels, labels - (split == "letters"))
    assert len(data.classes) == {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26,
                                 "digits": 10, "mnist": 10}[split]
    assert data.classes[data.labels[0]] == data.classes[-1] == {
        "byclass": "z", "bymerge": "t", "balanced": "t", "letters": "Z"}.get(split, "9")


@pytest.mark.parametrize("name", ["gzip.zip", "EMNIST/raw/emnist.zip", "emnist-gzip.zip"])
def test_the_archive(tmp_path, nowhere, monkeypatch, name):
    files = {**files_of("digits"), **files_of("balanced")}
    save(tmp_path / name, archive(files))
    monkeypatch.setenv("XPNET_HOME", str(tmp_path))
    packed = emnist("balanced")
    for file, content in files.items():
        save(tmp_path / "unpacked" / file, content)
    assert packed.fingerprint() == emnist(data_dir=tmp_path / "unpacked").fingerprint()
    with pytest.raises(ValueError, match="expected emnist-letters-train-images-idx3-ubyte.gz in "
                                         "the archive. Received: an archive without it."):
        emnist("letters")


def test_downloads(nowhere, mirror, monkeypatch):
    content = archive(files_of("mnist"))
    mirror.put("gzip.zip", content)
    monkeypatch.setattr(letters, "URLS", (mirror.url + "old/gzip.zip", mirror.url + "gzip.zip"))
    monkeypatch.setattr(letters, "CONTENT", Content(10**6, md5=hashlib.md5(content).hexdigest()))
    assert len(emnist("mnist")) == len(emnist("mnist")) == 6
    assert mirror.asked == ["/old/gzip.zip", "/gzip.zip"]
    assert os.listdir(nowhere / "emnist") == ["gzip.zip"]


def test_files_that_are_wrong(tmp_path, nowhere):
    files = files_of("letters")
    names = list(files)
    for name, array, message in (
        (names[0], np.zeros((6, 28, 27), np.uint8), r"expected shape \(N, 28, 28\) of uint8. "),
        (names[1], np.zeros((6, 1), np.uint8), r"expected shape \(N,\) of uint8. "),
        (names[1], np.ones(5, np.uint8), "expected a label for each image. Received: 6 images and "
                                         "5 labels."),
        (names[3], np.array([1, 27, 2], np.uint8), "expected labels from 1 to 26 in letters. "
                                                   "Received: 1 to 27."),
        (names[3], np.array([1, 0, 2], np.uint8), "Received: 0 to 2."),
    ):
        for file, content in files.items():
            save(tmp_path / file, idx_bytes(array) if file == name else content)
        with pytest.raises(ValueError, match=f"^emnist.*{message}"):
            emnist("letters", tmp_path)
    with pytest.raises(ValueError, match="expected split to be 'byclass', .*letters.*Received: "
                                         "split='letter'"):
        emnist("letter", tmp_path)
    with pytest.raises(FileNotFoundError, match="expected the files emnist-digits-train-images.* "
                                                "Received: a folder that has none of them. The "
                                                "archive gzip.zip of all files will do, too."):
        emnist("digits", tmp_path)


def test_damaged_archives(tmp_path, nowhere, number):
    """Cut or changed anywhere: an error of one line, or the images."""
    good, rng, refused = archive(files_of("mnist")), np.random.default_rng(0), 0
    ends = range(len(good) - 800, len(good), 7)         # the table of contents is at the end
    damaged = [good[:k] for k in (0, 1, 50, len(good) // 2, *ends)]
    for _ in range(number(200)):
        raw = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            at = rng.integers(0, 400) if rng.integers(2) else rng.integers(-500, 0)
            raw[at] = rng.integers(0, 256)
        damaged.append(bytes(raw))
    for content in damaged:
        save(tmp_path / "gzip.zip", content)
        try:
            assert len(emnist("mnist", tmp_path)) == 6
        except ValueError as error:
            refused += 1
            assert str(error).startswith("emnist") and "\n" not in str(error)
    assert refused > 100
