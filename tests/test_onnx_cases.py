"""ONNX's own node tests, for every operator that exists here, on every backend.

A float case with two spatial axes (or of an operator that has none) passes, or stands in EXCEPTIONS with its reason.
"""

import warnings

import numpy as np
import pytest
from onnx_operators import OPERATORS

from xpnet import Backend

onnx = pytest.importorskip("onnx", reason="onnx is not installed; it brings the node tests")

with warnings.catch_warnings():             # building some of the cases divides by zero and overflows on purpose
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases
    ALL_CASES = collect_testcases(None)     # all of them, once: its filter by operator is ignored on a second call

WITH_WINDOWS = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool")


def inputs_and_outputs(case):
    """The arrays of a case, which has one set of them."""
    (inputs, outputs), = case.data_sets
    return inputs, outputs


def is_ours(case) -> bool:
    nodes = case.model.graph.node
    if len(nodes) != 1 or nodes[0].op_type not in OPERATORS:
        return False
    inputs, _ = inputs_and_outputs(case)
    return inputs[0].dtype in (np.float32, np.float64) and (nodes[0].op_type not in WITH_WINDOWS or inputs[0].ndim == 4)


CASES = {case.name: case for case in ALL_CASES if is_ours(case)}

REASONS = {
    "Add takes inputs of one shape": [
        "test_add_bcast"],
    "Add takes two inputs or more": [
        "test_sum_one_input"],
    "Flatten keeps the batch axis and makes one axis of all others": [
        "test_flatten_axis0", "test_flatten_axis2", "test_flatten_axis3", "test_flatten_negative_axis4",
        "test_flatten_negative_axis2", "test_flatten_negative_axis1"],
    "the random bits are Philox's, the same on every backend, not those of NumPy's old generator": [
        "test_training_dropout_default", "test_training_dropout"],
    "Dropout does not return its mask": [
        "test_dropout_default_mask", "test_dropout_default_mask_ratio", "test_training_dropout_default_mask",
        "test_training_dropout_mask", "test_training_dropout_zero_ratio_mask"],
    "the loss is the mean over the batch": [
        "test_sce_none", "test_sce_sum", "test_sce_NCd1d2d3d4d5_none_no_weight"],
    "the kernel returns the loss and its gradient, not the logarithms of the probabilities": [
        "test_sce_none_log_prob", "test_sce_sum_log_prob", "test_sce_mean_log_prob", "test_sce_mean_3d_log_prob",
        "test_sce_NCd1d2d3d4d5_none_no_weight_log_prob"],
    "classes have no weights": [
        "test_sce_none_weights", "test_sce_none_weights_log_prob", "test_sce_mean_weight", "test_sce_mean_weight_log_prob",
        "test_sce_NCd1d2d3d4d5_mean_weight", "test_sce_NCd1d2d3d4d5_mean_weight_log_prob"],
    "no label is ignored (ignore_index)": [
        "test_sce_mean_weight_ii", "test_sce_mean_weight_ii_log_prob", "test_sce_mean_no_weight_ii",
        "test_sce_mean_no_weight_ii_log_prob", "test_sce_mean_weight_ii_3d", "test_sce_mean_weight_ii_3d_log_prob",
        "test_sce_mean_no_weight_ii_3d", "test_sce_mean_no_weight_ii_3d_log_prob", "test_sce_mean_weight_ii_4d",
        "test_sce_mean_weight_ii_4d_log_prob", "test_sce_mean_no_weight_ii_4d", "test_sce_mean_no_weight_ii_4d_log_prob",
        "test_sce_NCd1_mean_weight_negative_ii", "test_sce_NCd1_mean_weight_negative_ii_log_prob",
        "test_sce_NCd1d2d3_none_no_weight_negative_ii", "test_sce_NCd1d2d3_none_no_weight_negative_ii_log_prob",
        "test_sce_NCd1d2d3_sum_weight_high_ii", "test_sce_NCd1d2d3_sum_weight_high_ii_log_prob"],
}
EXCEPTIONS = {name: reason for reason, names in REASONS.items() for name in names}


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
def test_every_exception_is_still_one(name):
    assert name in CASES, "ONNX has no such case any more: take it off the list"
    with pytest.raises((AssertionError, ValueError)):
        check(CASES[name], Backend())


def test_every_operator_has_a_case_that_passes():
    passing = {CASES[name].model.graph.node[0].op_type for name in CASES.keys() - EXCEPTIONS.keys()}
    assert passing == OPERATORS.keys()
