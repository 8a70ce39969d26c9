"""Folders of pictures: what is found, in which order, and the file that keeps the images."""

from __future__ import annotations

import io
import mmap
import os
import re
import subprocess
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import xpnet as xn
from xpnet.data import cache as stored
from xpnet.data import folder as module
from xpnet.data import image_folder, read_image

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install pillow")
ROOT = Path(__file__).parents[2]


def save(path: Path, value: int, kind: str = "PNG", size: tuple[int, int] = (6, 6)) -> Path:
    """A picture of one colour, (value, 0, 255 - value)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 255 - value)).save(path, kind)
    return path


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """An empty cache folder."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    return module.cache_folder() / "images"


@pytest.fixture
def photos(tmp_path, cache) -> Path:
    """Three classes of 4, 3 and 5 pictures, with the red value 10 class + number, and other files
    among them."""
    root = tmp_path / "photos"
    for label, (name, count) in enumerate({"daisy": 4, "rose": 3, "tulip": 5}.items()):
        for i in range(count):
            save(root / name / f"{i}.png", 10 * label + i)
    save(root / "rose" / ".hidden.png", 99)
    save(root / "rose" / ".thumbnails" / "0.png", 99)
    save(root / "__MACOSX" / "rose" / "0.png", 99)
    save(root / ".cache" / "0.png", 99)
    (root / "rose" / "Thumbs.db").write_bytes(b"x")
    (root / "rose" / "notes.txt").write_bytes(b"x")
    (root / "licence.txt").write_bytes(b"x")
    return root


REDS = [0, 1, 2, 3, 10, 11, 12, 20, 21, 22, 23, 24]


def reds(data) -> list[int]:
    return data[:][0][:, 0, 0, 0].tolist()


def count_reads(monkeypatch) -> list[str]:
    """The names of the pictures that are converted from now on."""
    read, decode = [], module.decode

    def counted(path, *args):
        read.append(path.name)
        return decode(path, *args)

    monkeypatch.setattr(module, "decode", counted)
    return read


# --- what is found --------------------------------------------------------------------------------

@pytest.mark.parametrize("kept", [True, False])
def test_a_folder_for_each_class(photos, kept):
    data = image_folder(photos, 4, cache=kept)
    assert data.classes == ("daisy", "rose", "tulip") and reds(data) == REDS
    assert data.labels.tolist() == [0] * 4 + [1] * 3 + [2] * 5
    assert (data.shape, data.dtype, data.scale, data.name) == ((3, 4, 4), np.uint8, 255, "photos")
    base = data[:][0]
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap) == kept
    assert data.validation is None and data.test is None
    assert image_folder(photos, (2, 5), channels=1, cache=kept).shape == (1, 2, 5)
    assert xn.data.image_folder(str(photos), 4, cache=kept).fingerprint() == data.fingerprint()


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_a_network_knows_how_the_pictures_were_made_to_fit(fit, photos):
    data = image_folder(photos, 4, fit=fit, cache=False, validation=0.3)
    assert data.image_fit == data.validation.image_fit == fit
    net = xn.Sequential([xn.Flatten(), xn.Linear(3)], input_shape=data.shape, backend="numpy")
    net.fit(data, verbose=False)
    assert (net.trained.image_fit, net.scale, net.classes) == (fit, 255, data.classes)
    assert xn.data.Dataset(data[:][0], data.labels).image_fit is None


def test_a_share_for_validation(photos):
    data = image_folder(photos, 4, validation=0.25, seed=1)
    assert len(data) == 9 and len(data.validation) == 3
    assert sorted(reds(data) + reds(data.validation)) == REDS
    assert sorted(data.validation.labels) == [0, 1, 2]
    again = image_folder(photos, 4).split(0.25, seed=1)
    assert reds(again.validation) == reds(data.validation)
    with pytest.raises(ValueError, match="gives validation no sample of"):
        image_folder(photos, 4, validation=0.05)


def test_folders_inside_the_folder_of_a_class(photos):
    save(photos / "rose" / "1x" / "deep" / "a.JPG", 200, "JPEG")
    save(photos / "rose" / "0.Jpeg", 210, "JPEG")
    found, wanted = reds(image_folder(photos, 4)), [*REDS[:4], 210, 10, 11, 200, 12, *REDS[7:]]
    assert len(found) == 14 and np.abs(np.subtract(found, wanted)).max() < 4    # of JPEG


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "Testing"),
                                   ("TRAIN", "valid", "test"), ("train", "dev", None)])
def test_folders_of_parts(tmp_path, cache, names):
    for part, name in enumerate(names):
        for label, kind in enumerate(("a", "b", "c")):
            if name and not (part and kind == "b"):         # a class that is in training alone
                save(tmp_path / "x" / name / kind / "1.png", 10 * part + label)
    data = image_folder(tmp_path / "x", 4)
    assert data.classes == ("a", "b", "c") and reds(data) == [0, 1, 2]
    assert reds(data.validation) == [10, 12] and data.validation.labels.tolist() == [0, 2]
    assert data.validation.classes == data.classes
    if names[2]:
        assert reds(data.test) == [20, 22] and data.test.labels.tolist() == [0, 2]
    else:
        assert data.test is None


def test_a_test_folder_without_classes(tmp_path, cache):
    for name in ("train/a/1", "train/a/2", "train/b/1", "train/b/2", "test/2", "test/10"):
        save(tmp_path / f"{name}.png", int(name[-1]))
    data = image_folder(tmp_path, 4, validation=0.5)
    assert reds(data.test) == [0, 2] and data.test.labels is None       # "10.png" < "2.png"
    assert data.test.classes == ("a", "b") and len(data) == len(data.validation) == 2


def test_a_class_that_is_called_train(tmp_path, cache):
    for name in ("car", "train"):
        save(tmp_path / name / "1.png", 1)
    assert image_folder(tmp_path, 4).classes == ("car", "train")


def test_names_are_sorted_by_code_point_and_normalised(tmp_path, cache):
    names = ["Z", "a", "É", "é", "z", "日本"]
    for k, name in enumerate(reversed(names)):
        save(tmp_path / unicodedata.normalize("NFD" if k % 2 else "NFC", name) / "1.png", k)
    data = image_folder(tmp_path, 4)
    assert data.classes == tuple(sorted(names)) == ("Z", "a", "z", "É", "é", "日本")
    assert reds(data) == [5, 4, 1, 3, 2, 0]


def test_links(tmp_path, cache):
    save(tmp_path / "real" / "1.png", 1)
    save(tmp_path / "x" / "a" / "1.png", 2)
    try:
        os.symlink(tmp_path / "real", tmp_path / "x" / "b", target_is_directory=True)
        os.symlink(tmp_path / "x", tmp_path / "x" / "a" / "loop", target_is_directory=True)
        os.symlink(tmp_path / "real" / "1.png", tmp_path / "x" / "a" / "2.png")
        os.symlink(tmp_path / "nothing", tmp_path / "x" / "a" / "3.png")
    except OSError:
        pytest.skip("links cannot be made here")
    assert reds(image_folder(tmp_path / "x", 4)) == [2, 1, 1]


def test_many_pictures_keep_their_order(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    for i in range(40):
        save(tmp_path / "ab"[i % 2] / f"{i:02}.png", i, size=(3 + i, 3))
    assert reds(image_folder(tmp_path, 2)) == [*range(0, 40, 2), *range(1, 40, 2)]


@pytest.mark.parametrize("make, message", [
    (lambda x: image_folder(x / "nothing", 4), "expected a folder. Received: .*nothing, which does "
                                               "not exist"),
    (lambda x: image_folder(x / "rose" / "0.png", 4), "expected a folder. Received: .*0.png, which "
                                                      "is a file"),
    (lambda x: image_folder(x / "rose", 4), "expected a folder for each of two classes or more in "
                                            ".*rose. Received: 0."),
    (lambda x: image_folder(x.parent, 4), "Received: "),
    (lambda x: image_folder(x, 0), "expected size"),
    (lambda x: image_folder(x, 4, channels=2), "expected channels to be 1 or 3"),
    (lambda x: image_folder(x, 4, validation=1), "expected validation"),
    (lambda x: image_folder(x, 4, seed=None), "expected seed"),
    (lambda x: image_folder(x, 4, cache=1), "expected cache to be True, False or a folder. "
                                            "Received: cache=1."),
    (lambda x: image_folder(x, 4, skip_damaged="no"), "expected skip_damaged"),
    (lambda x: image_folder(3, 4), "expected the name of a file"),
])
def test_one_line_errors(photos, make, message):
    with pytest.raises((ValueError, TypeError, OSError), match=message) as caught:
        make(photos)
    assert str(caught.value).startswith("image_folder: ") and "\n" not in str(caught.value)


def test_folders_that_do_not_fit_together(tmp_path, cache):
    def folder(name, *files):
        for file in files:
            save(tmp_path / name / file, 1)
        return tmp_path / name

    for path, arguments, message in (
        (folder("one", "flowers/a/1.png", "flowers/b/1.png"), {},
         "Received: 1, 'flowers'; perhaps .*flowers is meant"),
        (folder("empty", "a/1.png", "b/.1.png"), {}, "expected pictures in the folder of each "
                                                     "class. Received: none in .*b"),
        (folder("new", "train/a/1.png", "train/b/1.png", "val/c/1.png"), {},
         "expected the classes of the training part in .*val. Received: 'c'"),
        (folder("twice", "train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"), {},
         "expected one folder for validation"),
        (folder("both", "train/a/1.png", "train/b/1.png", "val/a/1.png"), {"validation": 0.5},
         "expected no share for validation, because the folder has val. Received: validation=0.5"),
        (folder("deep", "a/1.png", "b/" + "x/" * 10 + "1.png"), {}, "expected at most 8 folders"),
    ):
        with pytest.raises(ValueError, match=message):
            image_folder(path, 4, **arguments)


# --- damaged pictures -----------------------------------------------------------------------------

@pytest.mark.parametrize("kept", [True, False])
def test_damaged_pictures(photos, kept):
    damaged = photos / "rose" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:50])
    (photos / "tulip" / "a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=f"image_folder: expected a picture. Received: "
                                         f"{re.escape(str(damaged))} \\("):
        image_folder(photos, 4, cache=kept)
    for _ in range(2):          # the second time from the cache, with the same warning
        with pytest.warns(RuntimeWarning, match="skipped 2 of 13 pictures that cannot be read, the "
                                                f"first of them {re.escape(str(damaged))}"):
            data = image_folder(photos, 4, cache=kept, skip_damaged=True)
        assert reds(data) == [r for r in REDS if r != 11]
        assert data.labels.tolist() == [0] * 4 + [1] * 2 + [2] * 5
    with pytest.raises(ValueError, match="expected a picture"):     # still, and not from the cache
        image_folder(photos, 4, cache=kept)


@pytest.mark.parametrize("kept", [True, False])
def test_nothing_but_damaged_pictures(tmp_path, cache, kept):
    for name in "ab":
        save(tmp_path / "x" / name / "1.png", 1).write_bytes(b"x")
    with pytest.raises(ValueError, match="expected a picture that can be read. Received: none."):
        image_folder(tmp_path / "x", 4, cache=kept, skip_damaged=True)
    assert not cache.is_dir() or os.listdir(cache) == []


# --- the cache ------------------------------------------------------------------------------------

def test_pictures_are_converted_once(photos, cache, monkeypatch):
    read = count_reads(monkeypatch)
    first = image_folder(photos, 4)
    assert len(read) == 12 and len(os.listdir(cache)) == 1
    again = image_folder(photos, 4)
    assert len(read) == 12 and again.fingerprint() == first.fingerprint()
    image_folder(photos, 4, cache=False)
    assert len(read) == 24
    image_folder(photos, 4, cache=photos.parent / "elsewhere")
    assert len(read) == 36 and len(os.listdir(photos.parent / "elsewhere")) == 1
    image_folder(photos, 5)                                     # other settings, another file
    image_folder(photos, 4, fit="stretch")
    image_folder(photos, 4, channels=1)
    assert len(read) == 72 and len(os.listdir(cache)) == 4
    image_folder(photos, 4)
    assert len(read) == 72


def test_a_change_of_the_folder_is_noticed(photos, cache, monkeypatch):
    read = count_reads(monkeypatch)
    image_folder(photos, 4)

    def changed():
        before = len(read)
        data = image_folder(photos, 4)
        assert len(read) > before and len(os.listdir(cache)) == 1   # the older file is removed
        return reds(data)

    save(photos / "rose" / "3.png", 13)
    assert changed() == [*REDS[:7], 13, *REDS[7:]]
    (photos / "daisy" / "0.png").unlink()
    assert changed() == [*REDS[1:7], 13, *REDS[7:]]
    (photos / "rose" / "3.png").rename(photos / "tulip" / "9.png")
    assert changed() == [*REDS[1:], 13]
    path = photos / "daisy" / "1.png"
    about, size = path.stat(), len(path.read_bytes())
    save(path, 7)
    assert path.stat().st_size == size                          # the time alone tells them apart
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1_000_000_000))
    assert changed() == [7, *REDS[2:], 13]


def test_another_folder_with_the_same_names_sizes_and_times(tmp_path, cache):
    for place, value in (("x", 1), ("y", 2)):
        for name in "ab":
            os.utime(save(tmp_path / place / name / "1.png", value), ns=(10**18, 10**18))
    assert reds(image_folder(tmp_path / "x", 4)) == [1, 1]
    assert reds(image_folder(tmp_path / "y", 4)) == [2, 2]


def test_damaged_cache_files_are_made_again(photos, cache, monkeypatch):
    image_folder(photos, 4)
    file, = cache.iterdir()
    good = file.read_bytes()
    read = count_reads(monkeypatch)
    size = 12 * 3 * 4 * 4
    assert good.endswith(stored.MAGIC) and len(good) > size
    cuts = [b"", good[:10], good[:size], good[:-1], good + b"x", good[1:], bytes(len(good)),
            good[:-stored.TAIL]]
    flips = [0, 5, size - 1, size, size + 9, len(good) - stored.TAIL, len(good) - len(stored.MAGIC)
             - 1, len(good) - len(stored.MAGIC) - 8, len(good) - 1]
    for content in [*cuts, *(good[:k] + bytes([good[k] ^ 0x55]) + good[k + 1:] for k in flips)]:
        file.write_bytes(content)
        before = len(read)
        assert reds(image_folder(photos, 4)) == REDS
        assert len(read) == before + 12 and file.read_bytes() == good
    file.unlink()
    file.mkdir()                                                # not a file at all
    with pytest.raises(OSError):
        image_folder(photos, 4)


def test_footers_that_lie(tmp_path):
    """A digest that is right and content that is wrong: no crash and no huge array."""
    import hashlib
    import json
    good = {"key": "k", "skipped": [], "sampled": stored._sampled(np.zeros((2, 3), np.uint8))}
    cases = [good | {"skipped": value} for value in (None, "a", [5], [-1], ["x"], [0.5], {"a": 1},
                                                     list(range(10**5)), [True])]
    cases += [good | {"key": None}, good | {"sampled": 3}, {}, [], None, 3, "x"]
    for about in [good, *cases]:
        footer = json.dumps(about).encode()
        (tmp_path / "x").write_bytes(bytes(6) + footer + hashlib.sha256(footer).digest()
                                     + len(footer).to_bytes(8, "little") + stored.MAGIC)
        images = stored.load(tmp_path / "x", "k", (3,), 2)
        assert (images is not None) == (about is good)


def test_an_interrupted_conversion_leaves_nothing_behind(photos, cache, monkeypatch):
    def fail(path, *args):
        if path.name == "4.png":
            raise KeyboardInterrupt
        return decode(path, *args)

    decode = module.decode
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode", fail)
        with pytest.raises(KeyboardInterrupt):
            image_folder(photos, 4)
    assert os.listdir(cache) == []
    assert reds(image_folder(photos, 4)) == REDS


def test_a_cache_folder_that_cannot_be_made(photos, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="expected to keep the images in .*; cache=False keeps them "
                                      "in memory. Received: "):
        image_folder(photos, 4, cache=tmp_path / "file" / "folder")


def test_a_picture_that_the_system_cannot_read_is_not_skipped(photos, monkeypatch):
    def fail(path, *args):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "decode", fail)
    with pytest.raises(PermissionError, match="Permission denied: '.*0.png'"):
        image_folder(photos, 4, skip_damaged=True)


TWO = """
import sys
from xpnet.data import folder, image_folder
read, decode = [], folder.decode
folder.decode = lambda *arguments: (read.append(0), decode(*arguments))[1]
data = image_folder(sys.argv[1], 16)
print(len(read), data.fingerprint())
"""


def test_of_two_processes_at_once_one_converts(tmp_path, cache):
    for i in range(120):
        save(tmp_path / "x" / "ab"[i % 2] / f"{i}.png", i, size=(50, 40))
    runs = [subprocess.Popen([sys.executable, "-c", TWO, str(tmp_path / "x")], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env={**os.environ, "PYTHONPATH": str(ROOT)}) for _ in range(2)]
    outputs = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    read, found = zip(*[out.split() for out, _ in outputs])
    assert {*found} == {image_folder(tmp_path / "x", 16).fingerprint()}
    if find_spec("fcntl"):
        assert sorted(read) == ["0", "120"]
    assert len(os.listdir(cache)) == 1


def test_images_are_those_of_read_image(tmp_path, cache):
    """Photographs of CIFAR-10 as JPEG files, if they are there."""
    home = os.environ.get("XPNET_HOME")
    path = Path(home or ".") / "cifar10" / "cifar10-jpeg.npz"
    if not home or not path.is_file():
        pytest.skip("XPNET_HOME names no folder with cifar10/cifar10-jpeg.npz")
    with np.load(path, allow_pickle=False) as file:
        content, offsets = file["test_jpeg"], file["test_offsets"]
        labels, classes = file["test_labels"][:60], file["classes"].tolist()
    for i, label in enumerate(labels):
        picture = tmp_path / "x" / classes[label] / f"{i:03}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(content[offsets[i]:offsets[i + 1]].tobytes())
    data = image_folder(tmp_path / "x", 32)
    paths = sorted((tmp_path / "x").rglob("*.jpg"))
    for path, x, label in zip(paths, *data[:], strict=True):
        np.testing.assert_array_equal(x, read_image(path, 32))
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            np.testing.assert_array_equal(x, np.asarray(image).transpose(2, 0, 1))
        assert data.classes[label] == path.parent.name
