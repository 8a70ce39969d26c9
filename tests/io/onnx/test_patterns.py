"""Groups of nodes in the forms in which programs write one layer."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
import pytest
from onnx_networks import check, model

import xpnet as xn

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import helper  # noqa: E402


class Writer:
    """Nodes of a graph with an input x: w("Add", x, 3) is the name of a value."""

    def __init__(self, *shape) -> None:
        self.shape, self.nodes, self.constants = shape, [], {}

    def __call__(self, kind, *inputs, **attributes) -> str:
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        y = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [y], f"n{len(self.nodes)}", **attributes))
        return y

    def constant(self, value) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(
            value, np.int64 if isinstance(value, list) else np.float32)
        return name

    def check(self, y, tmp_path, *kinds) -> xn.Network:
        nodes = [*self.nodes, helper.make_node("Identity", [y], ["y"])]
        made = model(nodes, ["N", *self.shape], self.constants, opset=18)
        return check(made, tmp_path, *kinds)


def six(w):
    return w("Clip", w("Add", "x", 3.0), 0.0, 6.0)


ONE_LAYER = {
    "hard_swish_div": ("HardSwish", lambda w: w("Div", w("Mul", "x", six(w)), 6.0)),
    "hard_swish_exchanged": ("HardSwish", lambda w: w("Mul", 1 / 6, w("Mul", six(w), "x"))),
    "hard_swish_inner": ("HardSwish", lambda w: w("Mul", w("Div", six(w), 6.0), "x")),
    "hard_sigmoid": ("HardSigmoid", lambda w: w("Div", six(w), 6.0)),
    "silu": ("SiLU", lambda w: w("Mul", w("Sigmoid", "x"), "x")),
    "mish": ("Mish", lambda w: w("Mul", "x", w("Tanh", w("Softplus", "x")))),
    "gelu": ("GELU", lambda w: w("Mul", w("Mul", "x", w("Add", w("Erf", w(
        "Div", "x", sqrt(2))), 1.0)), 0.5)),
    "gelu_half_first": ("GELU", lambda w: w("Mul", w("Mul", "x", 0.5), w("Add", w("Erf", w(
        "Mul", "x", sqrt(0.5))), 1.0))),
    "gelu_tanh": ("GELU", lambda w: w("Mul", w("Mul", 0.5, "x"), w("Add", 1.0, w("Tanh", w(
        "Mul", w("Add", "x", w("Mul", w("Pow", "x", 3.0), 0.044715)), sqrt(2 / pi)))))),
    "square": ("Multiply", lambda w: w("Pow", "x", 2.0)),
}


@pytest.mark.parametrize("name", ONE_LAYER)
def test_activation(name, tmp_path):
    kind, write = ONE_LAYER[name]
    w = Writer(3, 4)
    w.check(write(w), tmp_path, kind)


@pytest.mark.parametrize("scale, shift", [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("square", ["Pow", "Mul"])
def test_layer_norm(scale, shift, square, tmp_path):
    """Over the last axis of (N, T, D)."""
    w, rng = Writer(5, 4), np.random.default_rng(0)
    centred = w("Sub", "x", w("ReduceMean", "x", [-1]))
    squares = w("Pow", centred, 2.0) if square == "Pow" else w("Mul", centred, centred)
    y = w("Div", centred, w("Sqrt", w("Add", w("ReduceMean", squares, [-1]), 1e-3)))
    y = w("Mul", y, rng.standard_normal(4)) if scale else y
    y = w("Add", y, rng.standard_normal(4)) if shift else y
    net = w.check(y, tmp_path, "LayerNorm")
    assert net.layers[0].eps == pytest.approx(1e-3)
    assert len(net.arrays) == (2 if scale else 0)


def test_rms_norm(tmp_path):
    w = Writer(5, 4)
    root = w("Sqrt", w("Add", w("ReduceMean", w("Mul", "x", "x"), [-1]), 1e-3))
    w.check(w("Mul", w("Div", "x", root), np.arange(1.0, 5.0)), tmp_path, "RMSNorm")


def test_bias_of_a_convolution(tmp_path):
    w, rng = Writer(2, 4, 4), np.random.default_rng(0)
    conv = w("Conv", "x", rng.standard_normal((3, 2, 3, 3)))
    net = w.check(w("Add", conv, rng.standard_normal((1, 3, 1, 1))), tmp_path, "Conv2d")
    assert net.arrays.keys() == {"n0.W", "n0.b"}


@pytest.mark.parametrize("shape", [(5, 3), (1, 5, 3), (5, 1)])
def test_a_sum_that_is_no_bias_is_a_layer_of_its_own(shape, tmp_path):
    """A vector for each position behind a product, of as many positions as there are features."""
    w, rng = Writer(5, 4), np.random.default_rng(0)
    y = w("Add", w("MatMul", "x", rng.standard_normal((4, 5 if shape == (5, 1) else 3))),
          rng.standard_normal(shape))
    w.check(y, tmp_path, "Permute", "Linear", "Permute", "Shift")


def test_scales_of_other_axes_are_no_part_of_a_layer_norm(tmp_path):
    """Over rows and columns, with a scale for each channel: as many channels as pixels."""
    w, rng = Writer(4, 2, 2), np.random.default_rng(0)
    centred = w("Sub", "x", w("ReduceMean", "x", [2, 3]))
    squares = w("ReduceMean", w("Mul", centred, centred), [2, 3])
    y = w("Div", centred, w("Sqrt", w("Add", squares, 1e-3)))
    y = w("Add", w("Mul", y, rng.standard_normal((4, 1, 1))), rng.standard_normal((1, 4, 1, 1)))
    w.check(y, tmp_path, "LayerNorm", "Gain", "Shift")


def test_a_bias_is_not_merged_if_the_sum_is_not_all_that_reads_the_product(tmp_path):
    """Otherwise there would be two copies of the weights."""
    w, rng = Writer(4), np.random.default_rng(0)
    product = w("MatMul", "x", rng.standard_normal((4, 3)))
    y = w("Mul", w("Add", product, 1.5), product)
    net = w.check(y, tmp_path, "Linear", "Rescale", "Multiply")
    assert net.arrays.keys() == {"n0.W"}


@pytest.mark.parametrize("shift, limit, layer", [(3.0, 5.0, "ClippedReLU"), (2.5, 6.0, "ReLU6")])
def test_other_numbers_are_no_hard_swish(shift, limit, layer, tmp_path):
    w = Writer(3)
    y = w("Div", w("Mul", "x", w("Clip", w("Add", "x", shift), 0.0, limit)), 6.0)
    w.check(y, tmp_path, "Rescale", layer, "Multiply", "Rescale")


def test_a_product_with_another_value_is_no_silu(tmp_path):
    w = Writer(3)
    w.check(w("Mul", w("Tanh", "x"), w("Sigmoid", "x")), tmp_path, "Tanh", "Sigmoid", "Multiply")
