"""Sums, products and other functions of several values from ONNX's operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.io.onnx.build import Reading, Value, one_batch, unviewed
from xpnet.io.onnx.fold import MOST_INTEGERS, repeats
from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.read_activations import Read
from xpnet.layer import Layer
from xpnet.layers.states import Stateful
from xpnet.node import Node

MERGES: dict[str, type[Layer]] = {
    "Add": L.Add, "Sum": L.Add, "Mul": L.Multiply, "Sub": L.Subtract, "Mean": L.Average,
    "Max": L.Maximum, "Min": L.Minimum,
}


def merge(op: Reading) -> Value:
    """Several values, which are broadcast, or one value and a constant."""
    if len(op.inputs) == 1:
        return op.value()
    if not all(isinstance(value, Value) for value in op.inputs):
        return with_constant(op)
    if op.kind not in MERGES:
        raise UnsupportedError("both inputs depend on samples")
    values = aligned(op)
    return op.add(MERGES[op.kind](), *values)


def aligned(op: Reading) -> list[Value]:
    """The inputs with as many axes each: ONNX adds axes of size 1 at the beginning."""
    values = [op.value(number) for number in range(len(op.inputs))]
    axes = max(value.axes for value in values)
    found = []
    for value in values:
        missing = axes - value.axes
        found.append(op.viewed(value, (1,) * missing + value.shape, value.batch + missing)
                     if missing else value)
    return one_batch(found)


def with_constant(op: Reading) -> Value:
    """x + c, x - c, c - x, x c and x / c.

    A single number is fixed. So are at most MOST_INTEGERS numbers, one for each channel of an input
    of the network: they are its mean or standard deviation. All others are learned.
    """
    if len(op.inputs) != 2 or op.kind not in ("Add", "Sub", "Mul", "Div"):
        raise UnsupportedError("it has a constant input")
    first = isinstance(op.inputs[0], Value)
    value, c = op.value(0 if first else 1), op.numbers(1 if first else 0, "constant")
    if op.kind == "Div" and not first:
        raise UnsupportedError("it divides a constant by a value")
    if repeats(c):
        raise UnsupportedError("its constant is an array of one repeated number")
    if op.kind in ("Add", "Sub") and first and not c.any() or (
            op.kind in ("Mul", "Div") and (c == 1).all()):
        return value
    if op.kind == "Sub" and not first:                  # c - x = -x + c
        value = op.elementwise(L.Rescale(std=-1.0), value)
    shape = broadcast_shape(value, c)
    by_channel = shape[:1] == value.shape[:1] and all(n == 1 for n in shape[1:])
    of_input = value.node.layer is None and value.node.shape == value.shape
    if op.kind == "Div" and not c.all():
        raise UnsupportedError("it divides by 0")
    if c.size == 1 or (by_channel and of_input and c.size <= MOST_INTEGERS
                       and (c.all() or op.kind != "Mul")):
        return _fixed(op, value, c, first)
    kind, name = (L.Gain, "g") if op.kind in ("Mul", "Div") else (L.Shift, "b")
    numbers = 1 / c if op.kind == "Div" else -c if op.kind == "Sub" and first else c
    key = op.key(1 if first else 0), op.kind
    return op.add(kind(None if by_channel else shape), value, key=key,
                  arrays={name: numbers.reshape(-1 if by_channel else shape)})


def broadcast_shape(value: Value, c: np.ndarray) -> tuple[int, ...]:
    """The shape of a constant in the axes of a sample, of which some are 1."""
    full = [1] * (value.axes - c.ndim) + [*c.shape]         # in the file's axes
    shape = tuple(full[:value.batch] + full[value.batch + 1:])
    if c.ndim > value.axes or full[value.batch] != 1 or any(
            n not in (1, m) for n, m in zip(shape, value.shape)):
        raise UnsupportedError(f"its constant of the shape {c.shape} is not for one sample")
    return shape


def _fixed(op: Reading, value: Value, c: np.ndarray, first: bool) -> Value:
    """Fixed numbers: (x - mean) / std."""
    numbers = [float(n) for n in c.reshape(-1)]
    if op.kind == "Mul" and 0.0 in numbers:
        raise UnsupportedError("it multiplies by 0")
    sign = 1 if op.kind == "Sub" and first else -1
    setting = [1 / n if op.kind == "Mul" else n if op.kind == "Div" else sign * n
               for n in numbers]
    given: float | list[float] = setting[0] if len(setting) == 1 else setting
    return op.elementwise(L.Rescale(std=given) if op.kind in ("Mul", "Div")
                          else L.Rescale(mean=given), value)


def negate(op: Reading) -> Value:
    return op.elementwise(L.Rescale(std=-1.0))


def concat(op: Reading) -> Value:
    values = op.values()
    if len(values) == 1:
        return values[0]
    axis = values[0].sample_axis(op.attribute("axis", 1))
    whole = _whole(values)
    if whole is not None:
        return Value(whole, whole.shape, values[0].batch)
    return op.add(L.Concat(axis), *values)


def _whole(values: Sequence[Value]) -> Node | None:
    """The node that these vectors are all parts of, one after the other: the output of a recurrent
    layer with its final states, which export takes apart and puts together."""
    parts = [unviewed(value.node) for value in values]
    source = parts[0].parents[0] if parts[0].parents else None
    cuts = []
    for value, part in zip(values, parts, strict=True):
        if (not isinstance(part.layer, L.Slice) or part.parents[0] is not source
                or len(value.shape) > 1):
            return None
        cuts.append((part.layer.start, part.layer.start + part.shape[0]))
    assert source is not None
    rnn: Any = source.layer
    if isinstance(rnn, Stateful) and rnn.return_state and not rnn.return_sequences:
        rows = math.prod(rnn.packed_shapes[0])          # Y is the final h, which stands behind it
        if cuts[0] == (rows, 2 * rows):
            cuts[0] = 0, rows
    starts, stops = zip(*cuts, strict=True)
    return source if (0, *stops) == (*starts, *source.shape) else None


READ: dict[str, Read] = {
    **{kind: merge for kind in (*MERGES, "Div")}, "Neg": negate, "Concat": concat,
}
