"""Augmentations against independent computations, image by image."""

from __future__ import annotations

import numpy as np
import pytest
from fake_cupy import FakeCupy, installed
from scipy import ndimage

import xpnet as xn
from xpnet.augment import Augmentation, augmented
from xpnet.augment.draws import Draws
from xpnet.augment.geometry import between_pixels, pixels
from xpnet.augment.mixing import CENTRE, Mixing

MODES = {"zeros": "constant", "edge": "nearest", "reflect": "mirror"}       # SciPy's names
ALL = [xn.RandomCrop(3), xn.RandomCrop(2, border="reflect"), xn.RandomFlip(),
       xn.RandomFlip(True, True), xn.RandomRotation(30), xn.RandomScale(0.8, 1.3),
       xn.RandomShift(0.2, border="edge"), xn.RandomAffine(10, shear=15), xn.Elastic(8, 2),
       xn.ColorJitter(0.3, hue=0.2), xn.RandomGrey(0.5), xn.GaussianBlur(), xn.GaussianNoise(0.1),
       xn.CutOut(4)]


def images(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).random(shape).astype(dtype)
    x.flags.writeable = False
    return x


X = images(3, 10, 9, 6)


@pytest.mark.parametrize("augmentation", ALL, ids=repr)
def test_the_batch_does_not_matter(augmentation):
    """An image is changed in the same way alone and in any batch, in float32 and in float64; it is
    another way in another epoch, and the input is read-only."""
    samples = np.array([4, 0, 11, 2, 7, 9])
    y = augmented(np, X, [augmentation], seed=1, epoch=3, samples=samples)
    assert y.shape == X.shape and y.dtype == X.dtype and np.isfinite(y).all()
    for n, sample in enumerate(samples):
        one = augmented(np, X[..., n:n + 1], [augmentation], seed=1, epoch=3, samples=[sample])
        assert np.array_equal(one[..., 0], y[..., n])
    double = augmented(np, X.astype("float64"), [augmentation], seed=1, epoch=3, samples=samples)
    assert double.dtype == np.float64 and np.abs(double - y).max() < 1e-5
    assert not np.array_equal(augmented(np, X, [augmentation], seed=1, epoch=4, samples=samples), y)
    assert not np.array_equal(y, X)


@pytest.mark.parametrize("augmentation", ALL, ids=repr)
def test_on_a_pretended_gpu(augmentation, folder):
    with installed(FakeCupy(folder)):
        backend = xn.get_backend("cupy")
        y = augmented(backend.xp, backend.asarray(X), [augmentation], seed=1)
        assert np.abs(backend.to_numpy(y) - augmented(np, X, [augmentation], seed=1)).max() < 1e-6


def test_several_have_numbers_of_their_own():
    noise = xn.GaussianNoise(1)
    once, twice = augmented(np, X, [noise]), augmented(np, X, [noise, noise])
    assert abs(np.std(twice - X) / np.std(once - X) - 2**0.5) < 0.1
    assert np.array_equal(augmented(np, X, []), X)


# --- pixels that move -----------------------------------------------------------------------------

@pytest.mark.parametrize("border", MODES)
def test_pixels_between_pixels(border):
    rng = np.random.default_rng(0)
    rows, columns = rng.uniform(-14, 24, (2, 7, 8, 6))
    x = X.astype("float64")
    y = between_pixels(np, x, rows, columns, border)
    for c in range(3):
        for n in range(6):
            image = np.pad(x[c, ..., n], 1) if border == "zeros" else x[c, ..., n]
            moved = int(border == "zeros")      # SciPy's border of zeros begins at the last pixel
            right = ndimage.map_coordinates(image, [rows[..., n] + moved, columns[..., n] + moved],
                                            order=1, mode=MODES[border])
            assert np.abs(y[c, ..., n] - right).max() < 1e-12
    whole = pixels(np, x, rows.astype(int), columns.astype(int), border)
    assert np.array_equal(
        whole, between_pixels(np, x, rows.astype(int), columns.astype(int), border))


@pytest.mark.parametrize("border", MODES)
def test_crop(border):
    y = augmented(np, X, [xn.RandomCrop(3, border=border)])
    wide = np.pad(X, ((0, 0), (3, 3), (3, 3), (0, 0)),
                  mode={"zeros": "constant"}.get(border, border))
    found = set()
    for n in range(6):
        places = [(i, j) for i in range(7) for j in range(7)
                  if np.array_equal(wide[:, i:i + 10, j:j + 9, n], y[..., n])]
        assert len(places) == 1
        found |= set(places)
    assert len(found) > 3


def test_all_moves_of_a_crop_are_as_frequent():
    x = images(1, 3, 3, 4000)
    y = augmented(np, x, [xn.RandomCrop(1)])
    stays = (y == x).all(axis=(0, 1, 2)).mean()
    assert abs(stays - 1 / 9) < 0.02


def test_flips():
    x = images(2, 4, 5, 4000)
    y = augmented(np, x, [xn.RandomFlip(True, True)])
    ways = [(x[:, ::v, ::h] == y).all(axis=(0, 1, 2)).mean() for v in (1, -1) for h in (1, -1)]
    assert np.allclose(ways, 0.25, atol=0.03) and abs(sum(ways) - 1) < 1e-12
    assert np.array_equal(augmented(np, x, [xn.RandomFlip(p=1)]), x[:, :, ::-1])
    assert np.array_equal(augmented(np, x, [xn.RandomFlip(False, True, p=1)]), x[:, ::-1])
    assert np.array_equal(augmented(np, x, [xn.RandomFlip(p=0)]), x)


class Fixed(Draws):
    """Draws whose numbers are given."""

    def __init__(self, *u: float) -> None:
        super().__init__(0, 0, [0])
        self.u = np.array(u)[:, None]

    def uniform(self, count, xp=np, *, start=0):
        return xp.asarray(self.u[start:start + count])


def test_affine_against_scipy():
    """One image, whose transform is known: SciPy's affine_transform with the inverse matrix."""
    x = images(1, 12, 15, 1, dtype="float64")
    u = 0.9, 0.3, 0.8, 0.25, 0.7
    y = xn.RandomAffine(40, scale=(0.5, 2), shift=0.1, shear=20).change(np, x, Fixed(*u))
    a, b = np.deg2rad(40 * 0.8), np.deg2rad(20 * -0.4)
    s = 0.5 + 1.5 * 0.8
    A = s * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ [[1, np.tan(b)], [0, 1]]
    centre, t = np.array([11, 14]) / 2, [0.1 * 12 * -0.5, 0.1 * 15 * 0.4]
    inverse = np.linalg.inv(A)
    right = ndimage.affine_transform(np.pad(x[0, ..., 0], 1), inverse,
                                     centre + 1 - inverse @ (centre + 1 + t), order=1)[1:-1, 1:-1]
    assert np.abs(y[0, ..., 0] - right).max() < 1e-12


def test_a_quarter_turn_and_a_double_size():
    x = images(2, 9, 9, 1, dtype="float64")
    turned = xn.RandomRotation(90).change(np, x, Fixed(1, 0.5, 0.5, 0.5, 0.5))
    assert np.abs(turned - np.rot90(x, 1, (1, 2))).max() < 1e-12
    large = xn.RandomScale(2, 2).change(np, x, Fixed(0.5, 0.5, 0.5, 0.5, 0.5))
    assert np.abs(large[:, ::2, ::2] - x[:, 2:7, 2:7]).max() < 1e-12


def test_elastic_against_scipy():
    x = images(1, 16, 14, 3, dtype="float64")
    y = xn.Elastic(6, 1.5, border="edge").change(np, x, Draws(4, 0, np.arange(3)))
    u = 2 * Draws(4, 0, np.arange(3)).uniform(2 * 16 * 14).reshape(2, 16, 14, 3) - 1
    for n in range(3):
        down, right = (6 * ndimage.gaussian_filter(field, 1.5, mode="nearest", radius=5)
                       for field in u[..., n])
        i, j = np.meshgrid(np.arange(16), np.arange(14), indexing="ij")
        expected = ndimage.map_coordinates(x[0, ..., n], [i + down, j + right], order=1,
                                           mode="nearest")
        assert np.abs(y[0, ..., n] - expected).max() < 1e-12


# --- colours, noise, holes ------------------------------------------------------------------------

def test_brightness_contrast_saturation():
    x = images(3, 4, 5, 1, dtype="float64")
    y = xn.ColorJitter(0.4).change(np, x, Fixed(0.75, 0.25, 1, 0.5))
    grey = np.array([0.299, 0.587, 0.114])
    right = 1.2 * x[..., 0]
    mean = np.tensordot(grey, right, 1).mean()
    right = mean + 0.8 * (right - mean)
    g = np.tensordot(grey, right, 1)
    right = g + 1.4 * (right - g)
    assert np.abs(y[..., 0] - right).max() < 1e-12
    one = xn.ColorJitter(0.4).change(np, x[:1], Fixed(0.75, 0.25, 1, 0.5))[0, ..., 0]
    bright = 1.2 * x[0, ..., 0]
    assert np.abs(one - (bright.mean() + 0.8 * (bright - bright.mean()))).max() < 1e-12


def test_hue_keeps_the_brightness_and_comes_round():
    x = images(3, 4, 5, 1, dtype="float64")
    y = xn.ColorJitter(hue=0.5).change(np, x, Fixed(0.5, 0.5, 0.5, 0.7))
    grey = np.array([0.299, 0.587, 0.114])
    assert np.abs(np.tensordot(grey, y - x, 1)).max() < 1e-12 and np.abs(y - x).max() > 0.1
    half = xn.ColorJitter(hue=0.5).change(np, x, Fixed(0.5, 0.5, 0.5, 1.0))
    back = xn.ColorJitter(hue=0.5).change(np, half, Fixed(0.5, 0.5, 0.5, 1.0))
    assert np.abs(back - x).max() < 1e-12 and np.abs(half - x).max() > 0.1
    plain = np.repeat(x[:1], 3, axis=0)         # grey has no hue
    assert np.abs(xn.ColorJitter(hue=0.5).change(np, plain, Fixed(0.5, 0.5, 0.5, 0.9)) - plain
                  ).max() < 1e-12


def test_grey():
    y = augmented(np, images(3, 4, 5, 2000), [xn.RandomGrey(0.3)])
    assert abs(((y[0] == y[1]) & (y[1] == y[2])).all(axis=(0, 1)).mean() - 0.3) < 0.03
    with pytest.raises(ValueError, match="RandomGrey: expected images of three channels"):
        augmented(np, X[:2], [xn.RandomGrey()])


def test_blur_against_scipy():
    x = images(2, 20, 17, 1, dtype="float64")
    y = xn.GaussianBlur((0.5, 1.5), p=0.5).change(np, x, Fixed(0.25, 0.4))
    right = [ndimage.gaussian_filter(image, 0.75, mode="nearest", radius=5) for image in x[..., 0]]
    assert np.abs(y[..., 0] - right).max() < 1e-12
    same = xn.GaussianBlur((0.5, 1.5), p=0.5).change(np, x, Fixed(0.25, 0.6))
    assert np.array_equal(same, x)


def test_noise():
    x = images(3, 8, 8, 200, dtype="float64")
    z = augmented(np, x, [xn.GaussianNoise(0.2)]) - x
    assert abs(z.std() - 0.2) < 0.003 and abs(z.mean()) < 0.003
    assert abs(np.corrcoef(z.reshape(-1, 200))[np.triu_indices(192, 1)]).max() < 0.4


@pytest.mark.parametrize("size", [1, 4, 5, 30])
def test_cutout(size):
    x = images(2, 10, 9, 1500)
    y = augmented(np, x, [xn.CutOut(size, value=-1)])
    hole = (y == -1).all(axis=0)                                        # (H, W, N)
    assert np.array_equal(np.where(hole, -1, x), y)
    for n in range(1500):
        rows, columns = (np.flatnonzero(hole[..., n].any(axis=axis)) for axis in (1, 0))
        assert hole[..., n].sum() == len(rows) * len(columns) > 0       # a box
        assert len(rows) <= size and len(columns) <= size
        whole = rows[0] > 0 and rows[-1] < 9 and columns[0] > 0 and columns[-1] < 8
        assert not whole or (len(rows), len(columns)) == (size, size)
    assert hole.any(axis=2).all()                                       # each pixel in some


# --- two samples ----------------------------------------------------------------------------------

@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0])
def test_shares_have_a_beta_distribution(alpha):
    share = xn.MixUp(alpha).share(Draws(0, 0, np.arange(20_000)))
    assert (share >= 0).all() and (share <= 1).all()
    variance = 1 / (4 * (2 * alpha + 1))        # of Beta(alpha, alpha), whose mean is 1/2
    assert abs(share.mean() - 0.5) < 0.01 and abs(share.var() / variance - 1) < 0.03


def test_mixup_and_partners():
    mixing, draws = xn.MixUp(), Draws(0, 0, np.arange(6))
    y, share = mixing.mix(np, X, X[..., ::-1], draws)
    assert np.allclose(y, share * X + (1 - share) * X[..., ::-1], atol=1e-6)
    partners = Mixing.partners(Draws(0, 0, np.arange(9000)), 10)
    assert np.abs(np.bincount(partners, minlength=10) / 9000 - 0.1).max() < 0.02
    assert Mixing.partners(draws, 1).tolist() == [0] * 6


def test_cutmix():
    x, other = np.zeros((2, 20, 30, 1500), "float32"), np.ones((2, 20, 30, 1500), "float32")
    draws = Draws(3, 1, np.arange(1500))
    y, share = xn.CutMix().mix(np, x, other, draws)
    assert np.allclose(1 - y.mean(axis=(0, 1, 2)), share, atol=1e-6)
    assert 0.5 < share.mean() < 0.8             # boxes at the border are cut off
    wanted = xn.CutMix().share(draws)
    inner = np.abs(draws.uniform(2, start=CENTRE) - 0.5).max(axis=0) < 0.5 * (1 - (1 - wanted)**0.5
                                                                            ) - 0.05
    assert inner.sum() > 40 and np.abs(share - wanted)[inner].max() < 0.12
    for mixing in (xn.CutMix(), xn.MixUp()):
        with pytest.raises(TypeError, match="expected to be used by fit"):
            augmented(np, X, [mixing])


# --- bad input ------------------------------------------------------------------------------------

@pytest.mark.parametrize("make, message", [
    (lambda: xn.RandomCrop(-1), "RandomCrop: expected padding"),
    (lambda: xn.RandomCrop(border="wrap"), "RandomCrop: expected border"),
    (lambda: xn.RandomFlip(p=1.1), "RandomFlip: expected p"),
    (lambda: xn.RandomScale(1.2, 0.8), "RandomScale: expected scale to be a pair"),
    (lambda: xn.RandomAffine(scale=2), "RandomAffine: expected scale to be a pair"),
    (lambda: xn.ColorJitter(1.5), "ColorJitter: expected amount"),
    (lambda: xn.ColorJitter(hue=0.6), "ColorJitter: expected hue"),
    (lambda: xn.GaussianBlur((0, 1)), "GaussianBlur: expected sigma"),
    (lambda: xn.CutOut(0), "CutOut: expected size"),
    (lambda: xn.MixUp(2), "MixUp: expected alpha"),
    (lambda: augmented(np, X.astype(int), []), "augmented: expected images"),
    (lambda: augmented(np, X[0], []), "augmented: expected images"),
    (lambda: augmented(np, X, [], samples=[1]), "augmented: expected samples"),
])
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_augmentation():
    with pytest.raises(TypeError, match=r"augmented: expected augmentations.*Received: 'flip'"):
        augmented(np, X, ["flip"])
    with pytest.raises(NotImplementedError, match="Augmentation: expected a method change"):
        augmented(np, X, [Augmentation()])
