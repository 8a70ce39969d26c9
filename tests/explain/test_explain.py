"""xpnet.explain against hand computations, finite differences and direct evaluation."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

import xpnet as xn
from xpnet.catalogue import FAMILIES
from xpnet.explain import grad_cam, maximize, occlusion, receptive_field, saliency, smooth_gradient
from xpnet.explain.scores import score_gradients

RNG = np.random.default_rng(0)


def classifier(*, softmax=False, dtype="float64", **settings):
    """Two convolutions and a linear layer, on images of 2 x 7 x 6."""
    return xn.Sequential([
        xn.Conv2d(3, 3, activation="tanh"), xn.BatchNorm2d(name="norm"), xn.MaxPool2d(2),
        xn.Dropout(0.5, name="drop"),
        xn.Flatten(), xn.Linear(4), *([xn.Softmax()] if softmax else [])],
        input_shape=(2, 7, 6), backend="numpy", dtype=dtype, **settings)


NET = classifier()
X = RNG.normal(size=(3, 2, 7, 6))


def numeric_gradient(net, x, k, step=1e-6):
    """dS/dx of the score k of each sample by central differences, element by element."""
    found = np.empty(x.shape)
    for index in np.ndindex(*x.shape[1:]):
        at = (slice(None), *index)
        up, down = x.copy(), x.copy()
        up[at] += step
        down[at] -= step
        found[at] = (net.predict(up)[:, k] - net.predict(down)[:, k]) / (2 * step)
    return found


# --- gradients of scores --------------------------------------------------------------------------

def test_the_gradient_of_a_score_against_finite_differences():
    before = NET.parameters.copy(), NET.grads.copy(), NET.state.copy()
    found = score_gradients("test", NET, X, 2)
    np.testing.assert_allclose(found.gradient, numeric_gradient(NET, X, 2), atol=1e-8)
    np.testing.assert_allclose(found.scores, NET.predict(X))
    for a, b in zip(before, (NET.parameters, NET.grads, NET.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(node.kept is None for node in NET.nodes)


def test_the_class_is_the_one_with_the_largest_score_by_default():
    found = score_gradients("test", NET, X, None)
    np.testing.assert_array_equal(found.targets, NET.predict(X).argmax(axis=1))
    np.testing.assert_array_equal(found.gradient,
                                  score_gradients("test", NET, X, found.targets).gradient)


def test_the_score_is_what_the_softmax_reads():
    net = classifier(softmax=True)
    net.parameters[...] = NET.parameters
    np.testing.assert_array_equal(score_gradients("test", net, X, 1).gradient,
                                  score_gradients("test", NET, X, 1).gradient)
    np.testing.assert_array_equal(occlusion(net, X[0], 1), occlusion(NET, X[0], 1))


def test_saliency_is_the_largest_gradient_over_the_channels():
    expected = np.abs(numeric_gradient(NET, X, 1)).max(axis=1)
    np.testing.assert_allclose(saliency(NET, X, 1), expected, atol=1e-8)


def test_the_smooth_gradient_is_a_mean_over_noisy_copies():
    np.testing.assert_allclose(smooth_gradient(NET, X, 1, noise=0, samples=2),
                               score_gradients("test", NET, X, 1).gradient, rtol=1e-12)
    # S = sum of W x^2 has the gradient 2 W x, and noise of mean 0 does not change its mean
    x = xn.Input((1, 2, 2))
    flat = xn.Flatten()(x)
    net = xn.Network(x, xn.Linear(2, bias=False)(flat * flat), backend="numpy", dtype="float64")
    W, image = net.arrays["linear1.W"].data[0], RNG.normal(size=(1, 1, 2, 2))
    found = smooth_gradient(net, image, 0, samples=400, noise=0.1, seed=3)
    spread = 2 * abs(W) * 0.1 * np.ptp(image) / np.sqrt(400)
    error = abs(found.ravel() - 2 * W * image.ravel())
    assert (error < 5 * spread).all() and (error > 0).all()
    np.testing.assert_array_equal(
        found, smooth_gradient(net, image, 0, samples=400, noise=0.1, seed=3))
    assert not np.array_equal(
        found, smooth_gradient(net, image, 0, samples=400, noise=0.1, seed=4))


# --- Grad-CAM -------------------------------------------------------------------------------------

def test_grad_cam_against_a_computation_by_hand():
    """conv (1 to 2 maps, 1 x 1), then a linear layer on the 2 x 4 values: dS/dA is the row of W."""
    net = xn.Sequential([xn.Conv2d(2, 1, bias=False), xn.Flatten(), xn.Linear(2, bias=False)],
                        input_shape=(1, 2, 2), backend="numpy", dtype="float64")
    net.arrays["conv1.W"].data[...] = np.array([2.0, -1.0]).reshape(2, 1, 1, 1)
    net.arrays["linear1.W"].data[...] = np.array([[1.0, 2, 3, 4, -1, -1, 0, -2], [0.0] * 8])
    x = np.array([[1.0, 2.0], [-3.0, 4.0]])
    # A = (2 x, -x); a = (mean of 1 2 3 4, mean of -1 -1 0 -2) = (2.5, -1)
    expected = np.maximum(2.5 * 2 * x + -1 * -x, 0)
    np.testing.assert_allclose(grad_cam(net, x[None, None], 0)[0], expected)
    np.testing.assert_allclose(grad_cam(net, x[None, None], 0)[0], [[6, 12], [0, 24]])
    np.testing.assert_array_equal(grad_cam(net, x[None, None], 1), 0)


def test_grad_cam_of_a_layer_in_the_middle_against_finite_differences():
    """The gradient with respect to the maps of the batch norm, through the rest of the network."""
    x = X[:1]
    A = NET.output_of("norm", x)
    rest = xn.Sequential([xn.MaxPool2d(2), xn.Flatten(), xn.Linear(4)], input_shape=A.shape[1:],
                         backend="numpy", dtype="float64")
    rest.arrays["linear1.W"].data[...] = NET.arrays["linear1.W"].data
    rest.arrays["linear1.b"].data[...] = NET.arrays["linear1.b"].data
    np.testing.assert_allclose(rest.predict(A), NET.predict(x))
    weights = numeric_gradient(rest, A, 3).mean(axis=(2, 3))[0]
    expected = np.maximum(np.einsum("k,kij->ij", weights, A[0]), 0)
    np.testing.assert_allclose(grad_cam(NET, x, 3, layer="norm")[0], expected, atol=1e-8)
    np.testing.assert_array_equal(grad_cam(NET, x, 3), grad_cam(NET, x, 3, layer="drop"))


# --- occlusion ------------------------------------------------------------------------------------

@pytest.mark.parametrize("batch_size", [4, 256])
def test_occlusion_against_direct_evaluation(batch_size):
    found = occlusion(NET, X[0], 2, size=3, stride=2, fill=0.5, batch_size=batch_size)
    assert found.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            covered = X[0].copy()
            covered[:, 2 * i:2 * i + 3, 2 * j:2 * j + 3] = 0.5
            drop = NET.predict(X[:1])[0, 2] - NET.predict(covered[None])[0, 2]
            assert abs(found[i, j] - drop) < 1e-12
    k = int(NET.predict(X[:1]).argmax())
    np.testing.assert_array_equal(occlusion(NET, X[0]), occlusion(NET, X[0], k))


# --- activation maximisation ----------------------------------------------------------------------

def test_the_input_that_a_linear_unit_likes_is_its_weights():
    net = xn.Sequential([xn.Linear(3, bias=False)], input_shape=(5,), backend="numpy",
                        dtype="float64")
    x, values = maximize(net, "linear1", 1, steps=200, lr=0.1, decay=0.1)
    w = net.arrays["linear1.W"].data[1]
    np.testing.assert_allclose(x / np.linalg.norm(x), w / np.linalg.norm(w), atol=1e-6)
    # where growth and decay are equal: |x| = 0.9 (|x| + 0.1 sqrt(5))
    assert abs(np.linalg.norm(x) - 0.9 * np.sqrt(5)) < 1e-6
    assert len(values) == 201 and abs(values[-1] - w @ x) < 1e-12


def test_a_channel_is_the_mean_over_its_positions():
    x, values = maximize(NET, "conv1", 1, steps=5)
    assert x.shape == (2, 7, 6) and values[-1] > values[0]
    assert abs(values[-1] - NET.output_of("conv1", x[None])[0, 1].mean()) < 1e-12
    x, values = maximize(NET, "conv1", (1, 2, 0), steps=5)
    assert abs(values[-1] - NET.output_of("conv1", x[None])[0, 1, 2, 0]) < 1e-12
    outside = np.ones((7, 6), bool)
    outside[2:5, :3] = False            # what this unit does not read keeps only its first noise
    assert abs(x[:, outside]).max() < 0.05 < abs(x[:, ~outside]).max()


# --- receptive fields -----------------------------------------------------------------------------

def branches():
    x = xn.Input((1, 13, 12))
    a = xn.Conv2d(2, 3, padding="half")(x)
    b = xn.Conv2d(2, 5, padding="half", dilation=(1, 2), name="wide")(x)
    return xn.Network(x, xn.MaxPool2d(2, name="last")(a + b), backend="numpy", dtype="float64")


def line(*layers):
    return xn.Sequential([*layers], input_shape=(1, 13, 12), backend="numpy", dtype="float64")


FIELDS = {
    "strides": line(xn.Conv2d(2, (3, 2), stride=2), xn.AvgPool2d(2, stride=1), xn.Conv2d(
        1, 2, dilation=(2, 1), name="last")),
    "padding": line(xn.Conv2d(2, 3, padding="half"), xn.Tanh(), xn.BatchNorm2d(), xn.Conv2d(
        2, 3, stride=(2, 1), padding=(1, 0, 2, 1)), xn.AvgPool2d(2, name="last")),
    "transposed": line(xn.Conv2d(2, 3, stride=3), xn.ConvTranspose2d(
        2, 3, stride=2, padding=1, name="last")),
    "adaptive": line(xn.Conv2d(2, 2), xn.AdaptiveAvgPool2d((5, 3), name="last")),
    "skipping": line(xn.Conv2d(2, 2), xn.SkipSampling2d((3, 2), offset=1, name="last")),
    "nearest": line(xn.Conv2d(2, 3), xn.Upsample2d(2.5), xn.Conv2d(1, 2, name="last")),
    "bicubic": line(xn.Upsample2d((1.5, 2), "bicubic", name="last")),
    "borders": line(xn.ZeroPad2d((2, 1, 0, 3)), xn.ReflectionPad2d((1, 2)), xn.Conv2d(2, 4),
                    xn.Crop2d((1, 0, 2, 1)), xn.Conv2d(1, 3, name="last")),
    "blocks": line(xn.Conv2d(8, (2, 3), stride=(3, 2)), xn.PixelShuffle(2), xn.PixelUnshuffle(2),
                   xn.PixelShuffle(2), xn.Conv2d(1, 2, name="last")),
    "branches": branches(),
    "separable": line(xn.SeparableConv2d(2, 3, stride=2, name="last")),
}


def depends(net, at, step=1e-3):
    """Which pixels change a unit of channel 0 of the layer "last", by finite differences."""
    H, W = net.in_nodes[0].shape[1:]
    x = np.random.default_rng(1).normal(size=(1, 1, H, W))
    changed = x + step * np.eye(H * W).reshape(H * W, 1, H, W)
    value = net.output_of("last", np.concatenate([x, changed]))[:, 0, at[0], at[1]]
    return (abs(value[1:] - value[0]) > 1e-10).reshape(H, W)


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields_against_finite_differences(name):
    """Max pooling does not change for all pixels, so the others have smooth layers."""
    net = FIELDS[name]
    OH, OW = net.node("last").shape[1:]
    for at in {(0, 0), (OH // 2, OW // 2), (OH - 1, OW - 1)}:
        (top, bottom), (left, right) = receptive_field(net, "last", at)
        changes = depends(net, at)
        if name == "branches":
            inside = np.zeros_like(changes)
            inside[top:bottom, left:right] = True
            assert not changes[~inside].any()
            continue
        assert (np.flatnonzero(changes.any(axis=1))[[0, -1]] == [top, bottom - 1]).all(), at
        assert (np.flatnonzero(changes.any(axis=0))[[0, -1]] == [left, right - 1]).all(), at


# They divide by a statistic of all positions, which does not count.
STATISTICS = {"LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm2d", "DivisiveNorm2d",
              "ContrastNorm2d", "L1Norm", "L2Norm", "LpNormalize"}
ITEMS = {item.name: item for items in FAMILIES.values() for item in items
         if isinstance(item.what, type) and issubclass(item.what, xn.Layer) and item.make}


def of_catalogue(item):
    """A network of the layer, on images of 4 x 6 x 6; None if it takes no such input."""
    for inputs in (1, 2):
        x = xn.Input((4, 6, 6))
        with suppress(ValueError):
            return xn.Network(x, item.make()(*[x] * inputs), backend="numpy", dtype="float64")
    return None


def test_no_layer_of_the_catalogue_reads_more_than_its_field():
    """Each pixel is changed, and a unit may change only if the pixel is in its receptive field."""
    nets = {name: of_catalogue(item) for name, item in ITEMS.items() if name not in STATISTICS}
    tried, refused = [], []
    for name, net in nets.items():
        if net is None or len(net.nodes[-1].shape) != 3:
            continue
        _, OH, OW = net.nodes[-1].shape
        at = min(1, OH - 1), min(2, OW - 1)
        try:
            (top, bottom), (left, right) = receptive_field(net, net.nodes[-1].name, at)
        except ValueError:
            refused.append(name)
            continue
        tried.append(name)
        rng = np.random.default_rng(0)
        net.parameters[...] = 0.3 * rng.standard_normal(net.parameters.shape)
        x = rng.standard_normal((1, 4, 6, 6))
        changes = np.zeros((36, 4, 36))
        changes[range(36), :, range(36)] = 1.7
        y = net.predict(np.concatenate([x, x + changes.reshape(36, 4, 6, 6)]))[:, :, *at]
        changed = (abs(y[1:] - y[0]).max(axis=1) > 1e-9).reshape(6, 6)
        changed[top:bottom, left:right] = False
        assert not changed.any(), name
    assert len(tried) > 50 and {*refused} == {"MatMul", "Permute", "DeconvolutionalNetwork2d",
                                              "Reshape", "Slice"}, (len(tried), refused)


def test_of_branches_it_is_the_rectangle_around_all():
    assert receptive_field(FIELDS["branches"], "last", (3, 3)) == ((4, 10), (2, 12))


def test_contrast_normalisation_has_two_windows():
    """The mean, and then the mean square of the differences from it."""
    net = line(xn.ContrastNorm2d(3, name="last"))
    assert receptive_field(net, "last", (6, 6)) == ((4, 9), (4, 9))


def test_a_unit_that_reads_padding_alone():
    net = line(xn.ZeroPad2d(4), xn.Conv2d(1, 3, name="last"))
    assert receptive_field(net, "last", (0, 5)) == ((0, 0), (1, 4))
    assert receptive_field(net, "last", (2, 2)) == ((0, 1), (0, 1))


def test_receptive_fields_agree_with_the_summary():
    net = xn.models.lenet5(backend="numpy")
    compared = 0
    for row in net.summary().rows:
        (top, bottom), (left, right) = receptive_field(net, row.name)
        if row.receptive_field:
            compared += 1
            assert (bottom - top, right - left) == row.receptive_field, row.name
    assert compared > 3
    assert receptive_field(net, net.nodes[-1].name) == ((0, 32), (0, 32))


# --- wrong arguments ------------------------------------------------------------------------------

TWO = xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy")


@pytest.mark.parametrize(("call", "said"), [
    (lambda: saliency(NET, X, 4), "saliency: expected target to be None, or a class from 0 to 3"),
    (lambda: saliency(NET, X, [0, 1]), "one for each of 3 samples"),
    (lambda: saliency(NET, X[:, :1]), "expected"),
    (lambda: saliency(NET, np.full_like(X, np.nan)), "saliency: expected finite samples"),
    (lambda: saliency(TWO, np.ones((1, 2))), r"saliency: expected images \(N, C, H, W\)"),
    (lambda: saliency("net", X), "saliency: expected net to be a Network"),
    (lambda: saliency(NET.up_to("conv1"), X), "saliency: expected a network with one"),
    (lambda: smooth_gradient(NET, X, noise=-1), "smooth_gradient: expected noise"),
    (lambda: grad_cam(NET, X, layer="linear1"), "grad_cam: expected layer to be the name"),
    (lambda: grad_cam(TWO, np.ones((1, 2))), "grad_cam: expected layer to be the name"),
    (lambda: occlusion(NET, X), "occlusion: expected x to be one image"),
    (lambda: occlusion(NET, X[0], [1, 2]), "occlusion: expected target to be None or a class"),
    (lambda: occlusion(NET, X[0], size=8), "occlusion: expected an input at least as large"),
    (lambda: maximize(NET, "conv1", 3), "maximize: expected unit to be the index of a unit"),
    (lambda: maximize(NET, "conv1", (0, 1)), "maximize: expected unit to be the index of a unit"),
    (lambda: maximize(NET, "conv2", 0), "expected name to be that of a layer"),
    (lambda: receptive_field(NET, "conv1", (9, 0)), "receptive_field: expected at to be the row"),
    (lambda: receptive_field(NET, "linear1", (0, 0)), "at to be None for linear1"),
    (lambda: receptive_field(TWO, "linear1"), "receptive_field: expected a network with one input"),
    (lambda: receptive_field(line(xn.Permute((0, 2, 1))), "permute1"), "windows are known"),
    (lambda: receptive_field(line(xn.Softmax(axis=1)), "softmax1"), "windows are known"),
])
def test_wrong_arguments(call, said):
    with pytest.raises((ValueError, TypeError), match=said):
        call()
