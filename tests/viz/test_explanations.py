"""Receptive fields, confusion, explanations, maximisation: the numbers that are drawn."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet as xn
from xpnet import explain

pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the figures")

from matplotlib.figure import Figure  # noqa: E402

from xpnet.viz.confusion import worst_mistakes  # noqa: E402
from xpnet.viz.images import between_0_and_1  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.random((5, 1, 8, 8), np.float32)


def classifier():
    return xn.Sequential([xn.Conv2d(4, 3, activation="tanh"), xn.MaxPool2d(2), xn.Flatten(),
                          xn.Linear(3)], input_shape=(1, 8, 8), backend="numpy")


NET = classifier()


def drawn(figure):
    return {ax.get_title(): np.asarray(ax.images[-1].get_array())
            for ax in figure.axes if ax.images and ax.get_title()}


# --- receptive fields -----------------------------------------------------------------------------

def test_the_rectangle_is_the_receptive_field():
    ax = Figure().subplots()
    figure = xn.viz.show_receptive_field(NET, X[0], ["conv1", "pool1"], (1, 2), ax=ax)
    assert figure is ax.figure
    for rectangle, name in zip(ax.patches, ("conv1", "pool1"), strict=True):
        (top, bottom), (left, right) = explain.receptive_field(NET, name, (1, 2))
        # pixel k is drawn from k - 0.5 to k + 0.5
        assert rectangle.get_bbox().extents.tolist() == [left - 0.5, top - 0.5, right - 0.5,
                                                         bottom - 0.5]
        assert rectangle.get_label() == f"{name}: {bottom - top} x {right - left}"
    np.testing.assert_array_equal(ax.images[0].get_array(), X[0, 0])


# --- confusion ------------------------------------------------------------------------------------

SCORES = np.array([[3.0, 1, 0], [0, 2, 1], [5, 1, 0], [1, 0, 4], [0, 1, 9]])
TARGET = np.array([0, 1, 1, 1, 0])


def test_the_confusion_matrix():
    ax = Figure().subplots()
    xn.viz.show_confusion(SCORES, TARGET, names=["a", "b", "$c"], ax=ax)
    np.testing.assert_allclose(ax.images[0].get_array(), [
        [1 / 2, 0, 1 / 2], [1 / 3, 1 / 3, 1 / 3], [0, 0, 0]])
    assert {(text.get_position(), text.get_text()) for text in ax.texts} == {
        ((0, 0), "1"), ((2, 0), "1"), ((0, 1), "1"), ((1, 1), "1"), ((2, 1), "1")}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "$c"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "target")


def test_the_worst_mistakes_come_first():
    assert worst_mistakes(SCORES, TARGET).tolist() == [4, 2, 3]     # by 9, 4 and 4
    figure = xn.viz.show_mistakes(X, SCORES, TARGET, most=2, names=["a", "b", "c"])
    assert [ax.get_title() for ax in figure.axes] == ["a, not c", "b, not a"]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), X[4, 0])


# --- explanations ---------------------------------------------------------------------------------

def test_the_four_explanations_are_those_of_explain():
    found = drawn(xn.viz.show_explanations(NET, X[0], 2, size=3))
    x = X[:1]
    smooth = abs(explain.smooth_gradient(NET, x, 2)).max(axis=1)[0]
    score = NET.predict(x)[0, 2]
    expected = {f"class 2: score {score:.3g}": X[0, 0], "saliency": explain.saliency(NET, x, 2)[0],
                "smooth gradient": smooth,
                "Grad-CAM, pool1": explain.grad_cam(NET, x, 2, layer="pool1")[0],
                "occlusion, 3 x 3": explain.occlusion(NET, X[0], 2, size=3)}
    assert {*found} == {*expected}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)


def test_occlusion_is_drawn_at_the_middle_of_the_square():
    ax = xn.viz.show_explanations(NET, X[0], 2, size=3).axes[4]
    assert ax.get_title() == "occlusion, 3 x 3"
    assert ax.images[0].get_extent() == [0.5, 6.5, 6.5, 0.5]    # pixels 1 to 6
    assert ax.get_xlim() == (-0.5, 7.5) and ax.get_ylim() == (7.5, -0.5)


def test_large_squares_move_by_a_quarter_of_their_size():
    net = xn.Sequential([xn.Flatten(), xn.Linear(2)], input_shape=(1, 21, 17), backend="numpy")
    x = RNG.random((1, 21, 17), np.float32)
    ax = xn.viz.show_explanations(
        xn.Sequential([xn.Conv2d(1, 1), net], input_shape=x.shape, backend="numpy"), x, 0,
        size=9).axes[4]
    image, = ax.images
    assert image.get_array().shape == (7, 5)        # strides of 2
    left, right, bottom, top = image.get_extent()
    assert (left, top) == (3, 3) and (right, bottom) == (13, 17)    # the first middle is pixel 4


def test_names_of_the_network():
    net = classifier()
    net.classes = ["a", "b", "c"]
    k = int(net.predict(X[:1]).argmax())
    title = xn.viz.show_explanations(net, X[0]).axes[0].get_title()
    assert title.startswith(f"{'abc'[k]}: score ")


def test_a_heat_map_covers_the_image():
    ax = Figure().subplots()
    values = RNG.random((2, 3))
    xn.viz.show_heat(X[0], values, text="heat", ax=ax)
    image, heat = ax.images
    np.testing.assert_array_equal(heat.get_array(), values)
    assert heat.get_extent() == list(image.get_extent()) == [-0.5, 7.5, 7.5, -0.5]


def test_inputs_that_units_respond_to():
    ax = Figure().subplots()
    xn.viz.show_maximization(NET, "linear1", [2, 0], steps=3, names=["c", "a"], ax=ax)
    pixels = np.asarray(ax.images[0].get_array())
    assert pixels.shape == (8, 17) and [text.get_text() for text in ax.texts] == ["c", "a"]
    for k, unit in enumerate((2, 0)):
        x, _ = explain.maximize(NET, "linear1", unit, steps=3)
        np.testing.assert_array_equal(pixels[:, 9 * k:9 * k + 8], between_0_and_1(x)[0])


@pytest.mark.parametrize(("call", "said"), [
    (lambda: xn.viz.show_receptive_field(NET, X[0], []), "layers to be the name of a layer"),
    (lambda: xn.viz.show_receptive_field(NET, X[0, :, 1:], "conv1"), r"x of shape \(1, 8, 8\)"),
    (lambda: xn.viz.show_confusion(SCORES, TARGET[:2]), "labels like the targets"),
    (lambda: xn.viz.show_confusion(SCORES, TARGET, names=["a"]), "classes to be an int"),
    (lambda: xn.viz.show_confusion(SCORES, TARGET, names=3), "names to be names, all .*names=3"),
    (lambda: xn.viz.show_mistakes(X[:2], SCORES, TARGET), "x of 5 images"),
    (lambda: xn.viz.show_mistakes(X, SCORES.argmax(1), TARGET), r"y of scores \(N, K\)"),
    (lambda: xn.viz.show_mistakes(X, SCORES, SCORES.argmax(1)), "a wrong prediction"),
    (lambda: xn.viz.show_explanations(NET, X), "x to be one image"),
    (lambda: xn.viz.show_explanations(NET, X[0], 3), "a class from 0 to 2"),
    (lambda: xn.viz.show_heat(X[0], X[0]), "values of shape"),
    (lambda: xn.viz.show_maximization(NET, "linear1", []), "units to be numbers of units"),
    (lambda: xn.viz.show_maximization(NET, "linear1", [3]), "unit to be the index of a unit"),
    (lambda: xn.viz.show_maximization(NET, "linear1", [1], names=[]), "names to be names, all"),
])
def test_wrong_arguments(call, said):
    with pytest.raises((ValueError, TypeError), match=f"^\\w+: .*expected .*{said}|^{said}"):
        call()
