"""Small files and constructors that would need more memory or time than there is; run as a program.

Each must end with one of the library's errors, in one line, in memory that is limited to a little
more than the library itself takes. Prints one line for each case. A limit of processor time ends a
case that hangs. The argument is the number of layers of a deep network.
"""

from __future__ import annotations

import copy
import json
import resource
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nets import LAYERS

import xpnet as xn
from xpnet.io.architecture import as_json

MEMORY, SECONDS = 600 << 20, 100
HUGE = 10**12
Spec = tuple[str, dict, list]       # type, config, input shape


def specs() -> Iterator[Spec]:
    """Single layers, without arrays in the file. Layers with parameters have too many."""
    for size in ([10**8, 1], [1, 10**8], 2**40, [2**20, 2**20]):
        yield "AdaptiveAvgPool2d", {"output_size": size}, [2, 1, 1]
        yield "AdaptiveMaxPool2d", {"output_size": size}, [2, 9, 9]
    for padding in ([10**7, 0, 0, 0], [0, 0, 0, 10**9], 10**7, 2**62):
        for kind in ("ReplicationPad2d", "ConstantPad2d", "ZeroPad2d"):
            if kind == "ReplicationPad2d" or padding in (2**62,):
                yield kind, {"padding": padding}, [1, 1, 1]
        yield "CircularPad2d", {"padding": padding}, [1, 10**7, 10**7]
        yield "ReflectionPad2d", {"padding": padding}, [1, 10**8, 2]
    yield "GaussianPool2d", {"kernel_size": 20000, "sigma": 1.0}, [1, 20000, 20000]
    yield "GaussianPool2d", {"kernel_size": [10**8, 1], "sigma": 1.0}, [1, 10**8, 1]
    for scale in (1e300, 1e9, [2.0**30, 1e-6], [1e17, 1.0]):
        yield "Upsample2d", {"scale_factor": scale, "mode": "bicubic"}, [1, 64, 64]
    yield "Upsample2d", {"scale_factor": 2.0}, [1, 10**8, 1]
    for units in (HUGE, 2**70, 2**62, 10**4000):
        yield "Linear", {"units": units}, [64]
        yield "DropConnect", {"units": units}, [64]
    for filters in (HUGE, 2**62, 2**70):
        yield "Conv2d", {"filters": filters, "kernel_size": 3}, [1, 8, 8]
        yield "ConvTranspose2d", {"filters": filters, "kernel_size": 3}, [1, 8, 8]
        yield "SeparableConv2d", {"filters": filters, "kernel_size": 3}, [1, 8, 8]
        yield "LocallyConnected2d", {"filters": filters, "kernel_size": 3}, [1, 8, 8]
        yield "DeconvolutionalNetwork2d", {"maps": filters, "kernel_size": 3}, [1, 8, 8]
        yield "DepthwiseConv2d", {"kernel_size": 3, "depth_multiplier": filters}, [1, 8, 8]
    yield "DeconvolutionalNetwork2d", {"maps": 10**9, "kernel_size": 3}, [3, 8, 8]
    yield "Conv2d", {"filters": 1, "kernel_size": 1, "padding": 2**60}, [1, 8, 8]
    yield "ConvTranspose2d", {"filters": 1, "kernel_size": 1, "stride": 2**60}, [1, 8, 8]
    for kind in ("MaxPool2d", "AvgPool2d", "LpPool2d", "StochasticPool2d"):
        yield kind, {"kernel_size": 10**5}, [1, 10**5, 10**5]
        yield kind, {"kernel_size": [2**20, 1], "padding": [2**19, 0, 0, 0],
                     "dilation": 2**40}, [1, 8, 8]
    yield "MaxPool2d", {"kernel_size": [10**9, 1]}, [1, 10**10, 1]
    for kind in ("SubtractiveNorm2d", "DivisiveNorm2d", "ContrastNorm2d"):
        yield kind, {"kernel_size": 10**9 + 1}, [1, 8, 8]
    yield "PixelShuffle", {"upscale_factor": 2**62}, [1, 8, 8]
    yield "PixelUnshuffle", {"downscale_factor": 2**62}, [1, 8, 8]
    yield "Whitening", {}, [10**6]
    yield "Whitening", {"components": 10**6}, [10**6]
    yield "LayerNorm", {}, [10**10]
    yield "Linear", {"units": 10**8}, [4]  # more than the limit here, but less than a machine has
    for shape in ([2] * 100_000, [2**62] * 20_000):
        yield "Reshape", {"shape": shape}, [8]
        yield "ReLU", {}, shape
    yield "Permute", {"axes": list(range(100_000))}, [8]
    yield "GroupNorm", {"groups": 2**62}, [8, 2, 2]
    yield "TableConv2d", {"table": [[2**62]], "kernel_size": 1}, [1, 2, 2]
    yield "ReLU", {}, [10**7] * 3


def header(layers: list[dict], input_shape: list) -> bytes:
    about = {"format": "xpnet-1", "progress": {"epochs": 0, "steps": 0, "uses": 0},
             "architecture": {"inputs": [{"name": "input", "shape": input_shape}],
                              "input_keys": None,
                              "outputs": [layers[-1]["name"]], "output_keys": None,
                              "dtype": "float32", "seed": 0, "layers": layers}}
    text = json.dumps({"__metadata__": {"xpnet": json.dumps(about)}}).encode()
    return struct.pack("<Q", len(text)) + text


def entry(name: str, kind: str, inputs: list, **config) -> dict:
    return {"name": name, "type": kind, "trainable": True, "lr_scale": 1.0, "config": config,
            "inputs": inputs}


def every_number() -> Iterator[Spec]:
    """Every layer of the catalogue with each number of its arguments and of its input's shape, one
    by one, made large."""
    for item in LAYERS:
        layer = item.make()
        config = {name: 2 if value is None and name in ("components", "stride", "axis") else value
                  for name, value in json.loads(as_json(layer.config())).items() if name != "name"}
        both = {"config": config, "shape": list(item.shapes[0])}
        for place, number in list(numbers(both)):
            large = [10**5, 10**6, 10**9 + 1, HUGE, 2**62, 2**70]
            for value in large if isinstance(number, int) else [*large, 1e18, 1e300]:
                changed = copy.deepcopy(both)
                put(changed, place, value)
                yield type(layer).__name__, changed["config"], changed["shape"]


def numbers(value: object, place: tuple = ()) -> Iterator[tuple[tuple, float]]:
    """The numbers in nested lists and dictionaries, and the keys that lead to them."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value
    elif isinstance(value, list | dict):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(inner, (*place, key))


def put(value: dict, place: tuple, number: float) -> None:
    *keys, last = place
    inner: Any = value
    for key in keys:
        inner = inner[key]
    inner[last] = number


def fine() -> Iterator[Spec]:
    """What is large and not too large."""
    for scale in (2.0, 0.5):
        for mode in ("nearest", "bicubic"):
            yield "Upsample2d", {"scale_factor": [scale, 1.0], "mode": mode}, [1, 20000, 1]
    yield "ReflectionPad2d", {"padding": [15000, 15000, 0, 0]}, [1, 20000, 1]
    yield "CircularPad2d", {"padding": [0, 0, 20000, 20000]}, [1, 1, 20000]
    yield "AdaptiveAvgPool2d", {"output_size": [2000, 1]}, [1, 20000, 1]
    yield "MaxPool2d", {"kernel_size": [10000, 1], "stride": 1}, [1, 20000, 1]
    yield "LocalResponseNorm", {"size": 5}, [20000, 1, 1]


def doubling() -> list[dict]:
    """Each layer doubles the number of feature maps: 2^2000 in the end."""
    return [entry("c0", "ReLU", ["input"])] + [entry(f"c{i}", "Concat", [f"c{i - 1}"] * 2)
                                               for i in range(1, 2001)]


def ending(action: Callable[[], object]) -> str:
    """"ok", or the error, which must be one of the library's."""
    try:
        action()
    except (ValueError, MemoryError) as error:
        text = str(error)
        one_line = "\n" not in text and len(text) < 1500
        assert one_line and ": expected" in text and "Received: " in text, repr(error)[:2000]
        return f"{type(error).__name__}: {text}"
    return "ok"


def made(spec: Spec) -> None:
    kind, config, shape = spec
    config = {name: tuple(value) if isinstance(value, list) and name != "table" else value
              for name, value in config.items()}
    xn.Sequential([getattr(xn, kind)(**config)], input_shape=shape, backend="numpy")


def main() -> None:
    # everything is imported
    xn.Sequential([xn.Linear(2)], input_shape=(2,), backend="numpy").predict(np.zeros((1, 2)))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    path = Path(tempfile.mkdtemp()) / "file"
    for spec in specs():
        kind, config, shape = spec
        path.write_bytes(header([entry("a", kind, ["input"], **config)], shape))
        print("file", kind, f"{config!r:.60}", ending(lambda: xn.load(path, backend="numpy")),
              flush=True)
        print("constructor", kind, f"{config!r:.60}", ending(lambda spec=spec: made(spec)),
              flush=True)
    endings, inputs = (Counter[str](),
                       {type(item.make()).__name__: len(item.shapes) for item in LAYERS})
    for kind, config, shape in every_number():
        path.write_bytes(header([entry("a", kind, ["input"] * inputs[kind], **config)], shape))
        found = ending(lambda: xn.load(path, backend="numpy"))
        assert "MemoryError" not in found and "OverflowError" not in found, found
        endings[found.partition(":")[0]] += 1
    print("numbers", json.dumps(endings, sort_keys=True), flush=True)
    for kind, config, shape in fine():
        path.write_bytes(header([entry("a", kind, ["input"], **config)], shape))
        net = xn.load(path, backend="numpy")
        assert (kind == "MaxPool2d"
                or np.isfinite(net.predict(np.ones((1, *shape), np.float32))).all())
        print("file", kind, f"{config!r:.60}", "ok", flush=True)
    path.write_bytes(header(doubling(), [8]))
    print("file doubling", ending(lambda: xn.load(path, backend="numpy")), flush=True)
    n = int(sys.argv[1])
    chain = [entry(f"i{i}", "Identity", [f"i{i - 1}" if i else "input"]) for i in range(n)]
    path.write_bytes(header(chain, [3]))
    print("file identities", ending(lambda: xn.load(path, backend="numpy")), flush=True)
    chain = [entry(f"d{i}", "Dropout", [f"d{i - 1}" if i else "input"]) for i in range(n)]
    leaves = [entry(f"s{i}", "LogSoftmax", [f"d{n - 1}"]) for i in range(n)]
    path.write_bytes(header([*chain, *leaves, entry("all", "Concat", [f"s{i}" for i in range(n)])],
                            [3]))
    print("file log softmaxes below dropouts", ending(lambda: xn.load(path, backend="numpy")),
          flush=True)


if __name__ == "__main__":
    main()
