"""Pooling and convolution on a photograph, and diagrams of windows: what is drawn is right."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet as xn

pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws the figures")

from matplotlib.colors import to_hex  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from xpnet.viz import windows  # noqa: E402

RNG = np.random.default_rng(0)
PHOTO = RNG.random((3, 9, 12))


def drawn(figure):
    """The images of a figure by their titles, with the channels first."""
    found = {}
    for ax in figure.axes:
        if ax.images and ax.get_title():
            values = np.asarray(ax.images[0].get_array())
            found[ax.get_title()] = np.moveaxis(values, -1, 0) if values.ndim == 3 else values
    return found


# --- pooling --------------------------------------------------------------------------------------

def test_pooling_against_blocks_of_pixels():
    found = drawn(xn.viz.show_pooling(PHOTO, (3,)))
    blocks = PHOTO.reshape(3, 3, 3, 4, 3)                   # (C, OH, i, OW, j)
    bell = np.exp(-np.add.outer(*[np.arange(-1, 2) ** 2] * 2) / (2 * 0.75 ** 2))
    expected = {
        "max": blocks.max(axis=(2, 4)), "average": blocks.mean(axis=(2, 4)),
        "root mean square": np.sqrt((blocks ** 2).mean(axis=(2, 4))),
        "Gaussian": np.einsum("cyixj,ij->cyx", blocks, bell / bell.sum()),
        "first element": blocks[:, :, 0, :, 0]}
    assert {*found} == {f"{name}, 3 x 3" for name in expected}
    for name, values in expected.items():
        np.testing.assert_allclose(found[f"{name}, 3 x 3"], values, rtol=1e-12, err_msg=name)


def test_pooling_of_ones_own():
    figure = xn.viz.show_pooling(PHOTO[0], [2, 4], kinds={"sum": lambda k: xn.LpPool2d(k, 1)})
    found = drawn(figure)
    assert [*found] == ["sum, 2 x 2", "sum, 4 x 4"]
    sums = PHOTO[0, :8].reshape(2, 4, 3, 4).sum(axis=(1, 3))
    np.testing.assert_allclose(found["sum, 4 x 4"], sums / sums.max(), rtol=1e-12)


@pytest.mark.parametrize(("arguments", "said"), [
    ({"windows": (2, 16)}, "expected windows to be an int from 1 to 9. Received: windows=16"),
    ({"windows": ()}, "expected windows to be a list of sizes"),
    ({"kinds": ["max"]}, "expected kinds to be a dict"),
    ({"kinds": {"max": "max"}}, "expected max to be a function of k"),
    ({"kinds": {"max": lambda k: k}}, "expected max to be a function whose result is a layer"),
])
def test_wrong_arguments_of_pooling(arguments, said):
    with pytest.raises((ValueError, TypeError), match=f"^show_pooling: {said}"):
        xn.viz.show_pooling(PHOTO, **{"windows": (2,)} | arguments)


# --- convolution ----------------------------------------------------------------------------------

def slid(image, kernel):
    """A kernel that slides over an image (H, W), by loops over pixels."""
    KH, KW = kernel.shape
    OH, OW = image.shape[0] - KH + 1, image.shape[1] - KW + 1
    return np.array([[(image[i:i + KH, j:j + KW] * kernel).sum() for j in range(OW)]
                     for i in range(OH)])


def test_convolution_against_a_loop_over_pixels():
    found = drawn(xn.viz.show_convolution(PHOTO))
    np.testing.assert_array_equal(found.pop("the image"), PHOTO)
    assert {*found} == {*xn.viz.KERNELS} and len(found) == 7
    grey = PHOTO.mean(axis=0)
    for name, kernel in xn.viz.KERNELS.items():
        if abs(kernel.sum()) < 1e-9:
            np.testing.assert_allclose(found[name], slid(grey, kernel), atol=1e-12, err_msg=name)
        else:
            expected = np.clip([slid(channel, kernel) for channel in PHOTO], 0, 1)
            np.testing.assert_allclose(found[name], expected, atol=1e-12, err_msg=name)


def test_kernels_see_what_their_names_say():
    ramp = np.tile(np.arange(6.0), (6, 1))                  # grows along each row
    for name, across, down in (("Sobel, along rows", 2, 0), ("Sobel, along columns", 0, 2),
                               ("edge 1 x 2", 1, 0), ("Laplacian", 0, 0)):
        kernel = xn.viz.KERNELS[name]
        np.testing.assert_allclose(slid(ramp, kernel), across, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(slid(ramp.T, kernel), down, atol=1e-12, err_msg=name)
    for name in ("box 5 x 5", "Gaussian 5 x 5", "sharpen"):
        assert abs(xn.viz.KERNELS[name].sum() - 1) < 1e-12


def test_a_pyramid_against_a_loop_over_pixels():
    row = np.array([1, 4, 6, 4, 1]) / 16
    first, second, third = xn.viz.pyramid(PHOTO, 3)
    np.testing.assert_array_equal(first, PHOTO)
    padded = np.pad(PHOTO, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    expected = [slid(channel, np.outer(row, row))[::2, ::2] for channel in padded]
    np.testing.assert_allclose(second, expected, atol=1e-12)
    assert third.shape == (3, 3, 3)
    axes = xn.viz.show_pyramid(PHOTO, 3).axes
    assert [ax.get_title() for ax in axes] == ["9 x 12", "5 x 6", "3 x 3"]
    np.testing.assert_array_equal(axes[1].images[0].get_array(), np.moveaxis(second, 0, -1))


@pytest.mark.parametrize(("call", "said"), [
    (lambda: xn.viz.show_convolution(PHOTO, {"a": np.ones(3)}), "expected a to be a kernel"),
    (lambda: xn.viz.show_convolution(PHOTO, {"a": np.ones((10, 1))}), "at most as large as"),
    (lambda: xn.viz.show_convolution(PHOTO, [np.ones((2, 2))]), "expected kernels to be a dict"),
    (lambda: xn.viz.pyramid(PHOTO, 5), "expected at most 4 levels, for an image of 9 x 12"),
])
def test_wrong_arguments_of_convolution(call, said):
    with pytest.raises((ValueError, TypeError), match=said):
        call()


# --- windows --------------------------------------------------------------------------------------

def cells(figure, colour):
    """The corners (row, column) of the cells of a colour."""
    return {(patch.get_y(), patch.get_x()) for patch in figure.axes[0].patches
            if to_hex(patch.get_facecolor()).upper() == colour}


@pytest.mark.parametrize(("arguments", "at"), [
    ({"kernel_size": 3}, (1, 2)),
    ({"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0, 2, 1)}, (1, 3)),
    ({"kernel_size": 3, "dilation": 2, "padding": "half"}, (0, 0)),
])
def test_the_orange_cells_are_what_the_output_element_reads(arguments, at):
    """Against the elements on which a sum over the window depends."""
    window, (H, W) = xn.Window.make(**arguments), (6, 7)
    figure = xn.viz.show_window(window, (H, W), at)
    layer_arguments = {"bias": False} | arguments
    layer = xn.Conv2d(1, layer_arguments.pop("kernel_size"), **layer_arguments)
    layer.initialize((1, H, W), dtype="float64")
    layer.W.data = np.ones(layer.W.shape)
    y = layer.forward(np.eye(H * W).reshape(1, H, W, H * W))    # a sample for each input element
    OH, OW = y.shape[1:3]
    reads = {(k // W, k % W) for k in np.flatnonzero(y[0, at[0], at[1]])}
    top, bottom, left, right = window.padding
    down = (max(H + top + bottom, OH) - (H + top + bottom)) / 2
    orange = {(y - down - top, x - left) for y, x in cells(figure, windows.TAP)}
    assert {(y, x) for y, x in orange if 0 <= y < H and 0 <= x < W} == reads
    assert len(orange) == window.taps
    assert len(cells(figure, windows.OUTPUT)) == OH * OW - 1
    assert len(cells(figure, windows.CHOSEN)) == 1
    assert f"{H} x {W} becomes {OH} x {OW}" in figure.axes[0].get_title()


def test_a_window_in_axes_of_ones_own():
    ax = Figure().subplots()
    assert xn.viz.show_window(xn.Window.make(2), 3, ax=ax) is ax.figure and ax.patches


@pytest.mark.parametrize(("window", "size", "at", "said"), [
    (3, 6, (0, 0), "expected window to be a Window"),
    (xn.Window.make(3), 2, (0, 0), "expected an input at least as large as the window"),
    (xn.Window.make(3), 6, (4, 0), "expected at to be the row and column of one of 4 x 4"),
    (xn.Window.make(3), 65, (0, 0), "expected size to be a number of pixels from 1 to 64"),
])
def test_wrong_arguments_of_windows(window, size, at, said):
    with pytest.raises((ValueError, TypeError), match=f"^show_window: {said}"):
        xn.viz.show_window(window, size, at)
