"""Convolutions, pooling and fully connected layers as ONNX's operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.backends import Window
from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.write_activations import Write, activated
from xpnet.io.onnx.writer import Use
from xpnet.layer import Layer
from xpnet.layers.pooling import partial_factor
from xpnet.layers.signals import OneRow


def axes_of(layer: Layer) -> int:
    """2 for feature maps, 1 for signals."""
    return 1 if isinstance(layer, OneRow) else 2


def pads(padding: tuple[int, int, int, int], axes: int) -> list[int]:
    """(top, bottom, left, right) in ONNX's order: all beginnings, then all ends."""
    return [*padding[::2][-axes:], *padding[1::2][-axes:]]


def sliding(window: Window, axes: int) -> dict[str, Any]:
    """The attributes of a window that slides over feature maps or signals."""
    return {"kernel_shape": window.kernel[-axes:], "strides": window.stride[-axes:],
            "dilations": window.dilation[-axes:], "pads": pads(window.padding, axes)}


# --- products -------------------------------------------------------------------------------------

def linear(use: Use, layer: L.Linear, x: str) -> str:
    W = use.parameter(layer.W)
    if len(layer.in_shapes[0]) == 1:
        b = [use.parameter(layer.b)] if layer.b else []
        return activated(use, use("Gemm", x, W, *b, transB=1), layer.activation)
    y = use("MatMul", W, x)                                         # (N, units, T)
    if layer.b:
        y = use("Add", y, use.parameter(layer.b, use.values(layer.b)[:, None]))
    return activated(use, y, layer.activation)


def rbf(use: Use, layer: L.RBF, x: str) -> str:
    """2 C x - |x|^2 - |C|^2."""
    C = use.values(layer.C).astype(np.float64)
    squares = use("ReduceSumSquare", x, use.ints([1]), keepdims=1)
    products = use("Gemm", x, use.parameter(layer.C), transB=1, alpha=2.0)
    return use("Sub", use("Sub", products, squares), use.constant((C * C).sum(axis=1)))


# --- convolution ----------------------------------------------------------------------------------

def conv(use: Use, layer: Any, x: str, W: np.ndarray | None = None) -> str:
    by_filter = bool(layer.b) and layer.bias != "map"
    b = [use.parameter(layer.b)] if by_filter else []
    y = use("Conv", x, use.parameter(layer.W, W), *b, group=layer.groups,
            **sliding(layer.window, axes_of(layer)))
    return _finished(use, layer, y)


def _finished(use: Use, layer: Any, y: str) -> str:
    if layer.b and layer.bias == "map":
        y = use("Add", y, use.parameter(layer.b))
    return activated(use, y, layer.activation)


def true_conv(use: Use, layer: L.TrueConv2d, x: str) -> str:
    return conv(use, layer, x, use.values(layer.W)[:, :, ::-1, ::-1])


def table_conv(use: Use, layer: L.TableConv2d, x: str) -> str:
    """Dense filters, which are 0 where there is no connection."""
    W = np.zeros((layer.filters, layer.in_shapes[0][0], *layer.window.kernel))
    filters = np.repeat(np.arange(layer.filters), [len(row) for row in layer.channels])
    W[filters, np.concatenate(layer.channels)] = use.values(layer.W)
    return conv(use, layer, x, W)


def separable_conv(use: Use, layer: L.SeparableConv2d, x: str) -> str:
    return conv(use, layer.pointwise, conv(use, layer.depthwise, x))


def conv_transpose(use: Use, layer: Any, x: str) -> str:
    """With a border of zeros where nothing contributes, which onnxruntime refuses to make."""
    axes, (slide, read, size) = axes_of(layer), layer.transposed
    smallest = [(n - 1) * s - before - after + extent for n, s, extent, before, after in zip(
        layer.in_shapes[0][1:], *([*pair][-axes:] for pair in (
            slide.stride, slide.extent, slide.padding[::2], slide.padding[1::2])))]
    bordered, by_filter = read != size, bool(layer.b) and layer.bias != "map"
    b = [use.parameter(layer.b)] if by_filter and not bordered else []
    y = use("ConvTranspose", x, use.parameter(layer.W), *b, group=layer.groups,
            output_padding=[r - n for r, n in zip(read[-axes:], smallest)],
            **sliding(slide, axes))
    if bordered:
        ends = [s - r for s, r in zip(size[-axes:], read[-axes:])]
        y = use("Pad", y, use.ints([0] * (4 + axes) + ends, "pads"))
        if by_filter:
            y = use("Add", y, use.parameter(layer.b, use.values(layer.b).reshape(
                -1, *(1,) * axes)))
    return _finished(use, layer, y)


def locally_connected(use: Use, layer: L.LocallyConnected2d, x: str) -> str:
    """A convolution gathers the columns of all windows, and each position has a product of its
    own."""
    C, taps = layer.in_shapes[0][0], layer.window.taps
    F, OH, OW = layer.out_shape
    P, K = OH * OW, C * taps
    one_hot = np.tile(np.eye(taps), (C, 1)).reshape(K, 1, *layer.window.kernel)
    cols = use("Conv", x, use.constant(one_hot, "one_hot"), group=C, **sliding(layer.window, 2))
    cols = use("Transpose", use("Reshape", cols, use.ints([0, K, P])), perm=(2, 1, 0))
    z = use("MatMul", use.parameter(layer.W, use.values(layer.W).reshape(P, F, K)), cols)
    if layer.b:
        z = use("Add", z, use.parameter(layer.b, use.values(layer.b).reshape(P, F, 1)))
    z = use("Reshape", use("Transpose", z, perm=(2, 1, 0)), use.ints([0, F, OH, OW]))
    return activated(use, z, layer.activation)


# --- pooling --------------------------------------------------------------------------------------

def max_pool(use: Use, layer: Any, x: str) -> str:
    axes, window = axes_of(layer), layer.window
    attributes = sliding(window, axes)
    if any(p >= k for p, k in zip(attributes["pads"], 2 * attributes["kernel_shape"])):
        # of a dilated window; operators that pool refuse such pads
        x = use("Pad", x, use.ints([0, 0, *attributes["pads"][:axes],
                                    0, 0, *attributes["pads"][axes:]]), use.constant(-np.inf))
        attributes["pads"] = [0] * 2 * axes
    return use("MaxPool", x, **attributes)


def avg_pool(use: Use, layer: Any, x: str) -> str:
    axes, window = axes_of(layer), layer.window
    H, W = layer._map_size
    given = Window(window.kernel, window.stride, layer._given_padding, window.dilation)
    factor = partial_factor(given, window, H, W) if layer.count_include_pad else None
    if window.dilation == (1, 1):
        attributes = sliding(window, axes)
        del attributes["dilations"]         # the operator has had them since opset 19
        y = use("AveragePool", x, count_include_pad=int(layer.count_include_pad), **attributes)
    else:
        if not layer.count_include_pad:
            rows, columns = (inside.sum(axis=1) for inside in window.inside(H, W))
            factor = window.taps / np.outer(rows, columns)
        y = windowed(use, x, layer, np.full(window.kernel, 1 / window.taps))
    return y if factor is None else use("Mul", y, _over_map(use, factor, axes))


def _over_map(use: Use, factor: np.ndarray, axes: int) -> str:
    """A factor (OH, OW) for each position of feature maps, (OT,) of signals."""
    return use.constant(factor if axes == 2 else factor[0], "factor")


def windowed(use: Use, x: str, layer: Any, weights: np.ndarray) -> str:
    """The sum of each window with the same weights (KH, KW) for each channel."""
    C, axes = layer.in_shapes[0][0], axes_of(layer)
    weights = weights if axes == 2 else weights[0]
    filters = use.constant(np.repeat(weights[None, None], C, axis=0), "weights")
    return use("Conv", x, filters, group=C, **sliding(layer.window, axes))


def _no_lengths(lengths: tuple[str, ...]) -> None:
    if lengths:
        raise UnsupportedError("ONNX has no operator for pooling of the real steps")


def global_avg_pool(use: Use, layer: Layer, x: str, *lengths: str) -> str:
    _no_lengths(lengths)
    return use("Flatten", use("GlobalAveragePool", x), axis=1)


def global_max_pool(use: Use, layer: Layer, x: str, *lengths: str) -> str:
    _no_lengths(lengths)
    return use("Flatten", use("GlobalMaxPool", x), axis=1)


def adaptive_avg_pool(use: Use, layer: Any, x: str) -> str:
    """A X B^T with the means of rows, A (OH, H), and of columns, B (OW, W)."""
    sizes, outs, axes = layer.in_shapes[0][1:], layer.out_shape[1:], axes_of(layer)
    if all(size % out == 0 for size, out in zip(sizes, outs)):
        kernel = [size // out for size, out in zip(sizes, outs)]
        return use("AveragePool", x, kernel_shape=kernel, strides=kernel)
    matrices = []
    for size, spans in zip(layer._map_size, (layer.rows, layer.columns)):
        matrices.append(np.zeros((len(spans), size)))
        for number, (start, stop) in enumerate(spans):
            matrices[-1][number, start:stop] = 1 / (stop - start)
    if axes == 2:
        x = use("MatMul", use.constant(matrices[0], "rows"), x)
    return use("MatMul", x, use.constant(matrices[1].T, "columns"))


def adaptive_max_pool(use: Use, layer: Any, x: str) -> str:
    """The largest of each group of rows, then of each group of columns."""
    for axis, spans in enumerate((layer.rows, layer.columns)[-axes_of(layer):], 2):
        parts = [use("ReduceMax", sliced(use, x, axis, start, stop), use.ints([axis]), keepdims=1)
                 for start, stop in spans]
        x = parts[0] if len(parts) == 1 else use("Concat", *parts, axis=axis)
    return x


def soft_argmax(use: Use, layer: L.SoftArgmax2d, x: str) -> str:
    """The means of columns and of rows under the softmax over all positions."""
    M, H, W = layer.in_shapes[0]
    z = use("Reshape", x, use.ints([0, M, H * W], "shape"))
    p = use("Softmax", use("Mul", z, use.constant(layer.beta, "beta")), axis=2)
    columns, rows = ((np.arange(n) + 0.5) / n for n in (W, H))
    places = np.stack([np.tile(columns, H), np.repeat(rows, W)], axis=1)        # (H W, 2)
    return use("Flatten", use("MatMul", p, use.constant(places, "places")), axis=1)


def sliced(use: Use, x: str, axis: int, start: int, stop: int) -> str:
    """Elements start to stop - 1 along an axis; the batch is one of them."""
    return use("Slice", x, use.ints([start]), use.ints([stop]), use.ints([axis]))


def max_unpool(use: Use, layer: L.MaxUnpool2d, x: str, z: str) -> str:
    window = layer.over_y
    if any(s < extent for s, extent in zip(window.stride, window.extent)):
        raise UnsupportedError("ONNX's MaxUnpool has no sums where windows overlap")
    if window.dilation != (1, 1):
        raise UnsupportedError("ONNX's MaxUnpool has no dilation")
    attributes = sliding(window, 2)
    _, places = use.several("MaxPool", 2, z, **attributes)
    del attributes["dilations"]
    return use("MaxUnpool", x, places, use("Shape", z), **attributes)


def lp_pool(use: Use, layer: L.LpPool2d, x: str) -> str:
    powers = use("Pow", use("Abs", x), use.constant(layer.p, "p"))
    weight = 1 / layer.window.taps if layer.mean else 1.0
    total = windowed(use, powers, layer, np.full(layer.window.kernel, weight))
    return use("Pow", total, use.constant(1 / layer.p, "root"))


def gaussian_pool(use: Use, layer: L.GaussianPool2d, x: str) -> str:
    rows, columns = (layer._bell(size) for size in layer.window.kernel)
    y = windowed(use, x, layer, np.outer(rows, columns))
    if layer.count_include_pad:
        return y
    shares = [inside @ bell for inside, bell in zip(layer.window.inside(*layer.in_shapes[0][1:]),
                                                    (rows, columns))]
    return use("Mul", y, _over_map(use, 1 / np.outer(*shares), 2))


def stochastic_pool(use: Use, layer: L.StochasticPool2d, x: str) -> str:
    """The sum of A^2 / the sum of A, with A = max(X, 0)."""
    ones, A = np.ones(layer.window.kernel), use("Relu", x)
    total = windowed(use, A, layer, ones)
    squares = windowed(use, use("Mul", A, A), layer, ones)
    tiny = use.constant(np.finfo(use.draft.dtype).tiny, "tiny")
    return use("Div", squares, use("Max", total, tiny))


def subsampling(use: Use, layer: L.Subsampling2d, x: str) -> str:
    C = layer.in_shapes[0][0]
    a = use.values(layer.a).reshape(-1, 1, 1, 1) * np.ones((C, 1, *layer.window.kernel))
    z = use("Conv", x, use.parameter(layer.a, a), use.parameter(layer.b), group=C,
            **sliding(layer.window, 2))
    return activated(use, z, layer.activation)


def skip_sampling(use: Use, layer: L.SkipSampling2d, x: str) -> str:
    _, H, W = layer.in_shapes[0]
    assert layer.window is not None
    return use("Slice", x, use.ints(layer._offsets), use.ints([H, W]), use.ints([2, 3]),
               use.ints(layer.window.stride))


WRITE: dict[type[Layer], Write] = {
    L.MatMul: lambda use, layer, x, z: use("MatMul", x, z), L.Linear: linear,
    L.DropConnect: linear, L.RBF: rbf, L.LocallyConnected2d: locally_connected,
    L.Conv2d: conv, L.Conv1d: conv, L.DepthwiseConv2d: conv, L.TrueConv2d: true_conv,
    L.TableConv2d: table_conv, L.SeparableConv2d: separable_conv,
    L.ConvTranspose2d: conv_transpose, L.ConvTranspose1d: conv_transpose,
    L.MaxPool2d: max_pool, L.MaxPool1d: max_pool, L.AvgPool2d: avg_pool, L.AvgPool1d: avg_pool,
    L.GlobalAvgPool2d: global_avg_pool, L.GlobalAvgPool1d: global_avg_pool,
    L.GlobalMaxPool2d: global_max_pool, L.GlobalMaxPool1d: global_max_pool,
    L.AdaptiveAvgPool2d: adaptive_avg_pool, L.AdaptiveMaxPool2d: adaptive_max_pool,
    L.AdaptiveAvgPool1d: adaptive_avg_pool, L.AdaptiveMaxPool1d: adaptive_max_pool,
    L.SoftArgmax2d: soft_argmax, L.MaxUnpool2d: max_unpool, L.LpPool2d: lp_pool,
    L.GaussianPool2d: gaussian_pool,
    L.StochasticPool2d: stochastic_pool, L.Subsampling2d: subsampling,
    L.SkipSampling2d: skip_sampling,
}
