"""The random numbers of augmentations."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.augment.draws import Draws, philox

# Known answers of the generator: counter, key, words (published with Random123).
ONES = 0xFFFFFFFF
ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize("counter, key, words", ANSWERS)
def test_philox_gives_the_published_words(counter, key, words):
    found = philox([np.array([word, word], np.uint64) for word in counter], key)
    assert [a.tolist() for a in found] == [[word, word] for word in words]


def test_numbers_belong_to_the_sample():
    """Not to its place in the batch, nor to the other samples; each augmentation, epoch, seed and
    sample has others."""
    samples = np.array([7, 2**40 + 7, 0, 3])
    u = Draws(5, 2, samples, 1).uniform(6)
    assert u.shape == (6, 4) and u.dtype == np.float64 and len(np.unique(u)) == u.size
    for n, sample in enumerate(samples):
        assert np.array_equal(Draws(5, 2, [sample], 1).uniform(6)[:, 0], u[:, n])
    others = [Draws(6, 2, samples, 1), Draws(5, 3, samples, 1), Draws(5, 2, samples, 0),
              Draws(5, 2, samples + 1, 1), Draws(5 + 2**32, 2, samples, 1)]
    assert all(not np.isin(other.uniform(6), u).any() for other in others)
    assert np.array_equal(Draws(5, 2, samples, 1).uniform(3, start=2), u[2:5])
    assert np.array_equal(Draws(5, 2, samples, 1).uniform(9)[:6], u)


def test_distributions():
    draws = Draws(0, 0, np.arange(20_000))
    u, z = draws.uniform(4), draws.normal(4)
    assert 0 < u.min() and u.max() < 1
    assert np.abs(np.histogram(u, 10, (0, 1))[0] / u.size - 0.1).max() < 0.005
    assert abs(np.corrcoef(u)[np.triu_indices(4, 1)]).max() < 0.03
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02 and abs((z**3).mean()) < 0.05
    assert abs((np.abs(z) < 1).mean() - 0.6827) < 0.01
