"""Dataset: what it accepts, that it reads right and never writes, splits, and larger than
memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported import Exported

import xpnet as xn
from xpnet.data import Dataset
from xpnet.data.split import apportion

ROOT = Path(__file__).parents[2]
X = np.arange(7 * 2 * 3 * 4).reshape(7, 2, 3, 4).astype(np.uint8)
Y = np.array([0, 1, 2, 1, 0, 2, 2])


class Reader:
    """An object of a user that records which indices it was asked for."""

    def __init__(self, array):
        self.array, self.asked = array, []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, indices):
        assert isinstance(indices, np.ndarray) and indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()         # as h5py wants it
        self.asked.append(indices.tolist())
        return self.array[indices]


def memory_map(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


SOURCES = {"array": lambda path: X, "memory map": memory_map, "object": lambda path: Reader(X),
           "DLPack": lambda path: Exported(X), "list": lambda path: [x for x in X]}


def test_a_range():
    data = Dataset(range(7), range(7))
    assert data[[3, 1]][0].tolist() == data[[3, 1]][1].tolist() == [3, 1]


# --- reading --------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_samples(kind, tmp_path):
    data = Dataset(SOURCES[kind](tmp_path), Y)
    assert (len(data), data.shape, data.dtype, data.scale) == (7, (2, 3, 4), np.uint8, 255)
    assert data.classes == ("0", "1", "2") and data.labels.dtype == np.int64
    for indices in (slice(None), slice(1, 6, 2), slice(None, None, -1), [4, 0, 4], [-1, 2], [],
                    np.array([6, 5], np.uint8), Y == 2):
        wanted = indices if isinstance(indices, slice) or len(indices) else np.array([], int)
        x, y = data[indices]
        np.testing.assert_array_equal(x, X[wanted], strict=True)
        np.testing.assert_array_equal(y, Y[wanted], strict=True)
    x, y = data[-2]
    np.testing.assert_array_equal(x, X[5])
    assert y == 2


@pytest.mark.parametrize("kind", SOURCES)
def test_subsets_of_subsets(kind, tmp_path):
    data = Dataset(SOURCES[kind](tmp_path), Y).subset([5, 3, 1, 0]).subset(slice(1, None))
    assert len(data) == 3 and data.labels.tolist() == [1, 1, 0] and data.classes == ("0", "1", "2")
    np.testing.assert_array_equal(data[:][0], X[[3, 1, 0]])
    np.testing.assert_array_equal(data[[2, 0]][0], X[[0, 3]])
    assert data[[2, 0]][1].tolist() == [0, 1]


def test_targets_of_any_shape_come_from_any_source():
    masks = X[:, 0]
    for y in (masks, Reader(masks), Exported(masks)):
        data = Dataset(X, y)
        assert data.labels is None and data.classes is None
        np.testing.assert_array_equal(data.subset([4, 2])[[1, 0]][1], masks[[2, 4]])
    assert Dataset(X, np.linspace(0, 1, 7))[3][1] == 0.5
    assert Dataset(X)[[1]][1] is None and Dataset(X)[1][1] is None


def test_nothing_is_copied_and_nothing_can_be_written():
    x, y = X.copy(), Y.copy()
    for held in (x, Exported(x)):
        batch, labels = Dataset(held, y)[2:5]
        assert np.shares_memory(batch, x)
        for a in (batch, labels):
            with pytest.raises(ValueError, match="read-only"):
                a[0] = 1
    assert x.flags.writeable and y.flags.writeable      # the arrays of the user are as they were
    batch, labels = Dataset(x, y)[[2, 3]]
    batch[:] = 0                                        # a copy belongs to the caller
    assert not np.shares_memory(batch, x) and x[2].any()


def test_a_dlpack_array_on_another_device():
    with pytest.raises(ValueError, match=re.escape(
            "Dataset: x: expected an array in the memory of the host, as xp=numpy needs; pass "
            "xp=net.xp for arrays of the network's GPU. Received: Exported in the memory of "
            "CUDA 1.")):
        Dataset(Exported(X, (2, 1)))
    Dataset(Exported(X, (3, 1)))                        # memory of the host that CUDA has pinned


def test_arrays_of_another_array_module():
    class Module:
        """An array module for CUDA device 1."""
        __name__ = "module"
        asked = []

        def empty(self, *args):
            return Exported(X, (2, 1))

        def from_dlpack(self, a):
            self.asked.append(a)
            return a.array

        def asnumpy(self, a):
            return np.asarray(a)

    own = Exported(X, (2, 1))
    data = Dataset(own, Exported(Y, (2, 1)), xp=Module())
    assert Module.asked[0] is own and data.labels.tolist() == Y.tolist()
    assert data.fingerprint() == Dataset(X, Y).fingerprint()
    for other in (Exported(X, (2, 0)), Exported(X)):
        with pytest.raises(ValueError, match="expected an array in the memory of CUDA, as "
                                             "xp=module needs. Received: Exported"):
            Dataset(other, xp=Module())
    with pytest.raises(TypeError, match="expected arrays of module"):
        Dataset(X, xp=Module())


# --- names, scale, parts --------------------------------------------------------------------------

def test_names_of_classes():
    names = ["rose", "daisy", "tulip", "daisy", "rose", "tulip", "tulip"]
    for y in (names, np.array(names)):
        data = Dataset(X, y)
        assert data.classes == ("daisy", "rose", "tulip")
        assert data.labels.tolist() == [1, 0, 2, 0, 1, 2, 2]
    data = Dataset(X, names, classes=["tulip", "lily", "rose", "daisy"])
    assert data.labels.tolist() == [2, 3, 0, 3, 2, 0, 0]
    assert Dataset(X, Y, classes=np.array(["a", "b", "c", "d"])).classes == ("a", "b", "c", "d")


def test_scale():
    assert Dataset(X).scale == 255 and Dataset(X, scale=16).scale == 16
    assert Dataset(X, scale=None).scale is None
    assert Dataset(X.astype(np.float32)).scale is None and Dataset(X[:, 0]).scale is None
    scaled = Dataset(X).scaled(X)
    np.testing.assert_array_equal(scaled, X / np.float32(255), strict=True)
    assert scaled.dtype == np.float32 and Dataset(X, scale=None).scaled(X) is X


def test_arrays():
    data = Dataset(X, Y, test=Dataset(X[:3], Y[:3]))
    x_train, y_train, x_test, y_test = data.arrays()
    np.testing.assert_array_equal(x_train, X / np.float32(255), strict=True)
    np.testing.assert_array_equal(x_test, X[:3] / np.float32(255), strict=True)
    assert y_train.tolist() == Y.tolist() and y_test.tolist() == Y[:3].tolist()
    with pytest.raises(ValueError, match="expected a data set with a test part"):
        data.test.arrays()


def test_repr():
    data = Dataset(X, Y, classes=["a", "b", "c"], name="letters",
                   test=Dataset(X[:3], classes=["a", "b", "c"]))
    assert repr(data) == ("<letters: 7 samples (2, 3, 4) uint8; 3 classes (a, b, c); test 3>")
    assert repr(data.test) == "<Dataset: 3 samples (2, 3, 4) uint8; no labels>"
    assert "targets (3,) float64" in repr(Dataset(X, np.ones((7, 3))))
    assert len(repr(Dataset(X, Y, classes=[str(k) for k in range(1000)]))) < 120


@pytest.mark.parametrize("make, message", [
    (lambda: Dataset(np.zeros((0, 3))), "expected an array (N, ...) of at least one sample. "
                                        "Received: shape (0, 3)."),
    (lambda: Dataset(3.0), "Dataset: x: expected an array (N, ...)"),
    (lambda: Dataset("folder"), "expected real numbers"),
    (lambda: Dataset(np.array(["a"])), "expected real numbers"),
    (lambda: Dataset(np.ma.array(X, mask=X > 3)), "without masked elements"),
    (lambda: Dataset(X, Y[:6]), "expected a label or target for each of the 7 samples. "
                                "Received: 6."),
    (lambda: Dataset(X, Y - 1), "expected labels from 0 to 65535; numbers that are no labels as "
                                "floats. Received: labels from -1 to 1."),
    (lambda: Dataset(X, Y, classes=["a", "b"]), "expected labels from 0 to 1"),
    (lambda: Dataset(X, Y, classes=["a", "b", "a"]), "expected classes to be names, all different"),
    (lambda: Dataset(X, Y, classes="abc"), "expected classes to be names"),
    (lambda: Dataset(X, Y, classes=3), "expected classes to be names"),
    (lambda: Dataset(X, Y.astype(float), classes=["a", "b", "c"]), "expected labels (N,) of whole"),
    (lambda: Dataset(X, ["x"] * 7, classes=["a"]), "expected labels among ('a',). "
                                                   "Received: 'x'."),
    (lambda: Dataset(X, scale=0), "expected scale to be a number above 0. Received: scale=0."),
    (lambda: Dataset(X, scale="auto2"), "expected scale"),
    (lambda: Dataset(X, Y, test=(X, Y)), "expected test to be None or a Dataset"),
    (lambda: Dataset(X, Y, test=Dataset(X[:, :1], Y)), "expected test to have shape=(2, 3, 4). "
                                                       "Received: shape=(1, 3, 4)."),
    (lambda: Dataset(X, Y, validation=Dataset(X, Y, scale=16)), "to have scale=255.0"),
    (lambda: Dataset(X, Y, test=Dataset(X[:2], Y[:2])), "expected test to have classes=('0', '1', "
                                                        "'2'). Received: classes=('0', '1')."),
    (lambda: Dataset(X, Y)[1.0], "expected indices as an int, a slice, or an array (K,)"),
    (lambda: Dataset(X, Y)["x"], "expected indices"),
    (lambda: Dataset(X, Y)[[[1], [2, 3]]], "expected indices"),
    (lambda: Dataset(X, [[1], [2, 3]]), "Dataset: y: expected an array of numbers"),
    (lambda: Dataset(X, Y, xp="numpy"), "expected xp to be an array module, numpy or net.xp"),
    (lambda: Dataset(X, Y)[[[0]]], "expected indices"),
    (lambda: Dataset(X, Y)[7], "expected indices from -7 to 6. Received: 7 to 7."),
    (lambda: Dataset(X, Y)[[0, -8]], "expected indices from -7 to 6. Received: -8 to 0."),
    (lambda: Dataset(X, Y)[[True, False]], "expected indices"),
    (lambda: Dataset(X, Y).subset([]), "expected at least one sample"),
    (lambda: Dataset(X, Y).split(1.0), "expected validation to be a number from 0 to 1, below 1"),
    (lambda: Dataset(X, Y).split(0.3, seed=-1), "expected seed"),
    (lambda: Dataset(X, Y).split(0.4).split(0.4), "without a validation part"),
    (lambda: Dataset(X).show(), "expected images (C, H, W) of 1 or 3 channels"),
    (lambda: Dataset(X[:, :1]).show(0), "expected count"),
])
def test_one_line_errors(make, message):
    with pytest.raises((ValueError, TypeError, IndexError)) as caught:
        make()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_objects_that_return_something_else():
    class Wrong(Reader):
        def __getitem__(self, indices):
            return self.array[:self.count]

    for count, message in ((2, r"of shape \(1, 2, 3, 4\) for 1 indices. Received: shape \(2, "),
                           (0, r"for 1 indices. Received: shape \(0, ")):
        Wrong.count = count
        with pytest.raises(ValueError, match=message):
            Dataset(Wrong(X))
    Wrong.count = 1
    with pytest.raises(ValueError, match=r"expected samples\[indices\] of shape \(3, 2, 3, 4\)"):
        Dataset(Wrong(X))[[0, 1, 2]]
    with pytest.raises(ValueError, match="expected at least one sample"):
        Dataset(Reader(X[:0]))


# --- splits ---------------------------------------------------------------------------------------

def test_a_split_has_every_sample_once_and_the_share_of_each_class():
    rng = np.random.default_rng(0)
    labels = rng.choice(5, 1003, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    data = Dataset(np.arange(1003), labels, test=Dataset([0, 1], classes=list("01234")))
    for share in (0.2, 0.5, 0.9):
        part = data.split(share, seed=3)
        kept, held = part[:][0], part.validation[:][0]
        assert (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()
        assert sorted([*kept, *held]) == list(range(1003))
        assert len(held) == round(1003 * share) and part.test is data.test
        counts = np.bincount(part.validation.labels) - share * np.bincount(labels)
        assert np.abs(counts).max() < 1
        assert (labels[held] == part.validation.labels).all()
    assert part.validation.classes == data.classes and data.validation is None


def test_a_split_follows_from_the_seed():
    data = Dataset(np.arange(400), np.arange(400) % 4)
    first, again, other = (data.split(0.25, seed=s).validation[:][0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    plain = Dataset(np.arange(400)).split(0.25, seed=1)
    assert len(plain.validation) == 100 and len(plain) == 300
    # Each sample is split off about as often: 200 seeds, 50 expected, standard deviation 6.
    often = np.bincount(np.concatenate([data.split(0.25, seed=s).validation[:][0]
                                        for s in range(200)]), minlength=400)
    assert often.min() > 20 and often.max() < 85


def test_the_split_is_the_same_on_every_platform():
    """Written down once; the raw output of PCG64 is guaranteed not to change."""
    part = Dataset(np.arange(20), np.arange(20) % 2).split(0.3, seed=0)
    assert part.validation[:][0].tolist() == WRITTEN


WRITTEN = [2, 3, 8, 11, 13, 18]


def test_shares_are_rounded_by_largest_remainders():
    assert apportion(np.array([10, 10, 10]), 0.25).tolist() == [3, 3, 2]    # 2.5 each, 8 of 7.5
    assert apportion(np.array([3, 0, 7, 1]), 0.5).tolist() == [2, 0, 4, 0]  # 1.5, 0, 3.5, 0.5
    assert apportion(np.array([5, 5]), 0.2).tolist() == [1, 1]


@pytest.mark.parametrize("share, message", [
    (0.1, "Received: validation=0.1, which gives validation no sample of 'b', which has 2."),
    (0.9, "Received: validation=0.9, which gives training no sample of 'b', which has 2."),
    (0.0, "which gives validation no sample of 'a'"),
])
def test_a_share_that_leaves_a_class_empty(share, message):
    labels = np.array([0] * 30 + [1] * 2)
    with pytest.raises(ValueError, match=re.escape(message)):
        Dataset(np.arange(32), labels, classes=["a", "b", "c"]).split(share)
    with pytest.raises(ValueError, match="which gives validation no samples"):
        Dataset(np.arange(3)).split(0.1)


# --- fingerprint ----------------------------------------------------------------------------------

def test_the_fingerprint_changes_with_the_data_and_not_with_the_way_they_are_kept(tmp_path):
    own = Dataset(X, Y).fingerprint()
    assert all(Dataset(make(tmp_path), Y).fingerprint() == own for make in SOURCES.values())
    assert Dataset(X.astype(">u2"), Y).fingerprint() == Dataset(X.astype("<u2"), Y).fingerprint()
    swapped, other = X.copy(), Y.copy()
    swapped[[0, 1]] = X[[1, 0]]
    other[0] = 2
    changed = [Dataset(swapped, Y), Dataset(X, other), Dataset(X), Dataset(X, Y, scale=1),
               Dataset(X.astype(np.int16), Y), Dataset(X.reshape(7, 4, 3, 2), Y),
               Dataset(X, Y, classes=list("abc")), Dataset(X, Y).subset(slice(0, 6)),
               Dataset(X, Y * 1.0)]
    assert len({own, *(data.fingerprint() for data in changed)}) == 10


def test_the_fingerprint_reads_few_samples():
    many = Reader(np.arange(10000))
    Dataset(many, np.zeros(10000, int)).fingerprint()
    assert sum(map(len, many.asked)) == 65 and many.asked[-1][0] == 0 and many.asked[-1][-1] == 9999


# --- a figure -------------------------------------------------------------------------------------

def test_show():
    pytest.importorskip("matplotlib")
    for channels in (1, 3):
        x = np.random.default_rng(0).integers(0, 256, (30, channels, 5, 4)).astype(np.uint8)
        data = Dataset(x, np.arange(30) // 10, classes=["$a", "b" * 40, "c_d^"])
        figure = data.show(4, columns=3)
        axes = [axis for axis in figure.axes if axis.get_title()]
        assert [axis.get_title() for axis in axes] == ["$a", "$a", "b" * 15 + "...", "c_d^"]
        drawn = np.asarray(axes[3].images[0].get_array())
        expected = x[29, 0] if channels == 1 else x[29].transpose(1, 2, 0)
        np.testing.assert_allclose(drawn, expected / 255)
        assert figure._repr_png_().startswith(b"\x89PNG")       # what a notebook shows
    # as fit changes them
    flip = xn.RandomFlip()
    axes = [axis for axis in data.show(6, augment=[flip]).axes if axis.get_title()]
    some = np.arange(6) * 29 // 5
    seen = xn.augmented(np, np.moveaxis(x[some] / 255, 0, -1), [flip], samples=some)
    for number, axis in enumerate(axes):
        np.testing.assert_allclose(np.asarray(axis.images[0].get_array()),
                                   seen[..., number].transpose(1, 2, 0), rtol=1e-6)
    with pytest.raises(ValueError, match="Dataset.show: expected augmentations of single images"):
        data.show(augment=xn.MixUp())
    # without labels, and floats of any range
    assert Dataset(x[:2] - 3.0).show().axes[1].get_title() == "1"


def test_show_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "xpnet\[viz\]"'):
        Dataset(X[:, :1]).show()


# --- larger than memory ---------------------------------------------------------------------------

SMALL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (512 << 20,) * 2)
import numpy as np
import xpnet as xn
N, shape = 4 * 2**30 // (3 * 128 * 128), (3, 128, 128)
with open("pixels", "wb") as file:
    file.truncate(N * 3 * 128 * 128)        # 4 GiB of zeros that take no room on the disk
writer = np.memmap("pixels", np.uint8, "r+", shape=(N, *shape))
writer[::9973, 0, 0, 0] = 7
del writer
try:
    np.ones(600 << 20, np.uint8)
except MemoryError:
    print("limited")
x = np.memmap("pixels", np.uint8, "r", shape=(N, *shape))
data = xn.data.Dataset(x, np.arange(N) % 10).split(0.2, seed=1)
rng = np.random.default_rng(0)
for _ in range(8):
    batch, labels = data[rng.integers(0, len(data), 16)]
    assert batch.shape == (16, *shape)
found = [part[i][0][0, 0, 0] for part in (data, data.validation) for i in (0, 1, len(part) - 1)]
marks = sum(int(part._x.array[part._where[part._where % 9973 == 0], 0, 0, 0].sum())
            for part in (data, data.validation))
print(len(data) + len(data.validation) == N, marks == 7 * len(range(0, N, 9973)))
print(len(data.fingerprint()), len(data.subset(slice(0, None, 100))))
net = xn.Sequential([xn.MaxPool2d(16), xn.Flatten(), xn.Linear(10)], input_shape=shape,
                    backend="numpy")
part = data.subset(slice(None, None, 2000))
history = net.fit(part, batch_size=8, validation=data.validation.subset(slice(None, None, 999)),
                  augment=[xn.RandomFlip()], checkpoint="saved", verbose=False)
print(len(part), len(history.rows))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts memory on Linux alone")
def test_images_of_4_gib_in_a_process_of_512_mib(tmp_path):
    run = subprocess.run([sys.executable, "-c", SMALL], cwd=tmp_path, capture_output=True,
                         text=True, env={"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "limited" and lines[1] == "True True" and lines[2].startswith("64 ")
    assert lines[3] == "35 1"           # a training of samples from all parts of the file


# --- access ---------------------------------------------------------------------------------------

def test_modules_are_attributes_without_an_import():
    code = ("import sys, xpnet as xn; before = 'xpnet.data' in sys.modules; "
            "print(before, xn.data.Dataset.__name__, xn.models.bilici.__name__, "
            "xn.testing.__name__, {'data', 'models', 'testing'} <= set(dir(xn)))")
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                         check=True)
    assert run.stdout.split() == ["False", "Dataset", "bilici", "xpnet.testing", "True"]


def test_a_network_takes_the_names_of_classes():
    net = xn.models.numpy_cnn((1, 12, 12), classes=Dataset(X, Y).classes, backend="numpy")
    assert net.predict(np.zeros((1, 1, 12, 12), np.float32)).shape == (1, 3)
    for wrong in ("abc", 0, 2.0):
        with pytest.raises(ValueError, match="Linear: expected units to be an int"):
            xn.models.numpy_cnn((1, 12, 12), classes=wrong, backend="numpy")
