"""Files of PyTorch are read without running their code, and refused if they are damaged."""

from __future__ import annotations

import io
import os
import pickle
import random
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
from torch_states import OURS, assert_loaded, network, normal, refused, state, tensors

from xpnet.io.imports.pickled import Machine, RefusedError, Storage, View
from xpnet.io.imports.tensors import opened

pytestmark = pytest.mark.usefixtures("torch_names")
rng = np.random.default_rng(1)


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
