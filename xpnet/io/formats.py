"""Names of file formats, recognised by the first bytes or by the end of a file's name."""

from __future__ import annotations

import os

SUFFIXES = {        # of formats that hold networks or arrays, and that net.save does not write
    ".cfg": "Darknet", ".ckpt": "a checkpoint", ".gguf": "GGUF", ".h5": "HDF5", ".hdf5": "HDF5",
    ".joblib": "joblib", ".json": "JSON", ".keras": "Keras", ".mat": "MATLAB",
    ".mlmodel": "Core ML", ".mlpackage": "Core ML", ".npy": "NumPy", ".npz": "NumPy",
    ".onnx": "ONNX", ".pb": "TensorFlow", ".pickle": "pickle", ".pkl": "pickle", ".pt": "PyTorch",
    ".pth": "PyTorch", ".tflite": "TensorFlow Lite", ".weights": "Darknet",
}
STARTS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, such as Keras writes",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer instead of the file",
}
WITH_ARRAYS = "NumPy", "Keras"   # their libraries can read the arrays


def of_name(path: str | os.PathLike[str]) -> str | None:
    """The format that the suffix of a file's name belongs to, if it is one of SUFFIXES."""
    return SUFFIXES.get(os.path.splitext(os.fspath(path))[1].lower())


def of_content(path: str | os.PathLike[str]) -> str:
    """What the file is according to its first bytes, such as "a PyTorch file"; no code in it
    runs."""
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        return "an empty file"
    for known, what in STARTS.items():
        if start.startswith(known):
            return what
    if start.startswith(b"PK\x03\x04"):
        return _of_archive(start[30:30 + int.from_bytes(start[26:28], "little")])
    if start[0] == 0x80 and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle, such as old versions of PyTorch write"
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite file"
    if start.lstrip()[:1] == b"<" and b"html" in start.lower():
        return "an HTML page"
    if start[:1] == b"\x08" and of_name(path) == "ONNX":
        return "an ONNX file"
    if start[8:9] == b"{":              # a length of 8 bytes, then JSON
        return "a safetensors file that is truncated or damaged"
    return "truncated or not a safetensors file"


def _of_archive(first: bytes) -> str:
    """What a ZIP archive is whose first member has this name."""
    if first.endswith(b".npy"):
        return "a NumPy archive (.npz)"
    if first.endswith((b"/data.pkl", b"/version", b"/byteorder")):
        return "a PyTorch file"
    return "a Keras file" if first == b"metadata.json" else "a ZIP archive"


def remedy(what: str) -> str:
    """What the user can do with a file of that kind, for an error message; "" if unknown."""
    if "PyTorch" in what:
        return "; net.load_torch reads the weights in it"
    if "HDF5" in what:
        return "; net.load_keras reads the weights of a .weights.h5 file"
    if "ONNX" in what:
        return "; xn.io.load_onnx makes a network of it"
    if not any(name in what for name in WITH_ARRAYS):
        return ""
    return "; read it with its own library and copy the arrays, e.g. layer.W.data = array"
