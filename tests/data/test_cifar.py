"""CIFAR's binary files, in folders and in archives; damaged ones are refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tracemalloc

import numpy as np
import pytest

from tests.data.test_idx import save
from xpnet.data import cifar, cifar10, cifar100
from xpnet.data.download import Content

IMAGES, TESTED = 4, 3


@pytest.fixture
def ten(monkeypatch):
    """A CIFAR-10 of 5 x 4 + 3 images: name -> content."""
    monkeypatch.setattr(cifar, "TEN", cifar.TEN._replace(images=IMAGES, tested=TESTED))
    return contents(cifar.TEN.files, 1, (10,))


@pytest.fixture
def hundred(monkeypatch):
    monkeypatch.setattr(cifar, "HUNDRED", cifar.HUNDRED._replace(images=IMAGES, tested=TESTED))
    return contents(cifar.HUNDRED.files, 2, (20, 100))


def contents(names, labels, classes) -> dict[str, bytes]:
    rng = np.random.default_rng(labels)
    found = {}
    for name in names:
        count = TESTED if name == names[-1] else IMAGES
        records = rng.integers(0, 256, (count, labels + 3072)).astype(np.uint8)
        records[:, :labels] = rng.integers(0, classes, (count, labels))
        found[name] = records.tobytes()
    return found


def tar(files: dict[str, bytes], folder: str, kind: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=kind) as archive:
        info = tarfile.TarInfo(folder)
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def expected_of(files: dict[str, bytes], names: list[str], labels: int):
    """Images and labels, read byte by byte."""
    x, y = [], []
    for name in names:
        raw = files[name]
        for at in range(0, len(raw), labels + 3072):
            y.append(list(raw[at:at + labels]))
            x.append([[[raw[at + labels + c * 1024 + i * 32 + j] for j in range(32)]
                       for i in range(32)] for c in range(3)])
    return np.array(x, np.uint8), np.array(y)


PLACES = {
    "folder": lambda path, files: [save(path / name, raw) for name, raw in files.items()],
    "its usual folder": lambda path, files: [
        save(path / "cifar-10-batches-bin" / name, raw) for name, raw in files.items()],
    "packed, in capitals": lambda path, files: [
        save(path / "x" / f"{name.upper()}.gz", gzip.compress(raw)) for name, raw in files.items()],
    "archive": lambda path, files: save(path / "cifar-10-binary.tar.gz", tar(files, "cifar-10")),
    "archive elsewhere": lambda path, files: save(path / "a" / "CIFAR_10-binary.tgz",
                                                  tar(files, "./cifar-10")),
    "unpacked archive": lambda path, files: save(path / "cifar-10-binary.tar",
                                                 tar(files, "cifar-10", "w")),
    "archive, other order": lambda path, files: save(
        path / "cifar-10-binary.tar.gz", tar(dict(reversed(files.items())), "cifar-10")),
}


@pytest.mark.parametrize("place", PLACES)
def test_cifar10(tmp_path, ten, nowhere, monkeypatch, place):
    PLACES[place](tmp_path / "data", ten)
    names = list(cifar.TEN.files)
    monkeypatch.setenv("XPNET_HOME", str(tmp_path / "data"))
    for data in (cifar10(tmp_path / "data"), cifar10()):
        x, y = expected_of(ten, names[:-1], 1)
        np.testing.assert_array_equal(data[:][0], x, strict=True)
        np.testing.assert_array_equal(data.labels, y[:, 0])
        x, y = expected_of(ten, names[-1:], 1)
        np.testing.assert_array_equal(data.test[:][0], x)
        np.testing.assert_array_equal(data.test.labels, y[:, 0])
    assert data.classes[3] == "cat" and data.scale == 255 and data.name == "cifar10"


@pytest.mark.parametrize("packed", [False, True])
def test_cifar100(tmp_path, hundred, nowhere, packed):
    if packed:
        save(tmp_path / "cifar-100-binary.tar.gz", tar(hundred, "cifar-100-binary"))
    else:
        for name, raw in hundred.items():
            save(tmp_path / "cifar-100-binary" / name, raw)
    fine, coarse = cifar100(data_dir=tmp_path), cifar100("coarse", tmp_path)
    x, y = expected_of(hundred, ["train.bin"], 2)
    np.testing.assert_array_equal(fine[:][0], x)
    np.testing.assert_array_equal(fine.labels, y[:, 1])
    np.testing.assert_array_equal(coarse.labels, y[:, 0])
    assert len(fine.classes) == 100 and len(coarse.classes) == 20
    assert fine.classes[99] == "worm" and coarse.classes[0] == "aquatic_mammals"
    with pytest.raises(ValueError, match="expected labels to be 'fine' or 'coarse'"):
        cifar100("all")


def test_downloads(tmp_path, ten, nowhere, mirror, monkeypatch):
    content = tar(ten, "cifar-10")
    mirror.put("cifar-10-binary.tar.gz", content)
    monkeypatch.setattr(cifar, "MIRRORS", (mirror.url + "not/", mirror.url))
    monkeypatch.setattr(cifar, "TEN", cifar.TEN._replace(
        content=Content(len(content), md5=hashlib.md5(content).hexdigest())))
    assert len(cifar10()) == len(cifar10()) == 20
    assert mirror.asked == ["/not/cifar-10-binary.tar.gz", "/cifar-10-binary.tar.gz"]
    assert os.listdir(nowhere / "cifar10") == ["cifar-10-binary.tar.gz"]


def test_without_a_network(nowhere, hundred, mirror, monkeypatch):
    monkeypatch.setattr(cifar, "MIRRORS", (mirror.url,))
    with pytest.raises(OSError, match="(?s)fetch 'cifar-100-binary.tar.gz': .*404.*put the file "
                                      "into .*cifar100, or name a folder that has it"):
        cifar100()


def test_the_pickled_version_is_not_read(tmp_path, ten, nowhere):
    for k in range(1, 6):
        save(tmp_path / "cifar-10-batches-py" / f"data_batch_{k}", b"cos\nsystem\n")
    with pytest.raises(FileNotFoundError, match="expected the files data_batch_1.bin, .* Received: "
                                                "a folder that has none of them. The archive .* "
                                                "pickle could run code: take the binary version."):
        cifar10(tmp_path)


def test_damaged_folders(tmp_path, ten, nowhere):
    for name, raw in ten.items():
        save(tmp_path / name, raw)
    for name, raw in ten.items():
        for damaged, message in ((raw[:-1], f"expected {len(raw)} bytes, . records of 3073. "
                                            f"Received: {len(raw) - 1}; the file is truncated."),
                                 (raw[:1], "Received: 1; the file is truncated."),
                                 (b"", "Received: 0; the file is truncated."),
                                 (raw + b"x", "more than .* the file is too long."),
                                 (b"\x0a" + raw[1:], "expected labels from 0 to 9. "
                                                     "Received: a label 10.")):
            save(tmp_path / name, damaged)
            with pytest.raises(ValueError, match=f"^cifar10 '.*{name}': .*{message}"):
                cifar10(tmp_path)
        save(tmp_path / name, raw)


def test_damaged_archives(tmp_path, ten, nowhere):
    path = tmp_path / "cifar-10-binary.tar.gz"
    good = tar(ten, "cifar-10")
    lacking = tar(dict(list(ten.items())[:3]), "cifar-10")
    cases = [(lacking, "Received: an archive without data_batch_4.bin"), (b"", "Received: "),
             (b"not a tar archive" * 99, "expected a sound tar archive"),
             (good[:len(good) // 2], "expected a whole gzip file"), (good[:5], "a whole gzip file"),
             (tar({"test_batch.bin": b"x"}, "cifar-10"), "Received: 1; the file is truncated")]
    for content, message in cases:
        save(path, content)
        with pytest.raises(ValueError, match=f"^cifar10 '.*'.*: .*{message}") as caught:
            cifar10(tmp_path)
        assert "\n" not in str(caught.value)


def test_damaged_bytes_of_an_archive(tmp_path, ten, nowhere, number):
    """Headers with any sizes: an error of one line or the images, and never a huge array."""
    rng, good = np.random.default_rng(0), tar(ten, "cifar-10", "w")
    headers = [k * 512 for k in range(len(good) // 512) if good[k * 512 + 257:][:5] == b"ustar"]
    assert len(headers) == 7
    path, refused = tmp_path / "cifar-10-binary.tar", 0
    tracemalloc.start()
    for _ in range(number(200)):
        raw = bytearray(good)
        at = int(rng.choice(headers))
        for _ in range(rng.integers(1, 4)):
            raw[at + rng.integers(0, 512)] = rng.integers(0, 256)
        if rng.integers(2):         # a checksum that is right: the damage is believed
            raw[at + 148:at + 156] = b" " * 8
            raw[at + 148:at + 156] = b"%06o\0 " % sum(raw[at:at + 512])
        save(path, bytes(raw))
        try:
            assert len(cifar10(tmp_path)) == 20
        except ValueError as error:
            refused += 1
            assert str(error).startswith("cifar10 '") and "\n" not in str(error)
    assert refused > 5 and tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_an_archive_that_unpacks_to_much(tmp_path, ten, nowhere, monkeypatch):
    monkeypatch.setattr(cifar, "MOST", 1 << 20)
    save(tmp_path / "cifar-10-binary.tar.gz", tar({"a": bytes(1 << 22), **ten}, "cifar-10"))
    with pytest.raises(ValueError, match="expected a sound tar archive. Received: a damaged one "
                                         r"\(more than 1048576 bytes\)"):
        cifar10(tmp_path)
