"""ONNX's own node tests, for every operator that exists here, on every backend.

A float case with two spatial axes (or of an operator that has none) passes, or is in EXCEPTIONS
with its reason.
"""

import warnings

import numpy as np
import onnx_activations
import onnx_convolution
import onnx_losses
import onnx_normalization
import onnx_operators
import onnx_optimizers
import onnx_pooling
import pytest

from xpnet import Backend

onnx = pytest.importorskip("onnx", reason="onnx is not installed; it brings the node tests")

# building some of the cases divides by zero and overflows on purpose
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases
    # all of them, once: on a second call, its filter by operator is ignored
    ALL_CASES = collect_testcases(None)

MODULES = (onnx_operators, onnx_activations, onnx_convolution, onnx_pooling, onnx_normalization,
           onnx_losses, onnx_optimizers)
OPERATORS = {name: run for module in MODULES for name, run in module.OPERATORS.items()}
WITH_WINDOWS = {name for module in MODULES for name in module.WITH_WINDOWS}


def inputs_and_outputs(case):
    """The arrays of a case."""
    (inputs, outputs), = case.data_sets
    return inputs, outputs


def is_ours(case) -> bool:
    nodes = case.model.graph.node
    if len(nodes) != 1 or nodes[0].op_type not in OPERATORS:
        return False
    inputs, _ = inputs_and_outputs(case)
    x = inputs[0]                           # a value may be a list, or None
    return (getattr(x, "dtype", None) in (np.float32, np.float64)
            and (nodes[0].op_type not in WITH_WINDOWS or x.ndim == 4))


CASES = {case.name: case for case in ALL_CASES if is_ours(case)}

EXCEPTIONS = {name: reason for module in MODULES for reason, names in module.REASONS.items()
              for name in names}


def check(case, backend) -> None:
    """Run a case and compare every output, to the tolerance that ONNX gives it."""
    node, = case.model.graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    inputs, expected = inputs_and_outputs(case)
    actual = OPERATORS[node.op_type](backend, attributes, inputs, len(expected))
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize("name", sorted(CASES.keys() - EXCEPTIONS.keys()))
def test_case(backend, name):
    check(CASES[name], backend)


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_still_exists(name):
    assert name in CASES, "ONNX has no such case any more: remove it from the list"
    with pytest.raises((AssertionError, ValueError)):
        check(CASES[name], Backend())


def test_every_operator_has_a_case_that_passes():
    passing = {CASES[name].model.graph.node[0].op_type for name in CASES.keys() - EXCEPTIONS.keys()}
    assert passing == OPERATORS.keys()
