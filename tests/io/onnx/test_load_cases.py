"""ONNX's own node cases through the importer: right, or refused with a reason."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx_cases import batch_axis, case_file, wanted  # noqa: E402

import xpnet as xn  # noqa: E402
from tests.layers.test_onnx_cases import ALL_CASES  # noqa: E402
from xpnet.io.onnx.load import READ  # noqa: E402


def is_ours(case) -> bool:
    nodes = case.model.graph.node
    if len(nodes) != 1 or nodes[0].op_type not in READ or nodes[0].domain:
        return False
    (ins, outs), = case.data_sets
    return (all(hasattr(a, "dtype") and a.size for a in (*ins, *outs))
            and ins[0].dtype in (np.float32, np.float64) and nodes[0].op_type != "Cast")


CASES = {case.name: case for case in ALL_CASES if is_ours(case)}
# Why cases are refused: the first axis of a network is its batch, or no layer computes this.
REASONS = [
    "it works along the batch", "takes a part of the batch", "the batch along different axes",
    "(mixes|merges) the batch with", "its input has [3456] axes", "its matrix has [134] axes",
    "no Upsample2d computes the positions", r"averages \(antialias\)", "tf_crop_and_resize",
    "both inputs depend on samples", "drops elements in predictions", "statistics of the batch",
    "its bias is not one number for each feature",
    "no vector for each sample", "other slopes than", "its alpha is not that of SELU",
    "low to be below high", "ONNX LSTM: expected no peepholes",
    "its elements are not neighbours",
]


def loaded(case, path) -> tuple[xn.Network, list[np.ndarray]]:
    samples = case_file(case, path)
    outputs = wanted(case)
    return xn.io.load_onnx(path, outputs=[*outputs], backend="numpy"), samples


def check(net, samples, case) -> None:
    axis = batch_axis(case)
    xs = [np.moveaxis(x, axis, 0) for x in samples]
    xs = [x.reshape(len(x), *node.shape) for x, node in zip(xs, net.ins.nodes, strict=True)]
    ys = net.outs.unpack(net.predict(net.ins.pack(xs)), "test", "outputs")
    for y, expected in zip(ys, wanted(case).values(), strict=True):
        # The batch comes first here; in the file it may be at another place.
        found = [np.moveaxis(y, 0, place) for place in range(max(expected.ndim, 1))
                 if y.ndim == expected.ndim]
        found += [y.reshape(expected.shape)] if y.ndim != expected.ndim else []
        assert any(a.shape == expected.shape and np.allclose(
            a, expected, rtol=case.rtol, atol=max(case.atol, 1e-6)) for a in found)


def test_every_case_is_right_or_refused_for_a_known_reason(tmp_path):
    passed, refused, unknown = Counter(), Counter(), []
    for name, case in CASES.items():
        try:
            net, samples = loaded(case, tmp_path / "case.onnx")
        except ValueError as error:
            reasons = [reason for reason in REASONS if re.search(reason, str(error))]
            refused.update(reasons)
            if len(reasons) != 1:
                unknown.append(f"{name}: {error}")
            continue
        check(net, samples, case)
        passed[case.model.graph.node[0].op_type] += 1
    assert not unknown
    assert refused.keys() == {*REASONS}
    # operators without a case whose samples have a batch; other tests have them
    assert READ.keys() - passed.keys() == {"Cast", "CastLike", "Div", "PRelu", "Gather", "RBF"}
    assert sum(passed.values()) > 250
