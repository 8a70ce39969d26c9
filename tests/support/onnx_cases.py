"""ONNX's node cases as files in which weights and settings are constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.helper import make_tensor_value_info, np_dtype_to_tensor_dtype

# All inputs of these are samples, of the others the first one, and first states.
ALL_SAMPLES = "Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min", "Concat"
RECURRENT = "RNN", "LSTM", "GRU"


def case_file(case: Any, path: Path) -> list[np.ndarray]:
    """Write the case as a file; returns its samples, with the batch where it is in the file."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    node, = model.graph.node
    (arrays, _), = case.data_sets
    given = dict(zip([value.name for value in model.graph.input], arrays, strict=True))
    samples = [name for number, name in enumerate(node.input) if name and (
        number == 0 or node.op_type in ALL_SAMPLES)]
    del model.graph.input[:]
    for name, array in given.items():
        if name in samples:
            model.graph.input.append(make_tensor_value_info(
                name, np_dtype_to_tensor_dtype(array.dtype), array.shape))
        else:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    onnx.save(model, path)
    return [given[name] for name in samples]


def wanted(case: Any) -> dict[str, np.ndarray]:
    """The outputs that a network can have, by name: those of recurrent operators without the last
    cell state, else the first one, and all parts of a Split."""
    node, = case.model.graph.node
    (_, arrays), = case.data_sets
    named = dict(zip([value.name for value in case.model.graph.output], arrays, strict=True))
    count = {"Split": len(node.output), **dict.fromkeys(RECURRENT, 2)}.get(node.op_type, 1)
    return {name: named[name] for name in node.output[:count] if name in named}


def batch_axis(case: Any) -> int:
    """Where the batch is in sequences of a recurrent operator, else 0."""
    node, = case.model.graph.node
    layout = [attribute.i for attribute in node.attribute if attribute.name == "layout"]
    return 1 if node.op_type in RECURRENT and layout != [1] else 0
