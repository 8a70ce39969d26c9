"""save and load: every bit is restored, and an error never loses an existing file."""

from __future__ import annotations

import ast
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from model_cases import SMALLEST
from nets import LAYERS, around, blobs, branches, pictures, same, small, untouched, values

import xpnet as xn
from xpnet.inspect.summary import summary
from xpnet.models import MODELS

ROOT = Path(__file__).parents[2]
NAMES = "numpy_cnn", "bilici", "lecun1989", "lenet5", "resnet18"


def trained(epochs: int = 1, seed: int = 0) -> xn.Sequential:
    net = small(seed=seed)
    net.fit(*blobs(), loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=epochs, verbose=False)
    return net


@pytest.fixture
def saved(tmp_path) -> tuple[xn.Sequential, Path]:
    net, path = trained(), tmp_path / "net.safetensors"
    net.save(path)
    return net, path


def described(net: xn.Network) -> str:
    """Types, names and settings of the layers; tuples and lists are the same, NumPy's integers and
    Python's too. A layer that is an argument of another one is written as its call."""
    return json.dumps([(type(layer).__name__, layer.name, layer.config()) for layer in net.layers],
                      default=lambda value: repr(value) if isinstance(value, xn.Layer)
                      else int(value))


# --- there and back -------------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_restored_bit_by_bit(name, tmp_path):
    net = MODELS[name](SMALLEST[name], backend="numpy", seed=3)
    rng = np.random.default_rng(0)
    net.parameters += rng.normal(0, 0.01, net.parameters.shape).astype(np.float32)
    net.state += rng.random(net.state.shape, np.float32)
    net.save(tmp_path / "file")
    back = xn.load(tmp_path / "file", backend="numpy")
    assert {k: p.data.tobytes() for k, p in back.buffers.arrays.items()} == {
        k: p.data.tobytes() for k, p in net.buffers.arrays.items()}
    assert described(back) == described(net)
    assert summary(back) == summary(net) and back.seed == 3
    x = pictures(2, SMALLEST[name])[0]
    assert np.array_equal(back.predict(x), net.predict(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_graph_is_restored(dtype, tmp_path, backend):
    net = branches(backend, dtype)
    net.layers[0].trainable = False
    net.save(tmp_path / "file")
    back = xn.load(tmp_path / "file", backend=backend)
    assert same(values(back), values(net)) and back.dtype == net.dtype == dtype
    assert [layer.trainable for layer in back.layers] == [False] + [True] * (len(net.layers) - 1)
    x = pictures(2, (2, 6, 6))[0]
    assert np.array_equal(backend.to_numpy(back(x)), backend.to_numpy(net(x)))


def test_every_layer_is_restored_with_its_settings(tmp_path):
    x = xn.Input((4, 9, 9))
    h = xn.Conv2d(np.int64(4), (np.int64(3), 2), stride=(1, 2), padding=(1, 0, 2, 1), dilation=2,
                  groups=2, bias=False)(
        xn.Rescale([0.1, 0.2, 0.3, np.float64(0.4)], std=np.int64(2))(x))
    h = xn.BatchNorm2d(momentum=0.3, eps=1e-3, activation="tanh")(h)
    h = xn.TableConv2d([(0, 1), (1, 2, 3)], 2, padding="half", activation="sigmoid")(h)
    h = xn.MaxPool2d(2, stride=1, padding=1, ceil_mode=True)(h)
    h = xn.AvgPool2d((2, 1), padding=(0, 0), count_include_pad=False)(h)
    h = xn.Subsampling2d(2, activation="scaled_tanh")(h)
    h = xn.Concat()(xn.Sigmoid()(h), xn.Tanh()(h), xn.Activation("relu")(h))
    h = xn.ScaledTanh()(xn.Add()(h, xn.ReLU()(h)))
    h = xn.Dropout(0.25)(xn.GlobalAvgPool2d()(h))
    h = xn.Linear(3, bias=False, activation="tanh", init="lecun_normal")(h)
    net = xn.Network(x, xn.Softmax()(xn.RBF([[1, 0, 1], [0, 1, 0]])(h)), backend="numpy", seed=5)
    net.save(tmp_path / "file")
    back = xn.load(tmp_path / "file", backend="numpy")
    assert same(values(back), values(net))
    assert described(back) == described(net)
    data = pictures(3, (4, 9, 9))[0]
    assert np.array_equal(back(data), net(data)) and np.array_equal(
        back(data, mode="sample"), net(data, mode="sample"))


@pytest.mark.parametrize("item", LAYERS, ids=lambda item: item.name)
def test_every_layer_of_the_catalogue_is_restored(item, tmp_path):
    """If its example does not fit these features, the NaNs are the same."""
    net = around(item, seed=4)
    net.save(tmp_path / "file")
    back = xn.load(tmp_path / "file", backend="numpy")
    assert same(values(back), values(net)) and described(back) == described(net)
    data = np.random.default_rng(0).standard_normal((5, 3))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(back.predict(data), net.predict(data))


def test_training_goes_on_after_loading(tmp_path):
    """Shuffling and dropout continue: 2 + 2 epochs are 4 (SGD without momentum has no other
    state)."""
    net = trained(epochs=2)
    net.predict(blobs()[0])
    net(blobs()[0], mode="sample")
    net.save(tmp_path / "file")
    back = xn.load(tmp_path / "file", backend="numpy")
    assert back.epochs == 2 and back.counters.tolist() == [8, 1]
    for one in (net, back):
        one.fit(*blobs(), loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=2, verbose=False)
    assert same(values(net), values(back))
    assert np.array_equal(net(blobs()[0], mode="sample"), back(blobs()[0], mode="sample"))


def test_load_into_an_existing_network(saved):
    net, path = saved
    other = small(seed=9)
    parameters = other.parameters
    assert other.load(path) is other and other.parameters is parameters         # in place
    assert same(values(other), values(net)) and other.seed == 9
    wide = small(dtype="float64")
    wide.load(path)
    np.testing.assert_array_equal(wide.buffers.arrays["linear1.W"].data,
                                  net.buffers.arrays["linear1.W"].data)


def test_the_same_network_gives_the_same_file(saved, tmp_path):
    net, path = saved
    xn.load(path, backend="numpy").save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_save_replaces_the_old_file_and_leaves_no_other_file(saved):
    net, path = saved
    old = path.read_bytes()
    net.fit(*blobs(), loss="cross_entropy", optimizer=xn.SGD(0.1), verbose=False)
    net.save(str(path))
    assert path.read_bytes() != old and os.listdir(path.parent) == [path.name]
    umask = os.umask(0)
    os.umask(umask)
    # readable by others, unlike temporary files
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


# --- layers of your own ---------------------------------------------------------------------------

class Scale(xn.Layer):
    """Y = a X with a trained a that starts at `start`."""

    def __init__(self, start: float = 1.0, *, name=None):
        super().__init__(name=name)
        self.start = start

    def build(self, in_shape):
        self.a = self.parameter("a", (1,),
                                lambda rng, shape, fan_in, fan_out: np.full(shape, self.start))
        return in_shape

    def forward(self, x, mode="predict"):
        self.remember(mode, x)
        return x * self.a.data

    def backward(self, dy, accumulate=False):
        x, = self.recall()
        self.backend.store((dy * x).sum()[None], self.a.grad, accumulate)
        return dy * self.a.data


class Nameless(Scale):
    """A constructor without a name. The network chooses one."""

    def __init__(self):
        super().__init__(2.0)


class Forgetful(Scale):
    """Keeps its argument under another name."""

    def __init__(self, factor=1.0, *, name=None):
        super().__init__(factor, name=name)


@pytest.mark.parametrize("layer", [Scale(3.0), Scale(np.float32(3.0)), Nameless()],
                         ids=["plain", "numpy", "nameless"])
def test_layers_of_your_own(layer, tmp_path):
    net = xn.Sequential([layer, xn.Linear(2)], input_shape=(2,), backend="numpy")
    net.save(tmp_path / "file")
    back = xn.load(tmp_path / "file", layers=[Scale, Nameless], backend="numpy")
    assert type(back.layers[0]) is type(layer) and same(values(back), values(net))
    with pytest.raises(ValueError, match=rf"xpnet has no layer {type(layer).__name__}; pass a "
                                         rf"class of your own in layers"):
        xn.load(tmp_path / "file", backend="numpy")


class Callable(Scale):
    """Takes a function, which JSON cannot hold."""

    def __init__(self, function, *, name=None):
        super().__init__(function(), name=name)
        self.function = function


@pytest.mark.parametrize("make, error, message", [
    (Forgetful, AttributeError,
     "Forgetful 'layer1': expected every argument of the constructor in an attribute"),
    (lambda: Callable(float), TypeError,
     "save: expected layers and losses whose constructors take numbers, strings, lists or None")])
def test_errors_of_what_cannot_be_saved(make, error, message, tmp_path):
    net = xn.Sequential([make()], input_shape=(2,), backend="numpy")
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with untouched(net), pytest.raises(error, match=message):
        net.save(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


# --- writing that fails ---------------------------------------------------------------------------

@pytest.mark.parametrize("broken", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()],
                         ids=["error", "ctrl-c"])
def test_a_crash_while_writing_keeps_the_old_file(saved, monkeypatch, broken, error):
    net, path = saved
    old = path.read_bytes()
    net.fit(*blobs(), loss="cross_entropy", optimizer=xn.SGD(0.1), verbose=False)

    def crash(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, crash)
        with untouched(net), pytest.raises(type(error)):
            net.save(path)
    assert path.read_bytes() == old and os.listdir(path.parent) == [path.name]
    net.save(path)
    assert same(values(xn.load(path, backend="numpy")), values(net))


def test_folders_that_cannot_be_written(tmp_path):
    net = small()
    for path in (tmp_path / "no" / "file", tmp_path / "no" / "file" / ""):
        with pytest.raises(FileNotFoundError,
                           match="save: expected the name of a file in a folder that exists"):
            net.save(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0,
                    reason="root may write everywhere, Windows has other rights")
def test_a_folder_without_rights(saved):
    net, path = saved
    old = path.read_bytes()
    path.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            net.save(path)
        assert path.read_bytes() == old and os.listdir(path.parent) == [path.name]
    finally:
        path.parent.chmod(0o700)


# --- no code in files -----------------------------------------------------------------------------

def test_nothing_unpickles_or_evaluates():
    """No module of the package imports pickle, or calls a function that runs code from data.

    kept.py is the exception, because Numba stores compiled kernels only as pickles. It checks
    owner, rights and checksum of a file before it reads it; see test_kept_kernels.py.
    """
    forbidden = {"pickle", "marshal", "shelve", "dill", "joblib"}
    kept = ROOT / "backends/numba/kernels/kept.py"
    for path in {*(ROOT / "xpnet").rglob("*.py"), *(ROOT / "backends").rglob("*.py")} - {kept}:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} | {
                    (getattr(node, "module", "") or "").split(".")[0]}
                assert not names & forbidden, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, path
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", path
