"""Local normalisation against loops over elements: at borders, for difficult inputs, and errors."""

import itertools
import math

import numpy as np
import pytest
from layer_cases import initialized
from oracles import assert_close

import xpnet as xn
from xpnet import TRAIN
from xpnet.testing import check_gradients

FLOATS = ("float32", "float64")


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def forward(layer, x, backend):
    dtype = x.dtype.name
    initialized(layer, x.shape[:-1], backend=backend, dtype=dtype)
    y = backend.to_numpy(layer.forward(backend.asarray(x)))
    assert y.dtype == dtype
    return y


# --- across maps ----------------------------------------------------------------------------------

def response_norm(x, size, alpha, beta, k):
    """Element by element: the neighbours of channel c are c - size // 2 to c + (size - 1) // 2."""
    y = np.empty(x.shape)
    for at in np.ndindex(x.shape):
        seen = range(max(0, at[0] - size // 2), min(len(x), at[0] + (size - 1) // 2 + 1))
        total = sum(float(x[c, *at[1:]]) ** 2 for c in seen)
        y[at] = float(x[at]) / (k + alpha / size * total) ** beta
    return y


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])        # 9: more than the number of channels
@pytest.mark.parametrize("dtype", FLOATS)
def test_response_norm(backend, size, dtype):
    x = normal((5, 2, 3, 2), dtype)
    y = forward(xn.LocalResponseNorm(size, alpha=0.7, beta=0.6, k=1.5), x, backend)
    assert_close(y, response_norm(x, size, 0.7, 0.6, 1.5))


@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 1, 3, 2)])
def test_response_norm_of_any_number_of_axes(backend, shape):
    x = normal((*shape, 3))
    assert_close(forward(xn.LocalResponseNorm(3, alpha=2.0), x, backend),
                 response_norm(x, 3, 2.0, 0.75, 1.0))


@pytest.mark.parametrize("settings", [dict(size=2, beta=2.0), dict(size=4, k=0.3), dict(size=9),
                                      dict(size=None, beta=2.0), dict(beta=0.0), dict(alpha=0.0)],
                         ids=str)
def test_response_norm_gradients(backend, settings):
    check_gradients(xn.LocalResponseNorm(**{"alpha": 0.8, **settings}), (5, 2, 3), backend=backend)


def test_response_norm_with_the_settings_of_its_source(backend):
    """Krizhevsky's sum is not divided by the size."""
    x = 20 * normal((7, 2, 2, 2))
    y = forward(xn.LocalResponseNorm(5, k=2, alpha=5 * 1e-4), x, backend)
    expected = [x[c] / (2 + 1e-4 * (x[max(0, c - 2):c + 3] ** 2).sum(axis=0)) ** 0.75
                for c in range(7)]
    assert_close(y, expected)


def test_brightness_normalisation(backend):
    kappa, lambda_, mu = 0.5, 0.3, 0.5
    x = normal((4, 3, 3, 2))
    y = forward(xn.LocalResponseNorm(3, k=kappa, alpha=3 * lambda_, beta=mu), x, backend)
    for c in range(4):
        around = (x[max(0, c - 1):c + 2] ** 2).sum(axis=0)
        assert_close(y[c], x[c] / (kappa + lambda_ * around) ** mu)


@pytest.mark.parametrize("C", [1, 2, 5, 6])
def test_brightness_normalisation_across_all_maps(C, backend):
    """With size=None and, the same, with size = 2 C - 1; with size = C the first channel has only
    (C + 1) // 2 neighbours."""
    kappa, lambda_, mu = 0.5, 0.3, 0.5
    x = normal((C, 3, 3, 2))
    expected = x / (kappa + lambda_ * (x ** 2).sum(axis=0)) ** mu
    for size, divisor in ((None, C), (2 * C - 1, 2 * C - 1)):
        layer = xn.LocalResponseNorm(size, k=kappa, alpha=divisor * lambda_, beta=mu)
        assert_close(forward(layer, x, backend), expected)
    first = forward(xn.LocalResponseNorm(C, k=kappa, alpha=C * lambda_, beta=mu), x, backend)[0]
    assert_close(first, x[0] / (kappa + lambda_ * (x[:(C + 1) // 2] ** 2).sum(axis=0)) ** mu)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 1, 3, 2)])
def test_response_norm_over_all_channels(backend, shape, dtype):
    """Element by element, whatever the number of axes."""
    x = normal((*shape, 3), dtype)
    y, C = forward(xn.LocalResponseNorm(None, alpha=0.7, beta=0.6, k=1.5), x, backend), shape[0]
    assert y.dtype == dtype
    for at in np.ndindex(y.shape):
        total = sum(float(x[c, *at[1:]]) ** 2 for c in range(C))
        assert y[at] == pytest.approx(float(x[at]) / (1.5 + 0.7 / C * total) ** 0.6, rel=1e-5)


@pytest.mark.parametrize("argument, value, expected", [
    ("size", 0, "size to be an int, 1 or larger"),
    ("alpha", -1, "alpha to be a number, 0 or larger"), ("beta", "x", "beta to be a number"),
    ("k", 0, r"k to be a number above 0\. Received: k=0"), ("k", -1, "k to be a")])
def test_response_norm_errors(argument, value, expected):
    with pytest.raises(ValueError, match=rf"LocalResponseNorm 'n': expected {expected}"):
        xn.LocalResponseNorm(**{argument: value}, name="n")


# --- in a window ----------------------------------------------------------------------------------

def weights(size, sigma):
    around = range(-(size // 2), size // 2 + 1)
    g = {(i, j): math.exp(-(i * i + j * j) / (2 * sigma * sigma))
         for i, j in itertools.product(around, around)}
    return {at: value / sum(g.values()) for at, value in g.items()}


def local_mean(x, size, sigma):
    """The weighted mean over all channels and the positions of the window inside the image: (H, W,
    N)."""
    C, H, W, N = x.shape
    mean = np.zeros((H, W, N))
    for h, w, n in np.ndindex(H, W, N):
        inside = {(h + i, w + j): g for (i, j), g in weights(size, sigma).items() if 0 <= h + i < H
                  and 0 <= w + j < W}
        total = sum(g * float(x[c, *at, n]) for at, g in inside.items() for c in range(C))
        mean[h, w, n] = total / (C * sum(inside.values()))
    return mean


def divide(x, size, sigma, floor=1e-4):
    deviation = np.sqrt(local_mean(x ** 2, size, sigma))
    y = np.empty(x.shape)
    for c, h, w, n in np.ndindex(x.shape):
        y[c, h, w, n] = x[c, h, w, n] / max(deviation[..., n].mean(), deviation[h, w, n], floor)
    return y


# 9: larger than the image
@pytest.mark.parametrize("size, sigma", [(1, None), (3, None), (5, 0.8), (9, None)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_windows(backend, size, sigma, dtype):
    x = normal((3, 6, 5, 2), dtype) + np.array(0.5, dtype)
    width, exact = sigma or size / 4, x.astype(np.float64)
    centred = exact - local_mean(exact, size, width)
    assert_close(forward(xn.SubtractiveNorm2d(size, sigma=sigma), x, backend), centred)
    assert_close(forward(xn.DivisiveNorm2d(size, sigma=sigma), x, backend),
                 divide(exact, size, width))
    assert_close(forward(xn.ContrastNorm2d(size, sigma=sigma), x, backend),
                 divide(centred, size, width))


@pytest.mark.parametrize("kind", [xn.SubtractiveNorm2d, xn.DivisiveNorm2d, xn.ContrastNorm2d])
def test_gradients(backend, kind):
    check_gradients(kind(3, sigma=0.7), (2, 5, 4), backend=backend)
    check_gradients(kind(9), (3, 4, 5), backend=backend)


def test_gradient_with_and_without_the_floor(backend):
    """The contrast on the left is above the floor, the mean contrast of the image is below it."""
    x = 0.01 * normal((2, 4, 12, 3))
    x[:, :, :3] *= 1000
    check_gradients(xn.DivisiveNorm2d(3, floor=4.0), (2, 4, 12), inputs=(x,), backend=backend)


def test_a_constant_image_becomes_zero_everywhere(backend):
    """Also at the border: the remaining weights sum to 1."""
    y = forward(xn.SubtractiveNorm2d(5), np.full((3, 6, 7, 2), 4.0), backend)
    np.testing.assert_allclose(y, 0, atol=1e-14)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_constant_image_stays_constant(backend, dtype):
    """The rounding errors that remain after the subtraction are not amplified, and the gradient is
    finite."""
    for value in (0.0, 0.3):
        layer = initialized(xn.ContrastNorm2d(5), (2, 8, 8), backend=backend, dtype=dtype)
        x = backend.asarray(np.full((2, 8, 8, 1), value, dtype))
        y = backend.to_numpy(layer.forward(x, mode=TRAIN))
        dx = backend.to_numpy(layer.backward(backend.asarray(normal(y.shape, dtype))))
        assert np.abs(y).max() < 0.01 and np.isfinite(dx).all()


def test_contrast_does_not_depend_on_brightness_and_scale(backend):
    x = normal((2, 8, 8, 2))
    y = forward(xn.ContrastNorm2d(5), x, backend)
    assert_close(forward(xn.ContrastNorm2d(5), 30 * x + 7, backend), y)


@pytest.mark.parametrize("kind", [xn.SubtractiveNorm2d, xn.DivisiveNorm2d, xn.ContrastNorm2d])
def test_window_errors(kind):
    who = rf"{kind.__name__} 'n': expected"
    with pytest.raises(ValueError, match=rf"{who} an odd kernel_size, so that a window has a "
                                         rf"centre\. Received: kernel_size=4"):
        kind(4, name="n")
    with pytest.raises(ValueError, match=rf"{who} kernel_size to be an int, 1 or larger"):
        kind(0, name="n")
    with pytest.raises(ValueError, match=rf"{who} sigma to be a number above 0"):
        kind(3, sigma=0, name="n")
    with pytest.raises(ValueError, match=rf"{who} an input of shape \(channels, height, width\)"):
        kind(3, name="n").initialize((5,))
    if kind is not xn.SubtractiveNorm2d:
        with pytest.raises(ValueError, match=rf"{who} floor to be a number above 0"):
            kind(3, floor=0, name="n")
