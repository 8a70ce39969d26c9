"""Sums, products and other functions of several values from ONNX's operators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xpnet import layers as L
from xpnet.io.onnx.build import Reading, Value
from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.read_activations import Read
from xpnet.layer import Layer

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
    if len({value.batch for value in found}) > 1:
        raise UnsupportedError("its inputs have the batch along different axes")
    return found


def with_constant(op: Reading) -> Value:
    """x + c, x - c, c - x, x c and x / c, with one number or one for each channel."""
    if len(op.inputs) != 2 or op.kind not in ("Add", "Sub", "Mul", "Div"):
        raise UnsupportedError("it has a constant input")
    first = isinstance(op.inputs[0], Value)
    value, c = op.value(0 if first else 1), op.numbers(1 if first else 0, "constant")
    if op.kind == "Div" and not first:
        raise UnsupportedError("it divides a constant by a value")
    if op.kind == "Add" and not c.any() or op.kind in ("Mul", "Div") and (c == 1).all():
        return value
    value, numbers = per_channel(op, value, c)
    if op.kind == "Mul":
        return _times(op, value, numbers, c)
    if op.kind == "Div":
        return op.elementwise(L.Rescale(std=numbers), value)
    if op.kind == "Add":
        return op.elementwise(L.Rescale(mean=_each(numbers, -1)), value)
    if first:
        return op.elementwise(L.Rescale(mean=numbers), value)
    return op.elementwise(L.Rescale(mean=numbers, std=-1.0), value)         # (x - c) / -1


def per_channel(op: Reading, value: Value, c: np.ndarray) -> tuple[Value, float | list[float]]:
    """The value and the constant as one number, or as one for each element of the first axis of a
    sample."""
    if c.size == 1:
        return value, float(c.reshape(-1)[0])
    full = [1] * (value.axes - c.ndim) + [*c.shape]         # in the file's axes
    sample = full[:value.batch] + full[value.batch + 1:]
    if (c.ndim > value.axes or full[value.batch] != 1 or sample[0] != value.shape[0]
            or any(n != 1 for n in sample[1:])):
        raise UnsupportedError(f"its constant has the shape {c.shape}, and is neither one number "
                               "nor one for each channel")
    if value.node.shape[0] != value.shape[0]:
        value = replace(value, node=op.builder.plain(value))
    return value, [float(n) for n in c.reshape(-1)]


def _each(numbers: float | list[float], sign: int) -> float | list[float]:
    return [sign * n for n in numbers] if isinstance(numbers, list) else sign * numbers


def _times(op: Reading, value: Value, numbers: float | list[float], c: np.ndarray) -> Value:
    """One fixed factor; or factors of channels, which are learned."""
    if isinstance(numbers, list):
        layer = L.Gain()
        node = op.builder.add(layer, value.node, name=op.name, arrays={"g": c.reshape(-1)},
                              key=op.key(0, 1))
        return Value(node, value.shape, value.batch, value.name)
    if numbers == 0:
        raise UnsupportedError("it multiplies by 0")
    return op.elementwise(L.Rescale(std=1 / numbers), value)


def negate(op: Reading) -> Value:
    return op.elementwise(L.Rescale(std=-1.0))


def concat(op: Reading) -> Value:
    values = op.values()
    if len(values) == 1:
        return values[0]
    return op.add(L.Concat(values[0].sample_axis(op.attribute("axis", 1))), *values)


READ: dict[str, Read] = {
    **{kind: merge for kind in (*MERGES, "Div")}, "Neg": negate, "Concat": concat,
}
