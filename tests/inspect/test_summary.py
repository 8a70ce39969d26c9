"""The summary of a network: its text, and that its numbers are right."""

from __future__ import annotations

import numpy as np
import pytest
from nets import LAYERS, around, branches

import xpnet as xn
from xpnet import models
from xpnet.inspect.summary import rows, summary
from xpnet.layer import TRAIN


def test_the_table(capsys):
    net = xn.Sequential([
        xn.Conv2d(8, 3, padding="half"), xn.BatchNorm2d(activation="relu"), xn.MaxPool2d(2),
        xn.Flatten(), xn.Linear(10, name="classes"),
    ], input_shape=(1, 28, 28), backend="numpy")
    shown = net.summary()
    assert capsys.readouterr().out == ""    # else a notebook would show it a second time
    text = str(shown)
    assert repr(shown) == text and shown == summary(net) and shown.rows == tuple(rows(net))
    html = shown._repr_html_()
    assert html.count("<tr>") == 7 and "56,448" in html and "backend: numpy" in html
    assert text.splitlines() == [
        "layer     type         output       parameters  multiply-adds  receptive field",
        "------------------------------------------------------------------------------",
        "input                  1 x 28 x 28",
        "conv1     Conv2d       8 x 28 x 28          80         56,448              3x3",
        "bn1       BatchNorm2d  8 x 28 x 28          16              0              3x3",
        "pool1     MaxPool2d    8 x 14 x 14           0              0              4x4",
        "flatten1  Flatten      1568                  0              0              all",
        "classes   Linear       10               15,690         15,680              all",
        "------------------------------------------------------------------------------",
        "parameters: 15,786 (15,786 trainable), state: 16",
        "multiply-adds per sample: 72,128",
        "activations per sample: 61.29 KiB (float32)",
        "backend: numpy",
    ]


def test_frozen_parameters_are_not_trainable():
    net = xn.Sequential([xn.Linear(3), xn.Linear(2)], input_shape=(4,), backend="numpy")
    net.layers[0].trainable = False
    assert "parameters: 23 (8 trainable), state: 0" in str(summary(net))


def test_the_note_of_the_backend_is_printed():
    net = xn.Sequential([xn.Linear(3)], input_shape=(4,), backend=xn.Backend(note="because"))
    assert str(summary(net)).endswith("backend: base (because)")


@pytest.mark.parametrize("name", ["lenet5", "bilici"])
def test_shapes_and_bytes_are_those_of_a_real_pass(name):
    net = models.MODELS[name](backend="numpy")
    table = rows(net)
    x = net.batch_last(np.ones((2, *net.input.shape)))
    for node, row in zip(net.nodes, table, strict=True):
        value = net.run([x], [node], TRAIN)[0]
        assert value.shape == (*row.shape, 2) and value.nbytes == 2 * row.activation_bytes
        assert row.name == node.layer.name and row.kind == type(node.layer).__name__


def test_rows_name_what_a_layer_reads():
    table = {row.name: row for row in rows(branches())}
    assert table["stem"].inputs == ("input",) and table["sum"].inputs == ("norm", "stem")
    assert table["both"].inputs == ("mean", "max")


# --- multiply-adds: counted one by one ------------------------------------------------------------

@pytest.mark.parametrize("layer, shape", [
    (lambda: xn.Conv2d(6, 3, stride=2, padding=1, groups=2), (4, 9, 7)),
    (lambda: xn.Conv2d(5, (3, 2), dilation=2), (4, 9, 7)),
    (lambda: xn.Conv2d(5, 1, bias=False), (4, 9, 7)),
    (lambda: xn.TableConv2d([(0,), (1, 2), (0, 1, 3)], 3), (4, 9, 7)),
    (lambda: xn.Linear(6), (11,)),
])
def test_multiply_adds_are_the_terms_of_all_sums(layer, shape):
    """With all weights and inputs 1 and no bias, an output element is the number of its products.
    Padding counts too."""
    net = xn.Sequential([layer()], input_shape=shape, backend="numpy", dtype="float64")
    for p in net.layers[0].parameters:
        p.data[...] = p.name == "W"
    padding = net.layers[0].window.padding if net.layers[0].window else (0, 0, 0, 0)
    if any(padding):            # the same layer without padding, on an input with a border of ones
        top, bottom, left, right = padding
        shape = shape[0], shape[1] + top + bottom, shape[2] + left + right
        bare = xn.Sequential([xn.Conv2d(6, 3, stride=2, groups=2)], input_shape=shape,
                             backend="numpy", dtype="float64")
        bare.parameters[...] = net.parameters
    else:
        bare = net
    assert rows(net)[0].multiply_adds == bare(np.ones((1, *shape))).sum()


# --- receptive fields: found by pushing on one element after the other ----------------------------

def field_of_the_centre(net: xn.Network, node) -> tuple[int, int]:
    """The rows and columns of the input on which the central element of the value depends."""
    x = net.batch_last(np.random.default_rng(0).normal(size=(1, *net.input.shape)))
    value = net.run([x], [node])[0]
    centre = tuple(size // 2 for size in value.shape)
    touched = []
    for row, column in np.ndindex(*net.input.shape[1:]):
        pushed = x.copy()
        pushed[:, row, column] += 1e3
        if net.run([pushed], [node])[0][centre] != value[centre]:
            touched.append((row, column))
    found = np.array(touched)
    height, width = found.max(axis=0) - found.min(axis=0) + 1
    return int(height), int(width)


@pytest.mark.parametrize("layers", [
    lambda: [xn.Conv2d(1, 3), xn.Conv2d(1, 3)],
    lambda: [xn.Conv2d(1, (3, 2), stride=(2, 1)), xn.AvgPool2d(2), xn.Conv2d(1, 3, dilation=2)],
    lambda: [xn.AvgPool2d(3, stride=2), xn.Sigmoid(), xn.Conv2d(1, 2), xn.BatchNorm2d()],
    lambda: [xn.Subsampling2d(2), xn.Conv2d(2, 3, padding=1), xn.Conv2d(1, 1)],
])
def test_receptive_fields_are_the_inputs_that_an_output_depends_on(layers):
    net = xn.Sequential(layers(), input_shape=(1, 21, 21), backend="numpy", dtype="float64")
    for node, row in zip(net.nodes, rows(net), strict=True):
        assert row.receptive_field == field_of_the_centre(net, node), row.name


def test_the_receptive_field_of_branches_is_the_widest():
    x = xn.Input((1, 15, 15))
    near, far = xn.Conv2d(1, 1)(x), xn.Conv2d(1, 3, padding=1)(xn.Conv2d(1, 3, padding=1)(x))
    net = xn.Network(x, xn.Concat()(near, far), backend="numpy", dtype="float64")
    assert rows(net)[-1].receptive_field == (5, 5)
    assert field_of_the_centre(net, net.output) == (5, 5)


def test_layers_without_a_window_that_see_all_positions():
    x = xn.Input((2, 9, 9))
    codes = xn.DeconvolutionalNetwork2d(2, 3, iterations=1)(xn.Conv2d(1, 1)(x))
    for value in (xn.MatMul()(x, xn.Tanh()(x)), codes):
        net = xn.Network(x, value, backend="numpy")
        assert rows(net)[-1].receptive_field is None and "all" in repr(net.summary())


def test_two_small_convolutions_have_the_receptive_field_of_a_large_one():
    def sees(*layers):
        return (rows(xn.Sequential(layers, input_shape=(1, 32, 32), backend="numpy"))[
            -1].receptive_field)

    assert sees(xn.Conv2d(1, 3), xn.Conv2d(1, 3)) == sees(xn.Conv2d(1, 5)) == (5, 5)
    # Simonyan and Zisserman 2015
    assert sees(*(xn.Conv2d(1, 3) for _ in range(3))) == sees(xn.Conv2d(1, 7)) == (7, 7)
    assert sees(xn.SubtractiveNorm2d(5), xn.SubtractiveNorm2d(5)) == sees(xn.ContrastNorm2d(5))
    assert sees(xn.Conv2d(1, 3), xn.Flatten()) is None
    assert sees(xn.Conv2d(1, 3, padding=1), xn.GlobalAvgPool2d()) == (34, 34)  # the border included


@pytest.mark.parametrize("item", LAYERS, ids=lambda item: item.name)
def test_every_layer_of_the_catalogue_has_a_row(item, capsys):
    net = around(item)
    layer, row = net.layers[-1], rows(net)[-1]
    assert (row.name, row.kind, row.shape) == (layer.name, item.name, layer.out_shape)
    assert row.parameters == sum(p.size for p in layer.parameters) and row.multiply_adds >= 0
    lines = str(summary(net)).splitlines()
    assert any(line.split()[:2] == [layer.name, item.name] for line in lines)
