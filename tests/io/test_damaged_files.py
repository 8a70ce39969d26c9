"""Files that are truncated, foreign or tampered with: clear errors, and unchanged networks in
memory."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from nets import branches, small, untouched

import xpnet as xn


@pytest.fixture
def saved(tmp_path) -> tuple[xn.Sequential, Path]:
    net, path = small(), tmp_path / "net.safetensors"
    net.save(path)
    return net, path


def parts(path: Path) -> tuple[dict, bytes]:
    """The JSON header of a safetensors file, and its data."""
    raw = path.read_bytes()
    length, = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8:8 + length]), raw[8 + length:]


def write(path: Path, header: dict, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def refused(saved, match: str, error=ValueError) -> None:
    """Both ways of reading fail, and the network in memory does not change."""
    net, path = saved
    other = small(seed=1)
    for read in (lambda: xn.load(path, backend="numpy"), lambda: other.load(path),
                 lambda: net.load(path)):
        with untouched(net), untouched(other), pytest.raises(error, match=match) as caught:
            read()
        assert str(path) in str(caught.value)


# from the end: the last 300 bytes and more are data
@pytest.mark.parametrize("keep", [0, 1, 4, 8, 20, 300, -300, -100, -4, -1])
def test_truncated(saved, keep):
    _, path = saved
    path.write_bytes(path.read_bytes()[:keep])
    refused(saved, "load: expected a complete safetensors file.*(truncated|empty)")


def test_too_long(saved):
    _, path = saved
    path.write_bytes(path.read_bytes() + b"more")
    refused(saved, "load: expected a complete safetensors file")


def archive(path, **members) -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path.read_bytes()


@pytest.mark.parametrize("content, what", [
    (b"a text of some length", "truncated or not a safetensors file"),
    (bytes(64), "truncated or not a safetensors file"), (b"", "an empty file"),
    (b"\x80\x04\x95 a pickle?", "a pickle"), (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"\x89HDF\r\n\x1a\n" + bytes(99),
     "an HDF5 file, such as Keras writes .*; net.load_keras reads the weights of a .weights.h5"),
    (b"\x93NUMPY\x01\x00", "a NumPy array"), (b"\n<!DOCTYPE HTML><html>", "an HTML page"),
    (b"\x1c\0\0\0TFL3", "a TensorFlow Lite file"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
     "a Git LFS pointer instead of the file"),
    (b"\x40\0\0\0\0\0\0\0{", "a safetensors file that is truncated or damaged")])
def test_files_of_other_kinds(saved, content, what):
    saved[1].write_bytes(content)
    refused(saved, "load: expected a complete safetensors file that save wrote. Received: .*, "
                   f"which is {what}")


def test_files_of_other_libraries(saved, tmp_path):
    np.savez(tmp_path / "a.npz", W=np.zeros(3))
    archive(tmp_path / "a.pth", **{"archive/data.pkl": b"", "archive/version": b"3"})
    archive(tmp_path / "a.keras", **{"metadata.json": b"{}", "model.weights.h5": b""})
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    refused((saved[0], tmp_path / "a.pth"), "which is a PyTorch file .*; net.load_torch reads the "
                                            "weights in it")
    refused((saved[0], tmp_path / "a.onnx"), "which is an ONNX file .*; xn.io.load_onnx makes a "
                                             "network of it")
    for name, what in (("a.npz", "a NumPy archive"), ("a.keras", "a Keras file")):
        refused((saved[0], tmp_path / name),
                f"which is {what} .*read it with its own library and copy the arrays")


@pytest.mark.parametrize("name", ["net.onnx", "net.pt", "net.PTH", "net.h5", "net.npz", "net.pkl",
                                  "net.keras", "net.json", "net.cfg", "net.weights"])
def test_save_writes_no_other_format(tmp_path, name):
    with pytest.raises(
            ValueError,
            match="save: expected a name that ends with .safetensors, .*; net.export writes ONNX, "
                  "xn.io.save_darknet Darknet. .*whose suffix means"):
        small().save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    for fine in ("net", "net.safetensors", "net.best", "onnx"):
        small().save(tmp_path / fine)


def test_a_file_of_another_program(saved):
    from safetensors.numpy import save_file
    for metadata in (None, {"format": "pt"}, {"xpnet": "{}"}, {"xpnet": '{"format": "xpnet-2"}'},
                     {"xpnet": "[]"}):
        save_file({"weight": np.zeros(3, np.float32)}, saved[1], metadata)
        refused(saved, r"load: expected a file that xpnet saved \(format xpnet-1\)")


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3"])
def test_element_types_that_numpy_does_not_have(saved, kind):
    header, data = parts(saved[1])
    size = {"BF16": 2, "F8_E4M3": 1}[kind]
    write(saved[1], header | {"linear1.b": {"dtype": kind, "shape": [64 // size], "data_offsets":
                                            header["linear1.b"]["data_offsets"]}}, data)
    refused(saved, "load: expected a complete safetensors file|load: expected linear1.b to be "
                   "floating-point numbers")


def without(header: dict, name: str) -> dict:
    return {key: value for key, value in header.items() if key != name}


def test_arrays_that_do_not_fit(saved):
    from safetensors.numpy import load_file, save_file
    path = saved[1]
    metadata, arrays = parts(path)[0]["__metadata__"], load_file(path)
    for changed, message in ((without(arrays, "linear1.b"),
                              "expected the arrays of this network.*differs in linear1.b"),
                             (arrays | {"extra": np.zeros(1, np.float32)},
                              "expected the arrays of this network.*differs in extra"),
                             (arrays | {"linear1.b": np.zeros(15, np.float32)},
                              r"expected linear1.b to be floating-point numbers of shape \(16,\)"),
                             (arrays | {"linear1.W": np.zeros((2, 16), np.float32)},
                              r"of shape \(16, 2\). Received: float32 of shape \(2, 16\)"),
                             (arrays | {"linear1.b": np.zeros(16, np.int32)},
                              "floating-point numbers.*Received: I32")):
        save_file(changed, path, metadata)
        refused(saved, message)


def test_a_file_of_another_network(saved):
    branches().save(saved[1])
    net = small()
    with untouched(net), pytest.raises(ValueError,
                                       match="expected a file of a network of this architecture"):
        net.load(saved[1])
    with untouched(net), pytest.raises(ValueError, match="expected the arrays of this network"):
        net.load(saved[1], architecture=False)


def tampered(saved, change) -> None:
    """Rewrite the metadata with `change`, a function of the decoded metadata."""
    header, data = parts(saved[1])
    about = json.loads(header["__metadata__"]["xpnet"])
    about = change(about) or about
    header["__metadata__"]["xpnet"] = about if isinstance(about, str) else json.dumps(about)
    write(saved[1], header, data)


@pytest.mark.parametrize("text", ["{", "nonsense", "", "[" * 100_000, "1" * 5000,
                                  '{"format": "xpnet-1", }'])
def test_metadata_that_is_not_json(saved, text):
    tampered(saved, lambda about: text if text else "'")
    refused(saved, "load: expected metadata in JSON|load: expected a file that xpnet saved")


@pytest.mark.parametrize("key", ["architecture", "progress"])
@pytest.mark.parametrize("value", [None, 3, "text", [], [{}], True])
def test_metadata_of_the_wrong_kind(saved, key, value):
    tampered(saved, lambda about: about | {key: value})
    refused(saved, "load: expected an architecture and a progress in the metadata")


@pytest.mark.parametrize("progress", [
    {}, {"epochs": 1, "steps": 1}, {"epochs": -1, "steps": 0, "uses": 0},
    {"epochs": 0, "steps": 2**64, "uses": 0}, {"epochs": "1", "steps": 0, "uses": 0},
    {"epochs": 0, "steps": 0.5, "uses": 0}])
def test_counts_of_progress_that_are_refused(saved, progress):
    tampered(saved, lambda about: about | {"progress": progress})
    refused(saved, "load: expected counts of epochs, steps and uses")


def test_the_largest_counts_are_read(saved):
    most = 2**64 - 1
    counts = dict.fromkeys(("epochs", "steps", "uses"), most)
    tampered(saved, lambda about: about | {"progress": counts})
    net = xn.load(saved[1], backend="numpy")
    assert net.epochs == most and net.counters.tolist() == [most, most]


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
    (set_in("inputs", 0, "shape", [10**9, 10**9, 10**9]), BUILT),
    (set_in("inputs", 0, "shape", [10**9]),
     r"expected linear1.W to be floating-point numbers of shape \(16, 1000000000\)"),
    (set_in("inputs", 0, "shape", [10**12]),
     f"{BUILT}.*Linear 'linear1': expected W of at most 2\\^40 elements"),
    (set_in("inputs", 0, "shape", []), f"{BUILT}.*Input: expected the shape of one sample"),
    (set_in("inputs", 0, "shape", None), BUILT),
    (set_in("layers", 0, "config", "units", 10**9),
     r"expected linear1.W to be floating-point numbers of shape \(10+, 2\)"),
    (set_in("layers", 0, "config", "units", 10**12),
     f"{BUILT}.*Linear 'linear1': expected W of at most 2\\^40 elements"),
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
    (set_in("layers", 0, "inputs", ["input", "input"]), BUILT),
    (set_in("layers", 0, "inputs", [None]), BUILT),
    (set_in("layers", 1, "layer", "linear1"), f"{BUILT}|load: expected"),
    (set_in("layers", 1, {"name": "relu1", "layer": "nobody", "inputs": ["linear1"]}),
     f"{BUILT}.*nobody"),
    (set_in("inputs", []), BUILT),
    (set_in("inputs", [3]), BUILT),
    (set_in("inputs", None), BUILT),
    (set_in("layers", 0, "name", ["a"]), BUILT),
    (set_in("layers", 2, "name", "linear1"),
     "load: expected|Network: expected every layer to have a name"),
    (set_in("layers", 0, 3), BUILT),
    (set_in("layers", 5), BUILT),
    (set_in("layers", []), f"{BUILT}|expected the arrays"),
    (set_in("outputs", ["nobody"]), f"{BUILT}.*nobody"),
    (set_in("outputs", ["linear1"]), "expected the arrays of this network|load: expected"),
    (set_in("outputs", ["input"]), "Network: expected at least one layer|expected the arrays"),
    (set_in("outputs", []), BUILT),
    (set_in("outputs", None), BUILT),
])
def test_architectures_that_are_refused(saved, change, message):
    """`load` raises a clear error. An existing network needs only the arrays of the file, and loads
    them with architecture=False."""
    net, path = saved
    tampered(saved, change)
    with untouched(net), pytest.raises(ValueError, match=message):
        xn.load(path, backend="numpy")
    with untouched(net), pytest.raises(ValueError, match="load: expected"):
        net.load(path)
    assert net.load(path, architecture=False) is net


@pytest.mark.parametrize("change, message", [
    (set_in("layers", 0, "lr_scale", -1), f"{BUILT}.*lr_scale"),
    (set_in("input_keys", ["a", "b"]), BUILT),
    (set_in("output_keys", 3), BUILT),
])
def test_metadata_that_an_existing_network_does_not_read(saved, change, message):
    net, path = saved
    tampered(saved, change)
    with pytest.raises(ValueError, match=message):
        xn.load(path, backend="numpy")
    assert net.load(path) is net


@pytest.mark.parametrize("key, value",
                         [("dtype", "float16"), ("dtype", None), ("dtype", ["float32"]),
                          ("seed", -1),
                                        ("seed", 2**64), ("seed", "0"), ("seed", None)])
def test_settings_that_are_refused(saved, key, value):
    tampered(saved, set_in(key, value))
    with pytest.raises(ValueError, match=f"Network: expected {key}"):
        xn.load(saved[1], backend="numpy")


@pytest.mark.parametrize("name", ["nothing", "no/folder/file", "."])
def test_no_such_file(tmp_path, name):
    net = small()
    for read in (lambda: xn.load(tmp_path / name), lambda: net.load(tmp_path / name)):
        with untouched(net), pytest.raises(FileNotFoundError,
                                           match="load: expected a file that save wrote"):
            read()


@pytest.mark.parametrize("name", [3, None, b"bytes", "", "a\0b"])
def test_names_that_are_refused(name):
    net = small()
    for read in (lambda: xn.load(name), lambda: net.load(name)):
        with untouched(net), pytest.raises((ValueError, TypeError),
                                           match="^load: expected the name of a file. Received: "):
            read()


def test_a_missing_backend_is_not_reported_as_an_error_of_the_file(saved):
    with pytest.raises(xn.BackendError):
        xn.load(saved[1], backend="cupy:99")
