"""Data sets of real photographs that come with packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiers import full

import xpnet as xn


@full
def test_faces_and_other_patches(backend: xn.Backend):
    """100 faces and 100 patches without one, 25x25 pixels: a small network tells them apart."""
    skimage = pytest.importorskip("skimage", reason="scikit-image is not installed")
    images = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")
    data = xn.data.Dataset(images[:, None].astype(np.float32), np.arange(200) // 100,
                           classes=["face", "other"]).split(0.3, seed=0)
    net = xn.Sequential([
        xn.Conv2d(8, 5, activation="relu"), xn.MaxPool2d(3),
        xn.Conv2d(16, 3, activation="relu"), xn.MaxPool2d(2), xn.Flatten(), xn.Linear(2),
    ], input_shape=data.shape, backend=backend, seed=0)
    net.fit(data, optimizer=xn.AdamW(5e-3), epochs=15, batch_size=20, augment=xn.RandomFlip(),
            verbose=False)
    assert net.classes == ("face", "other")
    assert net.evaluate(data.validation)["accuracy"] >= 0.95
