"""Random crops and flips: pixel by pixel against a loop, the same on every backend, and how often
each is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from fake_cupy import FakeCupy

from xpnet.data.transforms import random_crop, random_flip


def pictures(shape=(6, 3, 5, 4), dtype=np.uint8):
    x = np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_a_crop_is_a_shift_with_zeros_from_beyond_the_border(padding, dtype):
    x = pictures(dtype=dtype)
    y = random_crop(x, np.random.default_rng(3), padding=padding)
    assert y.shape == x.shape and y.dtype == dtype and y.flags.c_contiguous
    a, b = np.random.default_rng(3).integers(0, 2 * padding + 1, (2, 6)) - padding
    for n, c, i, j in np.ndindex(x.shape):
        row, column = i + a[n], j + b[n]
        inside = 0 <= row < 5 and 0 <= column < 4
        assert y[n, c, i, j] == (x[n, c, row, column] if inside else 0)


def test_a_flip_is_the_image_or_its_mirror_image():
    x = pictures((100, 1, 2, 3), np.float32)
    y = random_flip(x, np.random.default_rng(0))
    mirrored = [np.array_equal(y[n], x[n, :, :, ::-1]) for n in range(100)]
    assert all(yes != np.array_equal(y[n], x[n]) for n, yes in enumerate(mirrored))
    assert 30 < sum(mirrored) < 70 and y.dtype == x.dtype


def test_every_shift_is_drawn():
    x = np.zeros((2000, 1, 3, 3), np.uint8)
    x[:, 0, 1, 1] = 1
    y = random_crop(x, np.random.default_rng(1), padding=1)
    # the new position of the middle pixel: 9 positions, each about as often
    counts = y.sum(axis=0)[0]
    assert counts.sum() == 2000 and counts.min() > 150 and counts.max() < 300


def test_the_same_generator_gives_the_same_images_on_a_gpu(tmp_path):
    cupy, x = FakeCupy(tmp_path), pictures((7, 3, 8, 8))
    for transform in (random_crop, random_flip):
        theirs = transform(cupy.asarray(x), np.random.default_rng(5), xp=cupy)
        np.testing.assert_array_equal(cupy.asnumpy(theirs), transform(x, np.random.default_rng(5)))


@pytest.mark.parametrize("call, message", [
    (lambda rng: random_crop(np.zeros((3, 8, 8)), rng),
     r"expected images .* Received: ndarray of shape \(3, 8, 8\)"),
    (lambda rng: random_flip([[1]], rng), "random_flip: expected images .* Received: list"),
    (lambda rng: random_crop(pictures(), rng, padding=-1),
     "expected padding to be an int, 0 or larger. Received: padding=-1"),
    (lambda rng: random_crop(pictures(), rng, padding=1.5), "Received: padding=1.5"),
])
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))
