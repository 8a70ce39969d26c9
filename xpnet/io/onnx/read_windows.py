"""Convolutions, pooling and products from ONNX's operators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.io.onnx.build import Reading, Value
from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.read_activations import Read


def steps(op: Reading, n: int) -> tuple[list[int], list[int]]:
    """Strides and dilations along n axes."""
    strides, dilations = (list(op.attribute(name, [1] * n)) for name in ("strides", "dilations"))
    return strides, dilations


def given_pads(op: Reading, n: int) -> tuple[list[int], list[int]]:
    """The padding before and after the elements of n axes."""
    pads = list(op.attribute("pads", [0] * 2 * n))
    return pads[:n], pads[n:]


def window(op: Reading, sizes: tuple[int, ...], kernel: list[int]) -> dict[str, Any]:
    """stride, padding and dilation of a window over `sizes`, as arguments of a layer."""
    n = len(sizes)
    strides, dilations = steps(op, n)
    if not len(kernel) == len(strides) == len(dilations) == n:
        raise UnsupportedError(f"its window does not have {n} axes")
    mode = op.attribute("auto_pad", "NOTSET")
    before, after = [0] * n, [0] * n
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        for axis, (size, k, s, d) in enumerate(zip(sizes, kernel, strides, dilations)):
            total = max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
            before[axis], after[axis] = _halves(total, mode)
    elif mode == "NOTSET":
        before, after = given_pads(op, n)
    elif mode != "VALID":
        raise UnsupportedError(f"its auto_pad is {mode}")
    return {"stride": as_argument(strides), "dilation": as_argument(dilations),
            "padding": as_padding(before, after)}


def _halves(total: int, mode: str) -> tuple[int, int]:
    """If the padding is odd, the larger half is at the end for SAME_UPPER."""
    less = total // 2
    return (less, total - less) if mode == "SAME_UPPER" else (total - less, less)


def as_argument(numbers: list[int]) -> Any:
    """An int of a signal, a pair of a map."""
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def as_padding(before: list[int], after: list[int]) -> Any:
    """(before, after), or (top, bottom, left, right). Raises UnsupportedError if some is
    negative."""
    if min(before + after) < 0:
        raise UnsupportedError("its pads are negative")
    return tuple(n for pair in zip(before, after) for n in pair)


def maps(op: Reading) -> Value:
    """The first input, feature maps (C, H, W) or signals (C, T)."""
    return op.batch_first(0, 2, 3)


# --- convolution ----------------------------------------------------------------------------------

def _weights(op: Reading, value: Value) -> dict[str, np.ndarray]:
    W = op.numbers(1, "weights")
    if W.ndim != len(value.shape) + 1:
        raise UnsupportedError(f"its weights have {W.ndim} axes")
    arrays = {"W": W}
    if op.given(2):
        arrays["b"] = op.numbers(2, "bias").reshape(-1)
    return arrays


def conv(op: Reading) -> Value:
    value = maps(op)
    arrays = _weights(op, value)
    F, _, *kernel = arrays["W"].shape
    layer = L.Conv2d if len(kernel) == 2 else L.Conv1d
    options = window(op, value.shape[1:], kernel)
    return op.add(layer(F, as_argument(kernel), groups=op.attribute("group", 1),
                        bias="b" in arrays, **options), value, arrays=arrays, key=op.key(1, 2))


def conv_transpose(op: Reading) -> Value:
    """The padding may follow from the shape of the output."""
    value = maps(op)
    arrays, groups = _weights(op, value), op.attribute("group", 1)
    _, per_group, *kernel = arrays["W"].shape
    n = len(kernel)
    (strides, dilations), (before, after) = steps(op, n), given_pads(op, n)
    extra = list(op.attribute("output_padding", [0] * n))
    mode, wanted = op.attribute("auto_pad", "NOTSET"), op.attribute("output_shape")
    if wanted is not None or mode in ("SAME_UPPER", "SAME_LOWER"):
        sizes = (list(wanted)[-n:] if wanted is not None
                 else [size * s for size, s in zip(value.shape[1:], strides)])
        for axis, (size, s, d, k) in enumerate(zip(value.shape[1:], strides, dilations, kernel)):
            total = s * (size - 1) + extra[axis] + d * (k - 1) + 1 - sizes[axis]
            extra[axis] += max(-total, 0)       # rows to which no element contributes
            before[axis], after[axis] = _halves(max(total, 0), mode)
    layer = L.ConvTranspose2d if n == 2 else L.ConvTranspose1d
    return op.add(layer(per_group * groups, as_argument(kernel), stride=as_argument(strides),
                        padding=as_padding(before, after), output_padding=as_argument(extra),
                        dilation=as_argument(dilations), groups=groups, bias="b" in arrays),
                  value, arrays=arrays, key=op.key(1, 2))


# --- pooling --------------------------------------------------------------------------------------

def pooling(op: Reading, value: Value) -> tuple[Any, dict[str, Any]]:
    kernel = list(op.attribute("kernel_shape", []))
    options = window(op, value.shape[1:], kernel)
    return as_argument(kernel), options | {"ceil_mode": op.attribute("ceil_mode", 0) == 1}


def max_pool(op: Reading) -> Value:
    op.expect_one_output()
    value = maps(op)
    kernel, options = pooling(op, value)
    layer = L.MaxPool2d if len(value.shape) == 3 else L.MaxPool1d
    return op.add(layer(kernel, **options), value)


def avg_pool(op: Reading) -> Value:
    value = maps(op)
    kernel, options = pooling(op, value)
    layer = L.AvgPool2d if len(value.shape) == 3 else L.AvgPool1d
    return op.add(layer(kernel, count_include_pad=op.attribute("count_include_pad", 0) == 1,
                        **options), value)


def lp_pool(op: Reading) -> Value:
    value = op.batch_first(0, 3)
    kernel, options = pooling(op, value)
    return op.add(L.LpPool2d(kernel, op.attribute("p", 2), **options), value)


def global_pool(op: Reading) -> Value:
    """One number for each channel; the axes of size 1 are only a view."""
    value = maps(op)
    dimensions = len(value.shape) - 1
    name = f"Global{'Avg' if op.kind == 'GlobalAveragePool' else 'Max'}Pool{dimensions}d"
    pooled = op.add(getattr(L, name)(), value)
    return op.viewed(pooled, (value.shape[0], *(1,) * dimensions))


def reduce(op: Reading) -> Value:
    """A mean, sum or maximum over any axes of a sample: over one axis behind all others, to which
    the axes are moved."""
    value, keep = op.value(), op.attribute("keepdims", 1)
    axes = op.ints(1, "axes")
    if not axes:
        if op.attribute("noop_with_empty_axes", 0):
            return value
        raise UnsupportedError("it works along the batch")
    along = sorted(value.sample_axis(axis) for axis in axes)
    others = [axis for axis in range(len(value.shape)) if axis not in along]
    shape = tuple(1 if axis in along else n for axis, n in enumerate(value.shape)
                  if keep or axis not in along)
    batch = value.batch if keep else value.batch - sum(axis < value.batch for axis in along)
    kind = "Max" if op.kind == "ReduceMax" else "Avg"
    count = math.prod(value.shape[axis] for axis in along)
    if others == [0] and len(value.shape) in (2, 3):
        pooled = op.add(getattr(L, f"Global{kind}Pool{len(value.shape) - 1}d")(), value)
    else:
        moved = op.permuted(value, others + along)
        rows = math.prod(value.shape[axis] for axis in others)
        pooled = op.add(getattr(L, f"Global{kind}Pool1d")(), op.viewed(moved, (rows, count)))
    if op.kind == "ReduceSum":
        pooled = op.elementwise(L.Rescale(std=1 / count), pooled)
    return op.viewed(pooled, shape, batch)


# --- products -------------------------------------------------------------------------------------

def gemm(op: Reading) -> Value:
    """alpha X W + beta b, with constant W and b."""
    value, W = op.value(), op.numbers(1, "matrix")
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    if len(value.shape) != 1 or value.batch != (1 if op.attribute("transA", 0) else 0):
        raise UnsupportedError("its first input has no vector for each sample")
    W = W if op.attribute("transB", 0) else W.T
    arrays = {"W": W if alpha == 1 else W * W.dtype.type(alpha)}
    if op.given(2):
        b = op.numbers(2, "bias")
        if b.ndim > 1 and b.shape[0] != 1 or b.size not in (1, len(W)):
            raise UnsupportedError("its bias is not one number for each feature")
        b = np.broadcast_to(b.reshape(-1), len(W))
        arrays["b"] = b if beta == 1 else b * b.dtype.type(beta)
    key = (op.key(1, 2), alpha, beta, op.attribute("transB", 0))
    y = op.add(L.Linear(len(W), bias="b" in arrays), value, arrays=arrays, key=key)
    return Value(y.node, y.shape, 0)


def matmul(op: Reading) -> Value:
    """A product of two values, or with a constant matrix: X W of features, or of the last axis; or
    W X of the axis before the last one. A third input is a bias, from an Add behind the product."""
    first = isinstance(op.inputs[0], Value)
    if first and isinstance(op.inputs[1], Value):
        return op.add(L.MatMul(), *op.values())
    value, W = op.value(0 if first else 1), op.numbers(1 if first else 0, "matrix")
    if W.ndim != 2:
        raise UnsupportedError(f"its matrix has {W.ndim} axes")
    W = W.T if first else W
    arrays = {"W": W}
    # the axis of a sample that the matrix changes
    axis = value.sample_axis(-1 if first else -2)
    behind = len(value.shape) - 1 - axis
    if op.given(2):
        b = op.numbers(2, "bias")
        if b.size != len(W) or b.shape not in ((*(1,) * k, len(W), *(1,) * behind)
                                               for k in range(4)):
            raise UnsupportedError("its bias is not one number for each feature")
        arrays["b"] = b.reshape(-1)
    layer = L.Linear(len(W), bias="b" in arrays)
    key = (op.key(1 if first else 0, 2), first)
    others = [n for n in range(len(value.shape)) if n != axis]
    if not others:
        y = op.add(layer, value, arrays=arrays, key=key)
        return Value(y.node, y.shape, value.batch)
    sizes = [value.shape[n] for n in others]
    moved = op.permuted(value, [axis, *others])                             # (D, ...)
    y = op.add(layer, op.viewed(moved, (value.shape[axis], math.prod(sizes))), arrays=arrays,
               key=key)                                                     # (units, ...)
    y = op.viewed(y, (len(W), *sizes))
    back = [*range(1, axis + 1), 0, *range(axis + 1, len(value.shape))]
    return op.permuted(y, back)


def radial_basis(op: Reading) -> Value:
    """Centres, found by a pattern."""
    centres = op.numbers(1, "centres")
    return op.add(L.RBF(centres.tolist()), op.batch_first(0, 1), arrays={"codes": centres})


READ: dict[str, Read] = {
    "Conv": conv, "ConvTranspose": conv_transpose, "MaxPool": max_pool, "AveragePool": avg_pool,
    "LpPool": lp_pool, "GlobalAveragePool": global_pool, "GlobalMaxPool": global_pool,
    "ReduceMean": reduce, "ReduceMax": reduce, "ReduceSum": reduce, "Gemm": gemm,
    "MatMul": matmul, "RBF": radial_basis,
}
