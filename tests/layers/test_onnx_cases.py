"""ONNX's own node tests, for every operator that exists here, on every backend.

A float case with two spatial axes (or of an operator that has none) passes, or is in EXCEPTIONS
with its reason.
"""

import warnings
from unittest import mock

import numpy as np
import onnx_activations
import onnx_convolution
import onnx_losses
import onnx_normalization
import onnx_operators
import onnx_optimizers
import onnx_pooling
import onnx_recurrent
import pytest

from xpnet import Backend

onnx = pytest.importorskip("onnx", reason="onnx is not installed; it brings the node tests")

from onnx.backend.test.case import base  # noqa: E402
from onnx.reference.ops import op_pool_common  # noqa: E402


def pool(padded, x_shape, kernel, strides, out_shape, *rest, own=op_pool_common.pool, **options):
    """The outputs of pooling, or zeros where there are three spatial axes: ONNX computes these for
    seconds, and no test uses them."""
    if len(x_shape) == 5:
        return np.zeros((*x_shape[:2], *out_shape), padded.dtype)
    return own(padded, x_shape, kernel, strides, out_shape, *rest, **options)


# Building some of the cases divides by zero and overflows on purpose. Half of the time would go
# into reading the sources of the cases, for ONNX's documentation.
with (warnings.catch_warnings(), mock.patch.object(op_pool_common, "pool", pool),
      mock.patch.object(base, "process_snippet", lambda *arguments: ("", ""))):
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases
    # all of them, once: on a second call, its filter by operator is ignored
    ALL_CASES = collect_testcases(None)

MODULES = (onnx_operators, onnx_activations, onnx_convolution, onnx_pooling, onnx_normalization,
           onnx_losses, onnx_optimizers, onnx_recurrent)
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
    actual = [a for a, name in zip(actual, node.output) if name]        # "" is not wanted
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


# --- what no node case of the recurrent operators has ---------------------------------------------

RECURRENT = {"RNN": (1, {}), "GRU": (3, {"linear_before_reset": 1}), "LSTM": (4, {})}


@pytest.mark.parametrize("op", RECURRENT)
def test_first_states_as_onnx_computes_them(backend, op):
    """Also a reset gate after the product: against ONNX's reference implementation."""
    gates, attributes = RECURRENT[op]
    rng, (T, N, D, H) = np.random.default_rng(0), (4, 3, 2, 5)
    shapes = [(T, N, D), (1, gates * H, D), (1, gates * H, H), (1, 2 * gates * H), None,
              (1, N, H), *[(1, N, H)] * (op == "LSTM")]
    arrays = [None if shape is None else rng.standard_normal(shape).astype(np.float32)
              for shape in shapes]
    names = ["" if a is None else f"in{k}" for k, a in enumerate(arrays)]
    node = onnx.helper.make_node(op, names, ["Y", "Y_h"], hidden_size=H, **attributes)
    expected = onnx.reference.ReferenceEvaluator(node).run(
        None, {name: a for name, a in zip(names, arrays) if name})
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    for a, b in zip(OPERATORS[op](backend, attributes, arrays, 2), expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", RECURRENT)
@pytest.mark.parametrize("direction", [b"forward", b"reverse", b"bidirectional"])
def test_sequence_lens(backend, op, direction):
    """Each sample as if its sequence ended there."""
    gates, directions = RECURRENT[op][0], 2 if direction == b"bidirectional" else 1
    rng, (T, N, D, H), lengths = np.random.default_rng(0), (4, 3, 2, 5), [4, 1, 2]
    X, W, R, h, c = (rng.standard_normal(shape).astype(np.float32) for shape in (
        (T, N, D), (directions, gates * H, D), (directions, gates * H, H), (directions, N, H),
        (directions, N, H)))
    attributes = {"hidden_size": H, "direction": direction}
    states = [h, c] if op == "LSTM" else [h]
    found = OPERATORS[op](backend, attributes, [X, W, R, None, np.array(lengths), *states], 3)
    for n, steps in enumerate(lengths):
        alone = OPERATORS[op](backend, attributes, [
            X[:steps, n:n + 1], W, R, None, None, *(state[:, n:n + 1] for state in states)], 3)
        np.testing.assert_allclose(found[0][:steps, :, n], alone[0][:, :, 0], atol=1e-6)
        assert not found[0][steps:, :, n].any()
        for a, b in zip(found[1:], alone[1:], strict=True):
            np.testing.assert_allclose(a[:, n], b[:, 0], atol=1e-6)
