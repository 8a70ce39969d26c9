"""Layers that move, merge, interpolate or look up elements as ONNX's operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.io.onnx.write_activations import Write, activated
from xpnet.io.onnx.write_windows import pads, sliced
from xpnet.io.onnx.writer import Use
from xpnet.layer import Layer
from xpnet.layers.signals import OneRow


def flatten(use: Use, layer: L.Flatten, x: str) -> str:
    return use("Flatten", x, axis=1)


def reshaped(use: Use, x: str, *shape: int) -> str:
    """Another shape of each sample."""
    return use("Reshape", x, use.ints([0, *shape], "shape"))


def reshape(use: Use, layer: L.Reshape, x: str) -> str:
    return reshaped(use, x, *layer.out_shape)


def permute(use: Use, layer: L.Permute, x: str) -> str:
    return use("Transpose", x, perm=[0, *(axis + 1 for axis in layer.axes)])


def part(use: Use, layer: L.Slice, x: str) -> str:
    taken = layer._part[-1]
    return sliced(use, x, layer.axis + 1, taken.start, taken.stop)


def channel_shuffle(use: Use, layer: L.ChannelShuffle, x: str) -> str:
    C, H, W = layer.in_shapes[0]
    g = layer.groups
    rows = use("Transpose", reshaped(use, x, g, C // g, H, W), perm=(0, 2, 1, 3, 4))
    return reshaped(use, rows, C, H, W)


def pixel_shuffle(use: Use, layer: L.PixelShuffle, x: str) -> str:
    return use("DepthToSpace", x, blocksize=layer.r, mode=layer.order)


def pixel_unshuffle(use: Use, layer: L.PixelUnshuffle, x: str) -> str:
    if layer.order == "DCR":
        return use("SpaceToDepth", x, blocksize=layer.r)
    (C, H, W), r = layer.in_shapes[0], layer.r
    blocks = use("Transpose", reshaped(use, x, C, H // r, r, W // r, r), perm=(0, 1, 3, 5, 2, 4))
    return reshaped(use, blocks, *layer.out_shape)


# --- several inputs -------------------------------------------------------------------------------

def add(use: Use, layer: L.Add, *xs: str) -> str:
    return activated(use, use("Add" if len(xs) == 2 else "Sum", *xs), layer.activation)


def concat(use: Use, layer: L.Concat, *xs: str) -> str:
    return use("Concat", *xs, axis=layer.axis + 1)


def multiply(use: Use, layer: L.Multiply, x: str, *others: str) -> str:
    for other in others:
        x = use("Mul", x, other)
    return x


def weighted_sum(use: Use, layer: L.WeightedSum, *xs: str) -> str:
    """With the normalised weights, each as (1,) or (C, 1, ..., 1)."""
    assert layer.w.backend is not None
    a = np.asarray(layer.w.backend.to_numpy(layer.weights()[0]))
    C_first = -1, *(1,) * (len(layer.out_shape) - 1)
    terms = [use("Mul", x, use.initializer(f"w{number}", row.reshape(C_first)))
             for number, (x, row) in enumerate(zip(xs, a, strict=True))]
    return use("Sum", *terms)


def pad_channels(use: Use, layer: L.PadChannels, x: str) -> str:
    more, axes = layer.channels - layer.in_shapes[0][0], len(layer.in_shapes[0])
    before, after = [0] * (axes + 1), [0, more, *[0] * (axes - 1)]
    return use("Pad", x, use.ints([*before, *after], "pads"))


def operator(op: str) -> Write:
    return lambda use, layer, *xs: use(op, *xs)


# --- borders and interpolation --------------------------------------------------------------------

def border(use: Use, layer: Any, x: str, mode: str, *value: str) -> str:
    axes = len(layer.in_shapes[0]) - 1
    p = pads(layer.sides, axes)
    return use("Pad", x, use.ints([0, 0, *p[:axes], 0, 0, *p[axes:]], "pads"), *value, mode=mode)


def constant_pad(use: Use, layer: Any, x: str) -> str:
    return border(use, layer, x, "constant", use.constant(layer.value, "value"))


def reflection_pad(use: Use, layer: Any, x: str) -> str:
    return border(use, layer, x, "reflect")


def replication_pad(use: Use, layer: Any, x: str) -> str:
    return border(use, layer, x, "edge")


def circular_pad(use: Use, layer: Any, x: str) -> str:
    """Rows and columns of the opposite side; ONNX has had this mode of Pad since opset 19 only."""
    sizes, axes = layer.in_shapes[0][1:], len(layer.in_shapes[0]) - 1
    p = pads(layer.sides, axes)
    for axis, (size, before, after) in enumerate(zip(sizes, p[:axes], p[axes:]), 2):
        pieces = [sliced(use, x, axis, start, stop)
                  for start, stop in ((size - before, size), (0, after)) if start < stop]
        around = [*pieces[:1], x, *pieces[1:]] if before else [x, *pieces]
        x = x if len(around) == 1 else use("Concat", *around, axis=axis)
    return x


def crop(use: Use, layer: Any, x: str) -> str:
    sizes, axes = layer.in_shapes[0][1:], len(layer.in_shapes[0]) - 1
    p = pads(layer.sides, axes)
    stops = [size - after for size, after in zip(sizes, p[axes:])]
    return use("Slice", x, use.ints(p[:axes]), use.ints(stops), use.ints(range(2, 2 + axes)))


MODES = {               # of Upsample2d and Upsample1d: attributes of Resize
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "floor"},
    "nearest-exact": {"mode": "nearest", "coordinate_transformation_mode": "half_pixel",
                      "nearest_mode": "round_prefer_ceil"},
    "bilinear": {"mode": "linear"}, "linear": {"mode": "linear"},
    "bicubic": {"mode": "cubic"}, "cubic": {"mode": "cubic"},
}


def upsample(use: Use, layer: Any, x: str) -> str:
    row = isinstance(layer, OneRow)
    (C, *sizes), (_, *outs) = layer.in_shapes[0], layer.out_shape
    attributes = dict(MODES[layer.mode])
    if layer.align_corners:
        attributes["coordinate_transformation_mode"] = "align_corners"
    if row:
        x, sizes, outs = reshaped(use, x, C, 1, *sizes), [1, *sizes], [1, *outs]
    whole = all(n * s == out for n, s, out in zip(sizes, layer.upsampling, outs))
    if whole or layer.align_corners or layer.size is not None:
        y = use("Resize", x, "", "", use.ints(outs, "sizes"), axes=(2, 3), **attributes)
    elif all(_same_in_float32(layer, *one) for one in zip(sizes, layer.upsampling, outs)):
        y = use("Resize", x, "", use.floats(layer.upsampling, "scales"), axes=(2, 3), **attributes)
    else:
        A, B = (matrix.dense() for matrix in layer.matrices(*sizes))
        y = use("MatMul", use("MatMul", use.constant(A, "rows"), x), use.constant(B.T, "columns"))
    return reshaped(use, y, *layer.out_shape) if row else y


def _same_in_float32(layer: Any, size: int, scale: float, out: int) -> bool:
    """Whether size and positions are the same if they are computed in float32, as Resize does."""
    y, s = np.arange(out, dtype=np.float32), np.float32(scale)
    inside = np.float32(0.5 if layer.mode == "nearest-exact" else 0)
    return int(np.float32(size) * s) == out and (layer.reads[layer.mode] > 1 or bool(
        (np.floor((y + inside) / s) == np.floor((np.arange(out) + inside) / scale)).all()))


# --- tokens, fixed scaling ------------------------------------------------------------------------

def embedding(use: Use, layer: L.Embedding, x: str) -> str:
    axes = len(layer.in_shapes[0])
    if x not in use.draft.integers:
        x = use("Cast", x, to=use.draft.onnx.TensorProto.INT64)
    rows = use("Gather", use.parameter(layer.W), x, axis=0)                 # (N, ..., features)
    return use("Transpose", rows, perm=[0, axes + 1, *range(1, axes + 1)])


def rescale(use: Use, layer: L.Rescale, x: str) -> str:
    def numbers(value: float | list[float], name: str) -> str:
        rest = (1,) * (len(layer.in_shapes[0]) - 1)
        return use.constant(np.array(value).reshape(-1, *rest) if isinstance(value, list)
                            else value, name)

    y = x if layer.mean == 0 else use("Sub", x, numbers(layer.mean, "mean"))
    return y if layer.std == 1 else use("Div", y, numbers(layer.std, "std"))


def whitening(use: Use, layer: L.Whitening, x: str) -> str:
    flat = x if len(layer.in_shapes[0]) == 1 else use("Flatten", x, axis=1)
    centred = use("Sub", flat, use.parameter(layer.mean))
    y = use("Gemm", centred, use.parameter(layer.W), transB=1)
    return y if len(layer.out_shape) == 1 else reshaped(use, y, *layer.out_shape)


def identity(use: Use, layer: Layer, x: str) -> str:
    """Dropout and noise, which a prediction does not have."""
    return x


WRITE: dict[type[Layer], Write] = {
    L.Flatten: flatten, L.Reshape: reshape, L.Permute: permute, L.Slice: part,
    L.ChannelShuffle: channel_shuffle, L.PixelShuffle: pixel_shuffle,
    L.PixelUnshuffle: pixel_unshuffle, L.Add: add, L.Concat: concat, L.Multiply: multiply,
    L.WeightedSum: weighted_sum, L.PadChannels: pad_channels,
    L.Average: operator("Mean"), L.Subtract: operator("Sub"), L.Maximum: operator("Max"),
    L.Minimum: operator("Min"), L.ConstantPad2d: constant_pad, L.ZeroPad2d: constant_pad,
    L.ZeroPad1d: constant_pad, L.ReflectionPad2d: reflection_pad,
    L.ReplicationPad2d: replication_pad, L.CircularPad2d: circular_pad, L.Crop2d: crop,
    L.ConstantPad1d: constant_pad, L.ReflectionPad1d: reflection_pad,
    L.ReplicationPad1d: replication_pad, L.CircularPad1d: circular_pad, L.Crop1d: crop,
    L.Upsample2d: upsample, L.Upsample1d: upsample, L.Embedding: embedding, L.Rescale: rescale,
    L.Whitening: whitening,
    **dict.fromkeys([L.Dropout, L.Dropout1d, L.Dropout2d, L.GaussianDropout, L.AlphaDropout,
                     L.AdditiveNoise], identity),
}
