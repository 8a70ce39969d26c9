"""ONNX's own node tests of the operators that xpnet.functional has; both are batch-first."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_convolution import transposed_arguments
from onnx_operators import window_arguments

from tests.layers.test_onnx_cases import ALL_CASES, inputs_and_outputs, onnx
from xpnet import functional as F


def conv(attributes, inputs):
    x, W, *bias = inputs
    kernel, stride, padding, dilation = window_arguments(
        attributes | {"kernel_shape": W.shape[2:]}, x)
    return F.conv2d(x, W, *bias, stride=stride, padding=padding, dilation=dilation,
                    groups=attributes.get("group", 1))


def conv_transpose(attributes, inputs):
    x, W, *bias = inputs
    return F.conv_transpose2d(x, W, *bias, **transposed_arguments(attributes, x, W))


def max_pool(attributes, inputs):
    x, = inputs
    kernel, stride, padding, dilation = window_arguments(attributes, x)
    return F.max_pool2d(x, kernel, stride=stride, padding=padding, dilation=dilation,
                        ceil_mode=bool(attributes.get("ceil_mode", 0)))[0]


def average_pool(attributes, inputs):
    x, = inputs
    kernel, stride, padding, _ = window_arguments(attributes, x)
    return F.avg_pool2d(x, kernel, stride=stride, padding=padding,
                        count_include_pad=attributes.get("count_include_pad", 0) == 1)


def batch_normalization(attributes, inputs):
    if attributes.get("training_mode", 0):
        y, _, _ = F.batch_norm(*inputs[:3], eps=attributes.get("epsilon", 1e-5))
        return y
    return F.batch_norm_inference(*inputs, eps=attributes.get("epsilon", 1e-5))


def col2im(attributes, inputs):
    cols, size, kernel = inputs
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    shape = (len(cols), cols.shape[1] // int(np.prod(kernel)), *size.tolist())
    return F.col2im(cols, shape, tuple(kernel.tolist()), padding=(top, bottom, left, right),
                    stride=tuple(attributes.get("strides", (1, 1))),
                    dilation=tuple(attributes.get("dilations", (1, 1))))


OPERATORS = {"Conv": conv, "ConvTranspose": conv_transpose, "MaxPool": max_pool,
             "AveragePool": average_pool,
             "BatchNormalization": batch_normalization, "Col2Im": col2im}


def is_ours(case) -> bool:
    """One node, on float images with two spatial axes; avg_pool2d has neither ceil_mode nor
    dilation."""
    nodes = case.model.graph.node
    if len(nodes) != 1 or nodes[0].op_type not in OPERATORS:
        return False
    if (nodes[0].op_type == "AveragePool"
        and {a.name for a in nodes[0].attribute} & {"ceil_mode", "dilations"}):
        return False
    inputs, _ = inputs_and_outputs(case)
    return inputs[0].dtype in (np.float32, np.float64) and (
        len(inputs[1]) == 2 if nodes[0].op_type == "Col2Im" else inputs[0].ndim == 4)


CASES = {case.name: case for case in ALL_CASES if is_ours(case)}


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    case = CASES[name]
    node, = case.model.graph.node
    inputs, (expected, *_) = inputs_and_outputs(case)
    y = OPERATORS[node.op_type](
        {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}, inputs)
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(y, expected, rtol=case.rtol, atol=case.atol)


def test_every_operator_has_cases():
    assert {case.model.graph.node[0].op_type for case in CASES.values()} == OPERATORS.keys()
