"""save and load: every bit comes back, and whatever goes wrong, nothing that was there is lost."""

from __future__ import annotations

import ast
import json
import os
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
from nets import blobs, branches, pictures, same, small, untouched, values

import xpnet as xn
from xpnet.models import MODELS

ROOT = Path(__file__).parents[1]
SHAPES = {"numpy_cnn": (1, 16, 16), "bilici": (1, 8, 8), "lecun1989": (1, 20, 20), "lenet5": (1, 28, 28), "resnet18": (3, 8, 8)}


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
    """Types, names and settings of the layers; tuples and lists are the same, NumPy's integers and Python's too."""
    return json.dumps([(type(layer).__name__, layer.name, layer.config()) for layer in net.layers], default=int)


# --- there and back -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", SHAPES)
def test_every_model_comes_back_in_every_bit(name, tmp_path):
    net = MODELS[name](SHAPES[name], backend="numpy", seed=3)
    rng = np.random.default_rng(0)
    net.parameters += rng.normal(0, 0.01, net.parameters.shape).astype(np.float32)
    net.state += rng.random(net.state.shape, np.float32)
    net.save(tmp_path / "file")
    back = xn.load(tmp_path / "file", backend="numpy")
    assert {k: p.data.tobytes() for k, p in back.buffers.arrays.items()} == {
        k: p.data.tobytes() for k, p in net.buffers.arrays.items()}
    assert described(back) == described(net)
    assert back.summary() == net.summary() and back.seed == 3
    x = pictures(2, SHAPES[name])[0]
    assert np.array_equal(back.predict(x), net.predict(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_graph_comes_back(dtype, tmp_path, backend):
    net = branches(backend, dtype)
    net.layers[0].trainable = False
    net.save(tmp_path / "file")
    back = xn.load(tmp_path / "file", backend=backend)
    assert same(values(back), values(net)) and back.dtype == net.dtype == dtype
    assert [layer.trainable for layer in back.layers] == [False] + [True] * (len(net.layers) - 1)
    x = pictures(2, (2, 6, 6))[0]
    assert np.array_equal(backend.to_numpy(back(x)), backend.to_numpy(net(x)))


def test_every_layer_comes_back_with_its_settings(tmp_path):
    x = xn.Input((4, 9, 9))
    h = xn.Conv2d(np.int64(4), (np.int64(3), 2), stride=(1, 2), padding=(1, 0, 2, 1), dilation=2, groups=2, bias=False)(x)
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
    assert np.array_equal(back(data), net(data)) and np.array_equal(back(data, mode="sample"), net(data, mode="sample"))
    missing = set(xn.layers.__all__) - {type(layer).__name__ for layer in net.layers} - {"Flatten"}
    assert not missing          # a new layer belongs into this test


def test_training_goes_on_after_loading(tmp_path):
    """Shuffling and dropout go on from where they were: 2 + 2 epochs are 4 (SGD without momentum keeps nothing else)."""
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


def test_load_into_a_network_that_is_there(saved):
    net, path = saved
    other = small(seed=9)
    parameters = other.parameters
    assert other.load(path) is other and other.parameters is parameters         # in place
    assert same(values(other), values(net)) and other.seed == 9
    wide = small(dtype="float64")
    wide.load(path)
    np.testing.assert_array_equal(wide.buffers.arrays["linear1.W"].data, net.buffers.arrays["linear1.W"].data)


def test_the_same_network_gives_the_same_file(saved, tmp_path):
    net, path = saved
    xn.load(path, backend="numpy").save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_save_replaces_the_old_file_and_leaves_nothing_beside_it(saved):
    net, path = saved
    old = path.read_bytes()
    net.fit(*blobs(), loss="cross_entropy", optimizer=xn.SGD(0.1), verbose=False)
    net.save(str(path))
    assert path.read_bytes() != old and os.listdir(path.parent) == [path.name]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask         # not only its owner's, as temporary files are


# --- layers of your own -------------------------------------------------------------------------------------------------

class Scale(xn.Layer):
    """Y = a X with a trained a that starts at `start`."""

    def __init__(self, start: float = 1.0, *, name=None):
        super().__init__(name=name)
        self.start = start

    def build(self, in_shape):
        self.a = self.parameter("a", (1,), lambda rng, shape, fan_in, fan_out: np.full(shape, self.start))
        return in_shape

    def forward(self, x, mode="predict"):
        self.remember(mode, x)
        return x * self.a.data

    def backward(self, dy, accumulate=False):
        x, = self.recall()
        self.backend.store((dy * x).sum()[None], self.a.grad, accumulate)
        return dy * self.a.data


class Nameless(Scale):
    """A constructor without a name; the network gives one."""

    def __init__(self):
        super().__init__(2.0)


class Forgetful(Scale):
    """Keeps its argument under another name."""

    def __init__(self, factor=1.0, *, name=None):
        super().__init__(factor, name=name)


@pytest.mark.parametrize("layer", [Scale(3.0), Scale(np.float32(3.0)), Nameless()], ids=["plain", "numpy", "nameless"])
def test_layers_of_your_own(layer, tmp_path):
    net = xn.Sequential([layer, xn.Linear(2)], input_shape=(2,), backend="numpy")
    net.save(tmp_path / "file")
    back = xn.load(tmp_path / "file", layers=[Scale, Nameless], backend="numpy")
    assert type(back.layers[0]) is type(layer) and same(values(back), values(net))
    with pytest.raises(ValueError, match=rf"xpnet has no layer {type(layer).__name__}; if it is yours, name its class in layers"):
        xn.load(tmp_path / "file", backend="numpy")


class Callable(Scale):
    """Takes a function, which JSON cannot hold."""

    def __init__(self, function, *, name=None):
        super().__init__(function(), name=name)
        self.function = function


@pytest.mark.parametrize("make, error, message", [
    (Forgetful, AttributeError, "save: Forgetful 'layer1': expected every argument of the constructor in an attribute"),
    (lambda: Callable(float), TypeError, "save: expected layers whose constructors take numbers, strings, lists or None"),
])
def test_what_cannot_be_saved_says_so(make, error, message, tmp_path):
    net = xn.Sequential([make()], input_shape=(2,), backend="numpy")
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with untouched(net), pytest.raises(error, match=message):
        net.save(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


# --- files that are no network ------------------------------------------------------------------------------------------

def parts(path: Path) -> tuple[dict, bytes]:
    """The JSON header of a safetensors file, and its data."""
    raw = path.read_bytes()
    length, = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8:8 + length]), raw[8 + length:]


def write(path: Path, header: dict, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def refused(saved, match: str, error=ValueError) -> None:
    """Both ways of reading fail, and the network in memory is as it was."""
    net, path = saved
    other = small(seed=1)
    for read in (lambda: xn.load(path, backend="numpy"), lambda: other.load(path), lambda: net.load(path)):
        with untouched(net), untouched(other), pytest.raises(error, match=match) as caught:
            read()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 4, 8, 20, 300, -300, -100, -4, -1])     # of the end: -300 and more are data
def test_truncated(saved, keep):
    _, path = saved
    path.write_bytes(path.read_bytes()[:keep])
    refused(saved, "load: expected a complete safetensors file.*truncated")


def test_too_long(saved):
    _, path = saved
    path.write_bytes(path.read_bytes() + b"more")
    refused(saved, "load: expected a complete safetensors file")


@pytest.mark.parametrize("content", [b"a text of some length", b"\x80\x04\x95 a pickle?", b"PK\x03\x04" + bytes(100), bytes(64)])
def test_no_safetensors_at_all(saved, content):
    saved[1].write_bytes(content)
    refused(saved, "load: expected a complete safetensors file")


def test_a_file_of_another_program(saved):
    from safetensors.numpy import save_file
    for metadata in (None, {"format": "pt"}, {"xpnet": "{}"}, {"xpnet": '{"format": "xpnet-2"}'}, {"xpnet": "[]"}):
        save_file({"weight": np.zeros(3, np.float32)}, saved[1], metadata)
        refused(saved, r"load: expected a file that xpnet saved \(format xpnet-1\)")


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3"])
def test_element_types_that_numpy_has_not(saved, kind):
    header, data = parts(saved[1])
    size = {"BF16": 2, "F8_E4M3": 1}[kind]
    write(saved[1], header | {"linear1.b": {"dtype": kind, "shape": [64 // size], "data_offsets":
                                            header["linear1.b"]["data_offsets"]}}, data)
    refused(saved, "load: expected a complete safetensors file|load: expected linear1.b to be floating-point numbers")


def without(header: dict, name: str) -> dict:
    return {key: value for key, value in header.items() if key != name}


def test_arrays_that_do_not_belong(saved):
    from safetensors.numpy import load_file, save_file
    path = saved[1]
    metadata, arrays = parts(path)[0]["__metadata__"], load_file(path)
    for changed, message in (
        (without(arrays, "linear1.b"), "expected the arrays of this network.*differs in linear1.b"),
        (arrays | {"extra": np.zeros(1, np.float32)}, "expected the arrays of this network.*differs in extra"),
        (arrays | {"linear1.b": np.zeros(15, np.float32)}, r"expected linear1.b to be floating-point numbers of shape \(16,\)"),
        (arrays | {"linear1.W": np.zeros((2, 16), np.float32)}, r"of shape \(16, 2\). Received: float32 of shape \(2, 16\)"),
        (arrays | {"linear1.b": np.zeros(16, np.int32)}, "floating-point numbers.*Received: int32"),
    ):
        save_file(changed, path, metadata)
        refused(saved, message)


def test_a_file_of_another_network(saved):
    branches().save(saved[1])
    net = small()
    with untouched(net), pytest.raises(ValueError, match="expected the arrays of this network"):
        net.load(saved[1])


def tampered(saved, change) -> None:
    """Rewrite the metadata by `change`, a function of the decoded ones."""
    header, data = parts(saved[1])
    about = json.loads(header["__metadata__"]["xpnet"])
    about = change(about) or about
    header["__metadata__"]["xpnet"] = about if isinstance(about, str) else json.dumps(about)
    write(saved[1], header, data)


@pytest.mark.parametrize("text", ["{", "nonsense", "", "[" * 100_000, "1" * 5000, '{"format": "xpnet-1", }'])
def test_metadata_that_are_no_json(saved, text):
    tampered(saved, lambda about: text if text else "'")
    refused(saved, "load: expected metadata in JSON|load: expected a file that xpnet saved")


@pytest.mark.parametrize("key", ["architecture", "progress"])
@pytest.mark.parametrize("value", [None, 3, "text", [], [{}], True])
def test_metadata_of_the_wrong_kind(saved, key, value):
    tampered(saved, lambda about: about | {key: value})
    refused(saved, "load: expected an architecture and a progress in the metadata")


@pytest.mark.parametrize("progress", [{}, {"epochs": 1, "steps": 1}, {"epochs": -1, "steps": 0, "uses": 0},
                                      {"epochs": 0, "steps": 2**64, "uses": 0}, {"epochs": "1", "steps": 0, "uses": 0},
                                      {"epochs": 0, "steps": 0.5, "uses": 0}])
def test_progress_that_is_no_count(saved, progress):
    tampered(saved, lambda about: about | {"progress": progress})
    refused(saved, "load: expected counts of epochs, steps and uses")


def set_in(*path_and_value):
    *path, value = path_and_value

    def change(about):
        place = about["architecture"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    return change


BUILT = "load: expected an architecture whose layers can be built"


@pytest.mark.parametrize("change, message", [
    (set_in("input_shape", [10**9, 10**9, 10**9]), BUILT),
    (set_in("input_shape", [10**12]), r"expected linear1.W to be floating-point numbers of shape \(16, 1000000000000\)"),
    (set_in("input_shape", []), f"{BUILT}.*Input: expected the shape of one sample"),
    (set_in("input_shape", None), BUILT),
    (set_in("layers", 0, "config", "units", 10**12), r"expected linear1.W to be floating-point numbers of shape \(10+, 2\)"),
    (set_in("layers", 0, "config", "units", -1), f"{BUILT}.*Linear.*expected units to be an int"),
    (set_in("layers", 0, "config", "surprise", 1), f"{BUILT}.*surprise"),
    (set_in("layers", 0, "config", "self", 1), BUILT),
    (set_in("layers", 0, "config", None), BUILT),
    (set_in("layers", 0, "config", "activation", "__import__"), f"{BUILT}.*expected activation"),
    (set_in("layers", 0, "type", "Layer"), "xpnet has no layer Layer"),
    (set_in("layers", 0, "type", "os.system"), "xpnet has no layer os.system"),
    (set_in("layers", 0, "type", ["Linear"]), BUILT),
    (set_in("layers", 0, "inputs", []), BUILT),
    (set_in("layers", 0, "inputs", ["linear2"]), f"{BUILT}.*linear2"),
    (set_in("layers", 0, "inputs", [None, None]), BUILT),
    (set_in("layers", 0, "name", ["a"]), BUILT),
    (set_in("layers", 2, "name", "linear1"), "load: expected|Network: expected every layer to have a name"),
    (set_in("layers", 0, 3), BUILT),
    (set_in("layers", 5), BUILT),
    (set_in("layers", []), f"{BUILT}|expected the arrays"),
    (set_in("output", "nobody"), f"{BUILT}.*nobody"),
    (set_in("output", "linear1"), "expected the arrays of this network|load: expected"),
    (set_in("output", None), "Network: expected at least one layer|expected the arrays"),
])
def test_architectures_that_make_no_sense(saved, change, message):
    """A clear error from load; a network that is there needs the file's arrays only, and takes them or leaves them."""
    net, path = saved
    tampered(saved, change)
    with untouched(net), pytest.raises(ValueError, match=message):
        xn.load(path, backend="numpy")


@pytest.mark.parametrize("key, value", [("dtype", "float16"), ("dtype", None), ("dtype", ["float32"]), ("seed", -1),
                                        ("seed", 2**64), ("seed", "0"), ("seed", None)])
def test_settings_that_make_no_sense(saved, key, value):
    tampered(saved, set_in(key, value))
    with pytest.raises(ValueError, match=f"Network: expected {key}"):
        xn.load(saved[1], backend="numpy")


@pytest.mark.parametrize("name", ["nothing", "no/folder/file", "."])
def test_no_such_file(tmp_path, name):
    net = small()
    for read in (lambda: xn.load(tmp_path / name), lambda: net.load(tmp_path / name)):
        with untouched(net), pytest.raises(FileNotFoundError, match="load: expected a file that save wrote"):
            read()


def test_a_backend_that_is_not_there_is_no_fault_of_the_file(saved):
    with pytest.raises(xn.BackendError):
        xn.load(saved[1], backend="cupy:99")


# --- writing that fails ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("broken", ["replace", "fsync", "fdopen", "chmod"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
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
    for path in (tmp_path / "no" / "file", tmp_path):
        with pytest.raises(FileNotFoundError, match="save: expected the name of a file in a folder that exists"):
            net.save(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere, Windows has other rights")
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


# --- no code in files -----------------------------------------------------------------------------------------------------

def test_nothing_unpickles_or_evaluates():
    """No module of the package imports pickle or calls what runs code out of data."""
    forbidden = {"pickle", "marshal", "shelve", "dill", "joblib"}
    for path in [*(ROOT / "xpnet").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} | {(getattr(node, "module", "") or "").split(".")[0]}
                assert not names & forbidden, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, path
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", path
