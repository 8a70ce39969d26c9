"""The digits of scikit-learn, MNIST and Fashion-MNIST: where their files are searched, and that
they are the right ones."""

import gzip
import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_idx import idx_bytes, save
from xpnet.data import Dataset, digits, fashion_mnist, mnist, standard
from xpnet.data.download import Content

# ---------------------------------------------------------------- digits

def test_digits():
    data = digits()
    assert isinstance(data, Dataset)
    x_train, y_train, x_test, y_test = data.arrays()
    assert data.shape == (1, 8, 8) and data.dtype == np.uint8 and data.scale == 16
    assert x_train.shape == (1437, 1, 8, 8) and x_test.shape == (360, 1, 8, 8)
    for x, y in ((x_train, y_train), (x_test, y_test)):
        assert x.dtype == np.float32 and x.min() == 0 and x.max() == 1
        assert y.dtype == np.int64 and y.shape == (len(x),)
    # Stratified: both parts have the same proportion of every class, to within one image.
    train, test = np.bincount(y_train), np.bincount(y_test)
    assert len(train) == len(test) == 10
    np.testing.assert_allclose(test, (train + test) / 5, atol=1)


def test_digits_split_by_seed():
    first, again, other = (digits(seed=seed).arrays() for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[2], other[2])
    # Another seed gives another split of the same images; no image is in both parts.
    rows = [np.concatenate([d[0], d[2]]).reshape(1797, 64) for d in (first, other)]
    np.testing.assert_array_equal(*(r[np.lexsort(r.T)] for r in rows))


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'expected scikit-learn.*pip install "xpnet\[data\]"'):
        digits()


# ---------------------------------------------------------------- MNIST

@pytest.fixture
def tiny(monkeypatch):
    """An MNIST of 12 + 5 images under the same names: name -> content."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (12, 28, 28), np.uint8), rng.integers(0, 10, 12, np.uint8),
              rng.integers(0, 256, (5, 28, 28), np.uint8), rng.integers(0, 10, 5, np.uint8)]
    contents = dict(zip(standard.NAMES, map(idx_bytes, arrays), strict=True))
    hashes = [hashlib.sha256(content).hexdigest() for content in contents.values()]
    files = tuple(standard.IdxFile(name, a.shape, Content(len(contents[name]), sha256))
                  for name, a, sha256 in zip(standard.NAMES, arrays, hashes, strict=True))
    monkeypatch.setattr(standard, "MNIST", standard.MNIST._replace(
        files=files, mirrors=(), labels=hashes[-1]))
    monkeypatch.setattr(standard, "FASHION", standard.FASHION._replace(
        files=files, mirrors=(), not_labels=hashes[-1]))
    return contents


@pytest.mark.parametrize("subfolder", ["", "mnist"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("way", ["data_dir", "XPNET_HOME", "cache"])
def test_the_folders_where_mnist_is_searched(tmp_path, monkeypatch, tiny, nowhere, way, packed,
                                             subfolder):
    folder = nowhere if way == "cache" else tmp_path / "here"
    for name, content in tiny.items():
        save(folder / subfolder / (f"{name}.gz" if packed else name),
             gzip.compress(content, mtime=0) if packed else content)
    if way == "XPNET_HOME":
        monkeypatch.setenv("XPNET_HOME", str(folder))
    data = mnist(folder if way == "data_dir" else None)
    x_train, y_train, x_test, y_test = data.arrays()
    assert x_train.shape == (12, 1, 28, 28) and x_test.shape == (5, 1, 28, 28)
    assert x_train.dtype == x_test.dtype == np.float32 and y_train.dtype == y_test.dtype == np.int64
    pixels = np.frombuffer(tiny["train-images-idx3-ubyte"], np.uint8,
                           offset=16).reshape(12, 1, 28, 28)
    np.testing.assert_allclose(x_train, pixels / 255, rtol=1e-6)
    np.testing.assert_array_equal(y_test,
                                  np.frombuffer(tiny["t10k-labels-idx1-ubyte"], np.uint8, offset=8))


def test_data_dir_comes_before_xpnet_home_before_the_cache(tmp_path, monkeypatch, tiny, nowhere):
    places = [tmp_path / "named", tmp_path / "home", nowhere]
    for label, place in enumerate(places):
        for name, content in tiny.items():
            marked = content[:8] + bytes([label]) * 12
            save(place / name, marked if name == "train-labels-idx1-ubyte" else content)
    monkeypatch.setenv("XPNET_HOME", str(places[1]))
    assert mnist(places[0]).labels[0] == 0
    assert mnist().labels[0] == 1
    monkeypatch.setenv("XPNET_HOME", "")
    assert mnist().labels[0] == 2


def test_a_named_folder_must_have_the_files(tmp_path, monkeypatch, tiny, nowhere):
    home = tmp_path / "home"
    for name, content in tiny.items():
        save(home / name, content)
    monkeypatch.setenv("XPNET_HOME", str(home))  # it contains the files, but must not be used
    with pytest.raises(FileNotFoundError,
                       match="mnist '.*absent': expected the files .* Received: no such folder"):
        mnist(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="Received: a folder that has none of them"):
        mnist(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="named after another data set are left out"):
        mnist(save(tmp_path / "all" / "fashion" / "x", b"").parents[1])
    (home / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(FileNotFoundError,
                       match="a folder that has train-im.*, train-la.*, t10k-labels-idx1-ubyte"):
        mnist(home)


def test_files_of_two_folders_are_not_mixed(tmp_path, tiny, nowhere):
    for i, (name, content) in enumerate(tiny.items()):
        save(tmp_path / ("data/mnist" if i % 2 else "data") / name, content)
    with pytest.raises(FileNotFoundError, match="expected the files"):
        mnist(tmp_path / "data")


@pytest.mark.parametrize(("name", "array", "message"), [
    ("train-images-idx3-ubyte", np.zeros((11, 28, 28), np.uint8),
     r"expected shape \(12, 28, 28\) of uint8"),
    ("t10k-images-idx3-ubyte", np.zeros((5, 28, 28), np.int8), r"Received: \(5, 28, 28\) of int8"),
    ("train-labels-idx1-ubyte", np.full(12, 10, np.uint8),
     r"expected labels from 0 to 9. Received: a label 10"),
])
def test_files_that_are_not_mnist(tmp_path, tiny, name, array, message):
    for file, content in tiny.items():
        save(tmp_path / file, idx_bytes(array) if file == name else content)
    with pytest.raises(ValueError, match=f"mnist '.*{name}': .*{message}"):
        mnist(tmp_path)


def test_the_labels_must_be_mnists(tmp_path, tiny, nowhere, monkeypatch):
    for name, content in tiny.items():
        save(tmp_path / "x" / name, content[:-1] + b"\x03" if "t10k-labels" in name else content)
    with pytest.raises(ValueError, match="expected the labels of MNIST. Received: others; Fashion"):
        mnist(tmp_path / "x")
    assert len(fashion_mnist(tmp_path / "x")) == 12


def test_the_labels_must_not_be_mnists(tmp_path, tiny, nowhere):
    for name, content in tiny.items():
        save(tmp_path / "fashion" / name, content)
    with pytest.raises(ValueError, match="expected labels of clothes. Received: the labels of "):
        fashion_mnist(tmp_path)


@pytest.mark.parametrize("spell", [
    lambda name: name.replace("-idx", ".idx"), lambda name: f"MNIST/raw/{name}",
    lambda name: f"archive/{name}/{name}", lambda name: f"{name.replace('-idx', '.idx')}/{name}",
    lambda name: f"Data/MNIST Dataset/{name.upper()}", lambda name: name.replace("-", "_"),
    lambda name: f"x/y/mnist/{name}.gz", lambda name: f"{name}.GZ"])
def test_layouts_and_spellings(tmp_path, tiny, nowhere, monkeypatch, spell):
    for name, content in tiny.items():
        packed = spell(name).casefold().endswith(".gz")
        save(tmp_path / "home" / spell(name), gzip.compress(content) if packed else content)
    assert len(mnist(tmp_path / "home")) == 12
    monkeypatch.setenv("XPNET_HOME", str(tmp_path / "home"))
    assert len(mnist().test) == 5


def test_data_sets_with_the_same_file_names_side_by_side(tmp_path, tiny, nowhere, monkeypatch):
    """As torchvision keeps them; the folder of another data set comes first in the alphabet."""
    for label, folder in enumerate(("EMNIST/raw", "FashionMNIST/raw", "KMNIST/raw", "MNIST/raw")):
        for name, content in tiny.items():
            mine = folder == "MNIST/raw" or "t10k-labels" not in name
            marked = content[:8] + bytes([label]) * 12 if "train-labels" in name else content
            save(tmp_path / folder / name, marked if mine else content[:-1] + bytes([label + 5]))
    monkeypatch.setenv("XPNET_HOME", str(tmp_path))
    for folder in (None, tmp_path):
        assert mnist(folder).labels[0] == 3
        assert fashion_mnist(folder).labels[0] == 1
    assert fashion_mnist().classes[9] == "Ankle boot" and fashion_mnist().name == "fashion_mnist"


def test_fashion_mnist_does_not_take_the_files_of_a_folder_without_its_name(
        tmp_path, tiny, nowhere, monkeypatch, mirror):
    for name, content in tiny.items():
        save(tmp_path / "home" / name, content)
    monkeypatch.setenv("XPNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(standard, "FASHION", standard.FASHION._replace(mirrors=(mirror.url,)))
    with pytest.raises(OSError, match="(?s)404.*put the file into .*fashion_mnist, or name a fold"):
        fashion_mnist()
    assert len(mnist()) == 12


def test_a_plain_file_is_taken_before_a_packed_one(tmp_path, tiny, nowhere):
    for name, content in tiny.items():
        save(tmp_path / name, content)
        save(tmp_path / f"{name}.gz", b"damaged")
    assert len(mnist(tmp_path)) == 12


def test_files_cut_and_changed_anywhere(tmp_path, tiny, nowhere):
    """Every damage of a header, and cuts at every field, give an error of one line."""
    rng = np.random.default_rng(0)
    for name, content in tiny.items():
        save(tmp_path / name, content)
    for name, content in tiny.items():
        cuts = *range(min(17, len(content))), len(content) - 1
        damaged = [content[:k] for k in cuts] + [content + b"x"]
        for k in range(16 if "images" in name else 8):
            damaged.append(content[:k] + bytes([content[k] ^ rng.integers(1, 256)])
                           + content[k + 1:])
        for raw in damaged:
            save(tmp_path / name, raw)
            with pytest.raises(ValueError, match=f"^mnist '.*{name}': expected ") as caught:
                mnist(tmp_path)
            assert "\n" not in str(caught.value)
        save(tmp_path / name, content)


def test_what_is_downloaded_is_what_the_authors_published():
    """Sizes of the files by their shapes; the digests are facts and are not computed here."""
    for kind in (standard.MNIST, standard.FASHION):
        for file in kind.files:
            size = 4 + 4 * len(file.shape) + np.prod(file.shape)
            assert file.content.size == size
            assert (len(file.content.sha256), len(file.content.md5)) in ((64, 0), (0, 32))
        assert len(kind.mirrors) > 1


def test_the_real_mnist():
    home = os.environ.get("XPNET_HOME")
    found = home and standard._search(standard.MNIST, Path(home), False)
    if not found:
        pytest.skip("MNIST is not there: XPNET_HOME names no folder that has it")
    x_train, y_train, x_test, y_test = mnist().arrays()
    assert x_train.shape == (60000, 1, 28, 28) and x_test.shape == (10000, 1, 28, 28)
    assert x_train.min() == 0 and x_train.max() == 1
    # the published mean of MNIST
    assert x_train.mean(dtype=np.float64) == pytest.approx(0.13066, abs=1e-5)
    np.testing.assert_array_equal(y_train[:5], [5, 0, 4, 1, 9])
    np.testing.assert_array_equal(y_test[:5], [7, 2, 1, 0, 4])
    for file in standard.MNIST.files:
        raw = found[file.name].read_bytes()
        raw = gzip.decompress(raw) if found[file.name].suffix == ".gz" else raw
        assert hashlib.sha256(raw).hexdigest() == file.content.sha256


def test_mnist_is_downloaded_once(monkeypatch, tiny, nowhere, mirror):
    for name, content in tiny.items():
        mirror.put(f"{name}.gz", gzip.compress(content, mtime=0))
    monkeypatch.setattr(standard, "MNIST", standard.MNIST._replace(mirrors=(mirror.url,)))
    first, again = mnist(), mnist()
    assert mirror.asked == [f"/{name}.gz" for name in tiny]
    assert sorted(os.listdir(nowhere / "mnist")) == sorted(f"{name}.gz" for name in tiny)
    for a, b in zip(first.arrays(), again.arrays(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_after_a_failed_download_only_the_missing_files_are_fetched(
        monkeypatch, tiny, nowhere, mirror):
    names = list(tiny)
    for name in names:
        mirror.put(f"{name}.gz", gzip.compress(tiny[name] if name != names[2] else b"another file"))
    monkeypatch.setattr(standard, "MNIST", standard.MNIST._replace(mirrors=(mirror.url,)))
    with pytest.raises(OSError, match=f"fetch '{names[2]}.gz'"):
        mnist()
    assert sorted(os.listdir(nowhere / "mnist")) == sorted(f"{name}.gz" for name in names[:2])
    mirror.put(f"{names[2]}.gz", gzip.compress(tiny[names[2]]))
    assert len(mnist().test) == 5
    # a file that exists is not downloaded again
    assert mirror.asked == [f"/{names[i]}.gz" for i in (0, 1, 2, 2, 3)]
