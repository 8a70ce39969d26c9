"""What all functions of xpnet.viz have in common, and the figures of images."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from nets import small

import xpnet as xn

pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the figures")

from matplotlib.figure import Figure  # noqa: E402

from xpnet.viz.images import between_0_and_1, expect_image, mosaic  # noqa: E402

RNG = np.random.default_rng(0)


def conv_net(channels=1):
    return xn.Sequential([xn.Conv2d(4, 3), xn.MaxPool2d(2), xn.Flatten(), xn.Linear(3)],
                         input_shape=(channels, 8, 8), backend="numpy")


@pytest.mark.parametrize("draw", [
    lambda **ax: xn.viz.show_activations("relu", **ax),
    lambda **ax: xn.viz.show_filters(conv_net(), "conv1", **ax),
    lambda **ax: conv_net().show_filters("conv1", **ax),
], ids=["show_activations", "show_filters", "net.show_filters"])
def test_axes_of_ones_own_are_used(draw):
    mine = Figure()
    ax = mine.subplots()
    assert draw(ax=ax) is mine and (ax.lines or ax.images)
    assert draw() is not mine
    with pytest.raises(TypeError, match="expected ax to be None or axes of matplotlib. Received"):
        draw(ax="left")


def test_pyplot_is_not_imported():
    """Its state is global, and it chooses a window."""
    files = Path(xn.__file__).parent.rglob("*.py")
    assert [path.name for path in files if "pyplot" in re.sub('""".*?"""', "", path.read_text(
        encoding="utf-8"), flags=re.DOTALL)] == []


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'show_activations: expected .*pip install "xpnet\[viz\]"'
                       ):
        xn.viz.show_activations("relu")


# --- images ---------------------------------------------------------------------------------------

def test_images_become_floats_from_0_to_1():
    pixels = np.array([[0, 51], [102, 255]], np.uint8)
    np.testing.assert_allclose(expect_image("f", pixels), [[[0, 0.2], [0.4, 1]]])
    np.testing.assert_array_equal(expect_image("f", pixels / 255), expect_image("f", pixels))
    np.testing.assert_allclose(expect_image("f", pixels - 51.0), expect_image("f", pixels))
    np.testing.assert_array_equal(between_0_and_1(np.full((2, 2), 7.0)), 0.5)


@pytest.mark.parametrize("image", [np.ones((2, 4, 4)), np.ones(3), np.ones((3, 0, 4)), "photo",
                                   np.full((4, 4), np.nan)])
def test_what_is_no_image(image):
    with pytest.raises((ValueError, TypeError), match=r"^f: image: expected .* Received: .*|"
                       r"^f: expected image .* Received: shape .*"):
        expect_image("f", image)


def test_a_mosaic_has_the_maps_row_by_row():
    maps = RNG.random((5, 2, 3))
    whole = mosaic(maps, 2)
    assert whole.shape == (3 * 3 - 1, 2 * 4 - 1)
    for k, one in enumerate(maps):
        top, left = 3 * (k // 2), 4 * (k % 2)
        np.testing.assert_array_equal(whole[top:top + 2, left:left + 3], one)
    assert np.isnan(whole).sum() == whole.size - maps.size
    assert mosaic(maps).shape == (3 * 3 - 1, 2 * 4 - 1)       # about a square: 8 x 7 pixels


def test_show_images():
    images = [RNG.random((3, 4, 5)), np.arange(20, dtype=np.uint8).reshape(4, 5)]
    figure = xn.viz.show_images(images, ["$a", "b" * 40])
    first, second = figure.axes
    np.testing.assert_array_equal(first.images[0].get_array(), images[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(second.images[0].get_array(), images[1] / 255)
    assert first.get_title() == "$a" and second.get_title() == "b" * 15 + "..."
    with pytest.raises(ValueError, match="show_images: expected a title for each of 2 images"):
        xn.viz.show_images(images, ["a"])


# --- training curves ------------------------------------------------------------------------------

def history(**columns):
    made = xn.History()
    made.rows = [{"epoch": k + 1} | {name: values[k] for name, values in columns.items()}
                 for k in range(3)]
    return made


def test_training_curves_of_several_runs():
    runs = {"a": history(loss=[3.0, 2, 1], val_loss=[3.0, 2, 2], lr=[1.0, 1, 1]),
            "b": history(loss=[4.0, 3, 2], accuracy=[0.1, 0.2, 0.3])}
    loss, accuracy = xn.viz.show_training(runs).axes
    drawn = {line.get_label(): line for line in loss.lines}
    assert {name: list(line.get_ydata()) for name, line in drawn.items()} == {
        "a loss": [3, 2, 1], "a val_loss": [3, 2, 2], "b loss": [4, 3, 2]}
    assert drawn["a loss"].get_color() == drawn["a val_loss"].get_color()
    assert drawn["a loss"].get_color() != drawn["b loss"].get_color()
    assert drawn["a loss"].get_linestyle() != drawn["a val_loss"].get_linestyle()
    line, = accuracy.lines
    assert line.get_label() == "b" and list(line.get_xdata()) == [1, 2, 3]
    chosen, = xn.viz.show_training(runs, ["lr"]).axes
    assert [line.get_label() for line in chosen.lines] == ["a"] and chosen.get_ylabel() == "lr"


def test_training_curves_in_axes_of_ones_own():
    ax = Figure().subplots()
    assert history(loss=[3.0, 2, 1]).plot(ax=ax) is ax.figure
    assert list(ax.lines[0].get_ydata()) == [3, 2, 1] and ax.get_ylabel() == "loss"


@pytest.mark.parametrize(("call", "said"), [
    (lambda: xn.viz.show_training({}), "expected a history with a loss"),
    (lambda: xn.viz.show_training(history(lr=[1, 1, 1])), "expected a history with a loss"),
    (lambda: xn.viz.show_training({"a": xn.History()}), "one epoch. Received: none in 'a'"),
    (lambda: xn.viz.show_training("a"), "expected a History"),
    (lambda: history(loss=[3, 2, 1]).plot(["los"]), 'columns .*perhaps "loss"|columns .*"loss"'),
    (lambda: history(loss=[3, 2, 1]).plot([]), "expected columns to be None or names"),
])
def test_wrong_arguments_of_training_curves(call, said):
    with pytest.raises((ValueError, TypeError), match=f"^show_training: .*{said}|columns"):
        call()


# --- filters and feature maps ---------------------------------------------------------------------

def test_filters_of_one_channel():
    net = conv_net()
    ax = net.show_filters("conv1").axes[0]
    W = net.arrays["conv1.W"].data[:, 0]
    np.testing.assert_array_equal(np.ma.filled(ax.images[0].get_array(), np.nan), mosaic(W))
    low, high = ax.images[0].get_clim()
    assert high == -low == abs(W).max()                     # white is 0
    assert ax.get_title() == "conv1: 4 filters of 1 x 3 x 3"


def test_filters_of_three_channels_are_colours():
    net = conv_net(3)
    drawn = np.asarray(net.show_filters("conv1", most=2).axes[0].images[0].get_array())
    W = np.asarray(net.arrays["conv1.W"].data, np.float64)
    assert drawn.shape == (3, 7, 3)
    for k in (0, 1):
        scaled = (W[k] - W[k].min()) / (W[k].max() - W[k].min())
        np.testing.assert_array_equal(drawn[:, 4 * k:4 * k + 3], scaled.transpose(1, 2, 0))


def test_filters_of_more_channels_are_rows():
    net = xn.Sequential([xn.SeparableConv2d(5, 3, name="sep"),
                         xn.TrueConv2d(2, (2, 3), name="true")], input_shape=(4, 8, 8),
                        backend="numpy")
    drawn = net.show_filters("true").axes[0].images[0].get_array()
    W = net.arrays["true.W"].data
    assert drawn.shape == (2 * 3 - 1, 5 * 4 - 1)
    assert net.show_filters("true", most=1).axes[0].get_title() == (
        "true: 1 of 2 filters of 2 x 3, a row each; 5 input channels, a column each")
    np.testing.assert_array_equal(drawn[3:5, 4:7], W[1, 1, ::-1, ::-1])     # filter 1, channel 1
    drawn = net.show_filters("sep").axes[0].images[0].get_array()
    W = net.arrays["sep.depthwise.W"].data
    np.testing.assert_array_equal(drawn[:3, :3], W[0, 0])


def test_a_layer_without_filters():
    with pytest.raises(ValueError, match="^show_filters: expected a layer with filters, e.g. co"):
        conv_net().show_filters("linear1")
    with pytest.raises(ValueError, match="^show_filters: expected a layer with filters. Received"):
        small().show_filters("linear1")
    with pytest.raises(ValueError, match='^show_filters: .*perhaps "conv1". Received: layer='):
        conv_net().show_filters("conv")


def test_feature_maps_are_the_values_of_the_layers():
    net, x = conv_net(), RNG.random((1, 8, 8), np.float32)
    image, *axes = (ax for ax in xn.viz.show_feature_maps(net, x).axes if ax.get_title())
    np.testing.assert_array_equal(image.images[0].get_array(), x[0])
    for ax, name in zip(axes, ("conv1", "pool1"), strict=True):
        drawn = np.ma.filled(ax.images[0].get_array(), np.nan)
        np.testing.assert_array_equal(drawn, mosaic(net.output_of(name, x[None])[0], 4))
        assert ax.get_title().startswith(f"{name}: 4 maps of ")
    figure = xn.viz.show_feature_maps(net, x, ["pool1"], most=2)
    assert figure.axes[1].get_title() == "pool1: 2 of 4 maps of 3 x 3"


def test_wrong_arguments_of_feature_maps():
    x = np.ones((1, 8, 8))
    with pytest.raises(ValueError, match="expected layers whose output is maps .* 'linear1'"):
        xn.viz.show_feature_maps(conv_net(), x, ["linear1"])
    with pytest.raises(ValueError, match="a network with 0 layers of feature maps"):
        xn.viz.show_feature_maps(small(), np.ones(2))
    with pytest.raises(ValueError, match="expected"):
        xn.viz.show_feature_maps(conv_net(), np.ones((3, 8, 8)))


# --- activations ----------------------------------------------------------------------------------

def test_an_activation_and_its_derivative():
    figure = xn.viz.show_activations("tanh", low=-2, high=2)
    y, slope = figure.axes[0].lines[:2]
    z = y.get_xdata()
    np.testing.assert_allclose(y.get_ydata(), np.tanh(z), rtol=1e-12)
    np.testing.assert_allclose(slope.get_ydata(), 1 / np.cosh(z)**2, rtol=1e-9)
    assert (z[0], z[-1]) == (-2, 2) and figure.axes[0].get_xlabel() == "z"


def test_a_family_has_two_axes():
    values, slopes = xn.viz.show_activations([xn.Softplus(k) for k in (1, 2)]).axes
    assert [line.get_label() for line in values.lines[:2]] == ["softplus, k = 1", "softplus, k = 2"]
    z = values.lines[1].get_xdata()
    np.testing.assert_allclose(values.lines[1].get_ydata(), np.log1p(np.exp(2 * z)) / 2, rtol=1e-9)
    np.testing.assert_allclose(slopes.lines[1].get_ydata(), 1 / (1 + np.exp(-2 * z)), rtol=1e-9)


def test_no_line_is_drawn_at_a_jump():
    y = xn.viz.show_activations("step").axes[0].lines[0].get_ydata()
    assert np.isnan(y).sum() == 1 and {*y[~np.isnan(y)]} == {0, 1}


@pytest.mark.parametrize("activation", ["relu", "tanh", xn.Softplus(50)])
def test_a_steep_curve_is_drawn(activation):
    """Over a wide range a curve without jumps also has large steps from one point to the next."""
    figure = xn.viz.show_activations(activation, low=-100, high=100)
    assert not np.isnan(figure.axes[0].lines[0].get_ydata()).any()


def test_an_activation_layer_of_a_network_can_be_shown():
    net = xn.Sequential([xn.LeakyReLU(0.25)], input_shape=(2,), backend="numpy")
    line = xn.viz.show_activations(net.layers[0]).axes[0].lines[0]
    assert line.get_ydata()[0] == -1.25 and line.get_label() == "leaky_relu, slope = 0.25"


def test_activations_on_a_photograph():
    image = RNG.random((3, 5, 4))
    figure = xn.viz.show_activations_on(image, ["relu", "sigmoid"], low=-1, high=1)
    z = 2 * image - 1
    drawn = {ax.get_title().partition(":")[0]: ax.images[0].get_array()
             for ax in figure.axes if ax.images}
    y = 1 / (1 + np.exp(-z))
    for name, values in (("z", z), ("relu", np.maximum(z, 0)), ("derivative of relu", z > 0.0),
                         ("sigmoid", y), ("derivative of sigmoid", y * (1 - y))):
        values = 1.0 * values
        expected = image if name == "z" else (values - values.min()) / np.ptp(values)
        np.testing.assert_allclose(drawn[name], expected.transpose(1, 2, 0), atol=1e-12)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: xn.viz.show_activations("rellu"), 'perhaps "relu"'),
    (lambda: xn.viz.show_activations([]), "one activation or more"),
    (lambda: xn.viz.show_activations(xn.Linear(3)), "an elementwise layer"),
    (lambda: xn.viz.show_activations(3), "names of activations, or layers"),
    (lambda: xn.viz.show_activations("relu", low=2, high=1), "high to be larger than low, 2"),
    (lambda: xn.viz.show_activations_on(np.ones(3), "relu"), "image of shape"),
])
def test_wrong_arguments_of_activations(call, said):
    with pytest.raises((ValueError, TypeError), match=f"expected .*{said}"):
        call()
