"""Weights of PyTorch: files are read without running their code, and arrays reach the layers that
they belong to."""

from __future__ import annotations

import collections
import io
import os
import pickle
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import limited_memory, limited_time
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tiers import examples
from torch_files import Tensor, pickled, save, save_legacy, torch_names  # noqa: F401 - a fixture

import xpnet as xn
from xpnet.io.imports.matching import Module
from xpnet.io.imports.pickled import Machine, RefusedError, Storage, View
from xpnet.io.imports.tensors import opened
from xpnet.io.imports.torchvision import in_order

pytestmark = pytest.mark.usefixtures("torch_names")
rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def network() -> xn.Sequential:
    return xn.Sequential([
        xn.Conv2d(3, 2), xn.BatchNorm2d(activation="relu"), xn.Conv2d(3, 2), xn.Flatten(),
        xn.Linear(4)], input_shape=(2, 4, 4), backend="numpy")


def state() -> dict[str, np.ndarray]:
    """What such a network is in PyTorch; its first and last convolution differ in shape."""
    return {"features.0.weight": normal(3, 2, 2, 2), "features.0.bias": normal(3),
            "features.1.weight": normal(3), "features.1.bias": normal(3),
            "features.1.running_mean": normal(3), "features.1.running_var": normal(3)**2,
            "features.1.num_batches_tracked": np.array(7),
            "features.3.weight": normal(3, 3, 2, 2), "features.3.bias": normal(3),
            "head.weight": normal(4, 12), "head.bias": normal(4)}


OURS = {"conv1.W": "features.0.weight", "conv1.b": "features.0.bias",
        "bn1.gamma": "features.1.weight", "bn1.beta": "features.1.bias",
        "bn1.mean": "features.1.running_mean", "bn1.var": "features.1.running_var",
        "conv2.W": "features.3.weight", "conv2.b": "features.3.bias",
        "linear1.W": "head.weight", "linear1.b": "head.bias"}


def tensors(arrays: dict[str, np.ndarray]) -> collections.OrderedDict[str, Any]:
    found = collections.OrderedDict((name, Tensor(array)) for name, array in arrays.items())
    found._metadata = collections.OrderedDict({"": {"version": 1}})     # type: ignore[attr-defined]
    return found


def assert_loaded(net: xn.Network, arrays: dict[str, np.ndarray],
                  names: dict[str, str] = OURS) -> None:
    for ours, theirs in names.items():
        assert np.array_equal(net.arrays[ours].data, arrays[theirs]), ours


# --- files ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("write", [save, save_legacy])
def test_both_formats_of_torch_save(write: Any, tmp_path: Path):
    arrays, net = state(), network()
    report = net.load_torch(write(tensors(arrays), tmp_path / "a.pth"))
    assert_loaded(net, arrays)
    assert report.complete and set(report.matched) == set(OURS) and report.sources == OURS
    assert "conv1.W    copied from features.0.weight" in repr(report)


def test_safetensors(tmp_path: Path):
    arrays, net = state(), network()
    save_file(arrays, tmp_path / "a.safetensors")
    assert net.load_torch(tmp_path / "a.safetensors").complete
    assert_loaded(net, arrays)


@pytest.mark.parametrize("value", [
    lambda t: {"epoch": 3, "lr": 0.1, "name": "a", "model": t, "best": None, "on": True},
    lambda t: {"state_dict": t, "optimizer": {"state": [{"step": 5}], "groups": []}},
    lambda t: dict(t, note="a string among them")])
@pytest.mark.parametrize("write", [save, save_legacy])
def test_checkpoints_with_other_facts(value: Any, write: Any, tmp_path: Path):
    arrays, net = state(), network()
    net.load_torch(write(value(tensors(arrays)), tmp_path / "a.pt"))
    assert_loaded(net, arrays)


def read(value: Any, path: Path, write: Any = save, **options: Any) -> dict[str, np.ndarray]:
    with opened(write(value, path, **options)) as found:
        return {name: tensor.read() for name, tensor in found.named.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "uint8",
                                   "bool"])
@pytest.mark.parametrize("write", [save, save_legacy])
def test_dtypes(dtype: str, write: Any, tmp_path: Path):
    a = (rng.normal(size=(3, 4)) * 3).astype(dtype)
    found = read({"a": Tensor(a)}, tmp_path / "a.pth", write)["a"]
    assert found.dtype == dtype and np.array_equal(found, a)


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path):
    a = np.array([1.0, -2.5, 3.0e38, 2.0**-120], np.float32)
    halves = (a.view(np.uint32) >> 16).astype(np.uint16)
    expected = (halves.astype(np.uint32) << 16).view(np.float32)
    tensor = Tensor(halves, dtype="bfloat16")
    for write in (save, save_legacy):
        assert np.array_equal(read({"a": tensor}, tmp_path / "a.pth", write)["a"], expected)
    header = b'{"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
    (tmp_path / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header
                                             + halves.tobytes())
    with opened(tmp_path / "b.safetensors") as found:
        assert np.array_equal(found.named["a"].read(), expected.reshape(2, 2))


def test_views_of_a_storage(tmp_path: Path):
    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    found = read({"all": Tensor(a), "turned": Tensor(a, (6, 4), (1, 6)),
                  "row": Tensor(a, (6,), (1,), 12), "column": Tensor(a, (4,), (6,), 2),
                  "number": Tensor(a, (), (), 5), "none": Tensor(a, (0, 3), (3, 1)),
                  "again": Tensor(a, (3, 2), (0, 1), 22), "weights": Tensor(a, parameter=True)},
                 tmp_path / "a.pth")
    assert np.array_equal(found["all"], a) and np.array_equal(found["turned"], a.T)
    assert np.array_equal(found["row"], a[2]) and np.array_equal(found["column"], a[:, 2])
    assert found["number"] == 5 and found["none"].shape == (0, 3)
    assert np.array_equal(found["again"], [[22, 23]] * 3) and np.array_equal(found["weights"], a)
    assert np.array_equal(read({"a": Tensor(a.T)}, tmp_path / "b.pth")["a"], a.T)


def test_big_endian_files(tmp_path: Path):
    a = normal(3, 2)
    swapped = a.byteswap()              # the bytes of a machine of that kind
    assert np.array_equal(read({"a": Tensor(swapped)}, tmp_path / "a.pth", byteorder="big")["a"], a)


# --- files that are refused -----------------------------------------------------------------------

class Attack:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def refused(path: Path, net: xn.Network | None = None) -> str:
    """The error, in one line; the network does not change."""
    net = network() if net is None else net
    before = {name: p.data.copy() for name, p in net.arrays.items()}
    with pytest.raises(ValueError, match="load_torch: expected") as caught:
        net.load_torch(path)
    assert all(np.array_equal(p.data, before[name]) for name, p in net.arrays.items())
    assert re.fullmatch(r"load_torch: expected [^\n]+ Received: [^\n]+", str(caught.value))
    return str(caught.value)


@pytest.mark.parametrize("write", [save, save_legacy])
def test_code_in_a_pickle_does_not_run(write: Any, tmp_path: Path):
    mark = tmp_path / "was-here"
    for value in (Attack(mark), {"a": Attack(mark)}, {"model": [Attack(mark)]}):
        message = refused(write(value, tmp_path / "a.pth"))
        assert f"an object of {os.system.__module__}.system; only tensors" in message
    pickle.loads(pickle.dumps(Attack(mark)))        # the attack works where it is unpickled
    assert mark.exists()


def test_whole_models_are_refused(tmp_path: Path):
    value = {"a": Tensor(normal(2)), "b": random.Random(0)}
    assert "an object of random.Random; only tensors" in refused(save(value, tmp_path / "a.pth"))


@pytest.mark.parametrize(("change", "reason"), [
    ({"leave_out": "data.pkl"}, "no data.pkl"), ({"leave_out": "data/1"}, "no member data/1"),
    ({"compression": zipfile.ZIP_DEFLATED}, "compressed or too large"),
    ({"data": b""}, "exhausted before seeing STOP"),
    ({"data": b"\x80\x02}"}, "exhausted before seeing STOP"),
    ({"data": b"\x80\x02}."}, "no dict of tensors by their names"),
    ({"data": b"\x80\x02K\x05."}, "no dict of tensors"),
    ({"data": b"\x80\x02\x85."}, "a damaged pickle"),
    ({"data": b"cos\nsystem\n(S'true'\ntR."}, "with the operation STRING"),
    ({"data": b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00a\x85R."}, "an object of os.system"),
    ({"data": b"\x80\x04\x8c\x02os\x8c\x06system\x93)R."}, "an object of os.system"),
    ({"data": b"\x80\x02}K\x01)s."}, "no dict of tensors"),
    ({"data": b"\x80\x02}))s."}, "a dict with the key ()"),
    ({"data": b"\x80\x02)K\x01a."}, "elements for what is no list"),
    ({"data": b"\x80\x02h\x05."}, "a damaged pickle"), ({"data": b"u."}, "a damaged pickle")])
def test_damaged_archives(change: dict[str, Any], reason: str, tmp_path: Path):
    assert reason in refused(save(tensors(state()), tmp_path / "a.pth", **change))


@pytest.mark.parametrize(("tensor", "reason"), [
    (Tensor(normal(6), (7,), (1,)), "ends behind its storage of 6"),
    (Tensor(normal(6), (2, 3), (4, 1)), "ends behind its storage"),
    (Tensor(normal(6), (2,), (1,), 5), "ends behind its storage"),
    (Tensor(normal(6), (2,), (-1,), 5), "other arguments"),
    (Tensor(normal(6), (-2,), (1,)), "other arguments"),
    (Tensor(normal(6), (2,), (1,), -1), "other arguments"),
    (Tensor(normal(6), (2, 3), (1,)), "other arguments"),
    (Tensor(normal(6), (True,), (1,)), "other arguments")])
def test_tensors_outside_of_their_storage(tensor: Tensor, reason: str, tmp_path: Path):
    assert reason in refused(save({"a": tensor}, tmp_path / "a.pth"))


def test_a_large_tensor_of_one_element_takes_no_memory(tmp_path: Path):
    """Its shape is compared before it is read."""
    tensor = Tensor(normal(1), (2**40, 2**20), (0, 0))
    message = refused(save({"linear.weight": tensor}, tmp_path / "a.pth"))
    assert "no place for linear.weight" in message


def test_truncated_files(tmp_path: Path):
    arrays = tensors(state())
    for write in (save, save_legacy):
        content = write(arrays, tmp_path / "a.pth").read_bytes()
        for size in (0, 1, 10, 100, len(content) // 2, len(content) - 1):
            (tmp_path / "b.pth").write_bytes(content[:size])
            refused(tmp_path / "b.pth")
    with pytest.raises(FileNotFoundError, match="load_torch: expected the name of"):
        network().load_torch(tmp_path / "none.pth")
    (tmp_path / "c.pth").write_text("<html>not found</html>")
    assert "which is an HTML page" in refused(tmp_path / "c.pth")


@pytest.mark.parametrize("operations", [b"(", b"]", b"}q\0", b")\x85", b"}\x94"])
def test_long_pickles_are_refused(operations: bytes, tmp_path: Path):
    """An empty list takes one byte there, and 56 bytes of memory."""
    path = save({}, tmp_path / "a.pth", data=b"\x80\x04" + operations * 10**6 + b".")
    with limited_time():
        assert "more than 524,288 operations" in refused(path)


def test_an_escape_that_is_none_gives_no_warning(tmp_path: Path,
                                                 recwarn: pytest.WarningsRecorder):
    refused(save({}, tmp_path / "a.pth", data=b"S'\\?'\n."))
    assert not recwarn.list


def test_a_member_with_two_sizes(tmp_path: Path):
    path = save(tensors(state()), tmp_path / "a.pth")
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"archive/data/1"))
    content[at + 20:at + 24] = (1 << 29).to_bytes(4, "little")      # before decompression
    path.write_bytes(content)
    with limited_memory(1 << 24):
        assert "compressed or too large" in refused(path)


@pytest.mark.parametrize("data", [
    b"\x80\x02}()q\0" + b"h\0\x86q\0" * 99 + b"K\1u.",       # 2^99 empty tuples
    b"\x80\x02}()" + b"\x85" * 10**5 + b"K\1u."])
def test_nested_values_are_not_followed(data: bytes, tmp_path: Path):
    assert "a dict with the key (" in refused(save({}, tmp_path / "a.pth", data=data))


@given(st.data())
@examples(300)
def test_changed_bytes_give_tensors_or_one_reason(data: Any):
    """A pickle with some bytes changed is read or refused; nothing else happens."""
    own = bytearray(PICKLE)
    for _ in range(data.draw(st.integers(1, 3))):
        own[data.draw(st.integers(0, len(own) - 1))] = data.draw(st.integers(0, 255))
    try:
        Machine().run(bytes(own))
    except RefusedError as error:
        assert "\n" not in str(error)


def without_torch() -> bytes:
    """A pickle of tensors in the usual operations, written by hand."""
    def text(word: str) -> bytes:
        return b"X" + len(word).to_bytes(4, "little") + word.encode()

    storage = (b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
               + b"K\x06tQ")
    tensor = (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x02K\x03\x86K\x03K\x01"
              b"\x86\x89ccollections\nOrderedDict\n)RtR")
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + text("a") + tensor + b"u."


PICKLE = without_torch()


def test_the_machine():
    assert Machine().run(PICKLE) == {"a": View(Storage("0", "float32", 6), 0, (2, 3), (3, 1))}
    assert Machine().run(io.BytesIO(PICKLE)) == Machine().run(PICKLE)
    assert pickled({"a": Tensor(normal(2, 3))})[0].endswith(b".")
    for value in ({"a": [1, 2.5, "b", None, True, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ()]},
                  [2**80, -1, 300, 70000], {}, {"k": {"l": {}}}):
        for protocol in (2, 3, 4, 5):
            assert Machine().run(pickle.dumps(value, protocol)) == value


# --- what belongs together ------------------------------------------------------------------------

def loaded(net: xn.Network, arrays: dict[str, np.ndarray], folder: Path, *options: Any,
           **more: Any) -> Any:
    return net.load_torch(save(tensors(arrays), folder / "a.pth"), *options, **more)


def test_a_dict_of_names(tmp_path: Path):
    arrays, net = state(), network()
    mapping = {"features.0": "conv1", "features.1": "bn1", "features.3": "conv2", "head": "linear1"}
    assert loaded(net, dict(reversed(arrays.items())), tmp_path, mapping).complete
    assert_loaded(net, arrays)
    report = loaded(network(), arrays, tmp_path, {"head": "linear1"}, strict=False)
    assert report.matched == ("linear1.W", "linear1.b") and len(report.unused) == 8
    with pytest.raises(ValueError, match='mapping to have .* perhaps "conv1". Received: .conv_1., '
                                         "which the network does not have"):
        loaded(net, arrays, tmp_path, {"features.0": "conv_1"})
    with pytest.raises(ValueError, match="which the file does not have"):
        loaded(net, arrays, tmp_path, {"features": "conv1"})
    with pytest.raises(ValueError, match="to name each layer once. Received: 'conv1' twice"):
        loaded(net, arrays, tmp_path, {"features.0": "conv1", "features.3": "conv1"})
    with pytest.raises(ValueError, match='mapping to be None, "torchvision" or a dict'):
        loaded(net, arrays, tmp_path, "keras")


def test_nothing_is_loaded_unless_everything_matches(tmp_path: Path):
    arrays, net = state(), network()
    arrays["head.weight"], arrays["head.bias"] = normal(5, 12), normal(5)
    before, W = net.parameters.copy(), net.arrays["linear1.W"].data.copy()
    with pytest.raises(ValueError, match=r"with linear1.W of shape \(5, 12\) instead of \(4, 12\), "
                                         r"linear1.b of shape \(5,\) instead of \(4,\)\.$"):
        loaded(net, arrays, tmp_path)
    assert np.array_equal(net.parameters, before)
    report = loaded(net, arrays, tmp_path, strict=False)
    assert report.shapes == {"linear1.W": ((5, 12), (4, 12)), "linear1.b": ((5,), (4,))}
    assert not report.complete and not report.missing and not report.unused
    assert_loaded(net, arrays, {ours: theirs for ours, theirs in OURS.items()
                                if "head" not in theirs})
    assert np.array_equal(net.arrays["linear1.W"].data, W)


@pytest.mark.parametrize(("change", "missing", "unused"), [
    (lambda a: a.pop("features.1.running_var"), "bn1.gamma", "features.1.weight"),
    (lambda a: [a.pop("features.3.weight"), a.pop("features.3.bias")], "conv2.W", ""),
    (lambda a: a.update({"more.weight": normal(2, 2)}), "", "more.weight"),
    (lambda a: a.update({"head.scale": normal(2)}), "linear1.W", "head.scale")])
def test_what_is_missing_and_what_is_left(change: Any, missing: str, unused: str, tmp_path: Path):
    arrays = state()
    change(arrays)
    message = refused(save(tensors(arrays), tmp_path / "a.pth"))
    assert (f"nothing for {missing}" in message) == bool(missing)
    assert ("no place for" in message) == bool(unused) and unused in message


def test_equal_modules_keep_their_order(tmp_path: Path):
    layers = [xn.Linear(3) for _ in range(12)]
    net = xn.Sequential(layers, input_shape=(3,), backend="numpy")
    arrays = {f"{k}.{key}": normal(*shape) for k in range(12)
              for key, shape in (("weight", (3, 3)), ("bias", (3,)))}
    names = {f"linear{k + 1}.{ours}": f"{k}.{theirs}" for k in range(12)
             for ours, theirs in (("W", "weight"), ("b", "bias"))}
    loaded(net, arrays, tmp_path)
    assert_loaded(net, arrays, names)
    save_file(arrays, tmp_path / "a.safetensors")       # there 10 stands before 2
    net.parameters *= 0
    net.load_torch(tmp_path / "a.safetensors")
    assert_loaded(net, arrays, names)


def test_safetensors_with_equal_shapes_and_words_need_a_mapping(tmp_path: Path):
    net = xn.Sequential([xn.Linear(3), xn.Linear(3)], input_shape=(3,), backend="numpy")
    arrays = {f"{word}.{key}": normal(*shape) for word in ("second", "first")
              for key, shape in (("weight", (3, 3)), ("bias", (3,)))}
    save_file(arrays, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="expected mapping=.*Received: first and second, which"):
        net.load_torch(tmp_path / "a.safetensors")
    net.load_torch(tmp_path / "a.safetensors", {"second": "linear1", "first": "linear2"})
    assert np.array_equal(net.arrays["linear1.W"].data, arrays["second.weight"])
    loaded(net, arrays, tmp_path)                       # a .pth file has them in their order
    assert np.array_equal(net.arrays["linear2.W"].data, arrays["first.weight"])


@pytest.mark.parametrize("word", ["\u00b2", "9" * 5000, "a\nb", "", "layer\u0663"])
def test_names_that_are_no_numbers(word: str, tmp_path: Path):
    net = xn.Sequential([xn.Linear(2), xn.Linear(1)], input_shape=(3,), backend="numpy")
    arrays = {f"{word}.weight": normal(2, 3), f"{word}.bias": normal(2), "b.weight": normal(1, 2),
              "b.bias": normal(1)}
    save_file(arrays, tmp_path / "a.safetensors")
    for mapping in (None, "torchvision"):
        report = net.load_torch(tmp_path / "a.safetensors", mapping, strict=False)
        assert mapping or report.complete
        assert len(repr(report).splitlines()) >= 7


def test_layers_and_their_names(tmp_path: Path):
    """Each with the shapes that PyTorch documents."""
    x = xn.Input((4, 6))
    h = xn.Conv1d(6, 3, groups=2)(x)
    h = xn.PReLU(per_channel=True)(xn.GroupNorm(3)(h))
    h = xn.ConvTranspose1d(4, 2)(h)
    h = xn.LayerNorm(axis=0)(h)
    net = xn.Network(x, xn.Linear(2, bias=False)(h), backend="numpy")
    arrays = {"a.weight": normal(6, 2, 3), "a.bias": normal(6), "n.weight": normal(6),
              "n.bias": normal(6), "p.weight": normal(6), "t.weight": normal(6, 4, 2),
              "t.bias": normal(4), "l.weight": normal(4), "l.bias": normal(4),
              "o.weight": normal(2, 4)}
    assert loaded(net, arrays, tmp_path).complete
    names = dict(zip((name for name in net.arrays), arrays, strict=True))
    assert {name.rpartition(".")[2]: theirs.rpartition(".")[2] for name, theirs in names.items()
            } == {"W": "weight", "b": "bias", "gamma": "weight", "beta": "bias", "a": "weight"}
    assert_loaded(net, arrays, names)


def test_separable_convolutions_are_two_modules(tmp_path: Path):
    net = xn.Sequential([xn.SeparableConv2d(5, 3)], input_shape=(2, 4, 4), backend="numpy")
    arrays = {"depth.weight": normal(2, 1, 3, 3), "point.weight": normal(5, 2, 1, 1),
              "point.bias": normal(5)}
    report = loaded(net, arrays, tmp_path, {"depth": "conv1.depthwise", "point": "conv1.pointwise"})
    assert report.complete
    assert_loaded(net, arrays, {"conv1.depthwise.W": "depth.weight",
                                "conv1.pointwise.W": "point.weight",
                                "conv1.pointwise.b": "point.bias"})


@pytest.mark.parametrize("make, gates", [(xn.SimpleRNN, 1), (xn.LSTM, 4), (xn.GRU, 3)])
def test_recurrent_layers(make: Any, gates: int, tmp_path: Path):
    """Two layers and directions; the two biases of PyTorch are added, except that of n in a GRU."""
    net = xn.Sequential([make(3, layers=2, bidirectional=True)], input_shape=(2, 5),
                        backend="numpy")
    arrays = {}
    for level, D in ((0, 2), (1, 6)):
        for way in ("", "_reverse"):
            end = f"_l{level}{way}"
            arrays |= {f"r.weight_ih{end}": normal(3 * gates, D),
                       f"r.weight_hh{end}": normal(3 * gates, 3),
                       f"r.bias_ih{end}": normal(3 * gates), f"r.bias_hh{end}": normal(3 * gates)}
    assert loaded(net, arrays, tmp_path).complete
    name = next(iter(net.layer_names))
    for level in (1, 2):
        for way, end in (("forward", ""), ("reverse", "_reverse")):
            ours, theirs = f"{name}.{way}{level}", f"_l{level - 1}{end}"
            W, U = (arrays[f"r.weight_{part}{theirs}"] for part in ("ih", "hh"))
            first, second = (arrays[f"r.bias_{part}{theirs}"] for part in ("ih", "hh"))
            assert np.array_equal(net.arrays[f"{ours}.W"].data, W)
            assert np.array_equal(net.arrays[f"{ours}.U"].data, U)
            added = second.copy()
            if make is xn.GRU:
                assert np.array_equal(net.arrays[f"{ours}.c"].data, second[6:])
                added[6:] = 0
            assert np.array_equal(net.arrays[f"{ours}.b"].data, first + added)


def test_layers_that_pytorch_does_not_have(tmp_path: Path):
    net = xn.Sequential([xn.GRU(3, reset="before"), xn.Linear(2)], input_shape=(2, 5),
                        backend="numpy")
    arrays = {"l.weight": normal(2, 3), "l.bias": normal(2)}
    report = loaded(net, arrays, tmp_path, strict=False)
    assert report.matched == ("linear1.W", "linear1.b")
    assert report.missing == ("gru1.forward1.W", "gru1.forward1.U", "gru1.forward1.b")


def test_attention(tmp_path: Path):
    net = xn.Sequential([xn.MultiHeadAttention(2)], input_shape=(4, 5), backend="numpy")
    arrays = {"m.in_proj_weight": normal(12, 4), "m.in_proj_bias": normal(12),
              "m.out_proj.weight": normal(4, 4), "m.out_proj.bias": normal(4)}
    assert loaded(net, arrays, tmp_path).complete
    x, h = normal(4, 5), 2
    Q, K, V = (arrays["m.in_proj_weight"][4 * k:4 * k + 4] @ x
               + arrays["m.in_proj_bias"][4 * k:4 * k + 4, None] for k in range(3))
    parts = []
    for k in range(h):
        q, key, v = (a[2 * k:2 * k + 2] for a in (Q, K, V))
        e = np.exp(key.T @ q / np.sqrt(2))              # (keys, queries)
        parts.append(v @ (e / e.sum(axis=0)))
    expected = (arrays["m.out_proj.weight"] @ np.concatenate(parts)
                + arrays["m.out_proj.bias"][:, None])
    np.testing.assert_allclose(net.predict(x[None])[0], expected, rtol=1e-4, atol=1e-5)


def test_attention_to_other_features(tmp_path: Path):
    x, z = xn.Input((4, 5)), xn.Input((6, 3))
    net = xn.Network([x, z], xn.MultiHeadAttention(2)(x, z), backend="numpy")
    arrays = {"q_proj_weight": normal(4, 4), "k_proj_weight": normal(4, 6),
              "v_proj_weight": normal(4, 6), "in_proj_bias": normal(12),
              "out_proj.weight": normal(4, 4), "out_proj.bias": normal(4)}
    assert loaded(net, {f"m.{key}": a for key, a in arrays.items()}, tmp_path).complete
    assert np.array_equal(net.arrays["attention1.key.W"].data, arrays["k_proj_weight"])
    assert np.array_equal(net.arrays["attention1.value.b"].data, arrays["in_proj_bias"][8:])


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_count_of_batches(momentum: float | None, tmp_path: Path):
    """It is needed by the mean over all batches only."""
    net = xn.Sequential([xn.BatchNorm1d(momentum=momentum)], input_shape=(3,), backend="numpy")
    arrays = {"weight": normal(3), "bias": normal(3), "running_mean": normal(3),
              "running_var": normal(3)**2, "num_batches_tracked": np.array(9)}
    assert loaded(net, arrays, tmp_path).complete
    assert ("bn1.batches" in net.arrays) == (momentum is None)
    assert momentum is not None or net.arrays["bn1.batches"].data == [9]


def test_a_linear_in_float64(tmp_path: Path):
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy", dtype="float64")
    arrays = {"weight": rng.normal(size=(2, 3)), "bias": rng.normal(size=2)}
    loaded(net, arrays, tmp_path)
    assert_loaded(net, arrays, {"linear1.W": "weight", "linear1.b": "bias"})


# --- torchvision ----------------------------------------------------------------------------------

ORDERS = {
    "resnet": "conv1 bn1 layer1.0.conv1 layer1.0.bn1 layer1.0.conv2 layer1.0.bn2 layer1.0.conv3 "
              "layer1.0.bn3 layer1.0.downsample.0 layer1.0.downsample.1 layer1.1.conv1 "
              "layer1.1.bn1 layer2.0.conv1 layer2.10.conv1 fc",
    "densenet": "features.conv0 features.norm0 features.denseblock1.denselayer1.norm1 "
                "features.denseblock1.denselayer1.conv1 features.denseblock1.denselayer1.norm2 "
                "features.denseblock1.denselayer1.conv2 features.denseblock1.denselayer2.norm1 "
                "features.denseblock1.denselayer12.norm1 features.transition1.norm "
                "features.transition1.conv features.denseblock2.denselayer1.norm1 "
                "features.transition3.conv features.denseblock4.denselayer1.norm1 features.norm5 "
                "classifier",
    "old-densenet": "features.denseblock1.denselayer1.norm.1 features.denseblock1.denselayer1."
                    "conv.1 features.denseblock1.denselayer1.norm.2 features.denseblock1."
                    "denselayer1.conv.2 features.denseblock1.denselayer2.norm.1",
    "googlenet": "conv1.conv conv1.bn conv2.conv conv3.conv inception3a.branch1.conv "
                 "inception3a.branch1.bn inception3a.branch2.0.conv inception3a.branch2.1.conv "
                 "inception3a.branch3.0.bn inception3a.branch4.1.conv inception3b.branch1.conv "
                 "inception4e.branch1.conv inception5a.branch1.conv fc",
    "squeezenet": "features.0 features.3.squeeze features.3.expand1x1 features.3.expand3x3 "
                  "features.4.squeeze features.12.squeeze classifier.1",
    "mobilenet": "features.0.0 features.0.1 features.1.conv.0.0 features.1.conv.0.1 "
                 "features.1.conv.1 features.1.conv.2 features.2.conv.0.0 features.18.0 "
                 "classifier.1",
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_of_torchvisions_names(name: str):
    names = ORDERS[name].split()
    for order in (sorted(names), names[::-1], random.Random(1).sample(names, len(names))):
        found = in_order([Module(one, {}) for one in order], auxiliary=False)
        assert [module.name for module in found] == names


def test_auxiliary_classifiers_are_last_or_left_out():
    modules = [Module(name, {}) for name in ("fc", "aux2.fc1", "aux1.fc2", "conv1.bn", "aux1.fc1",
                                             "aux1.conv.conv", "conv1.conv")]
    assert [module.name for module in in_order(modules, False)] == ["conv1.conv", "conv1.bn", "fc"]
    assert [module.name for module in in_order(modules, True)][3:] == [
        "aux1.conv.conv", "aux1.fc1", "aux1.fc2", "aux2.fc1"]
