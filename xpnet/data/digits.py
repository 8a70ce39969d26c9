"""1,797 handwritten digits of 8 x 8 pixels, which come with scikit-learn: no download."""

from __future__ import annotations

import numpy as np

from xpnet.checks import expect_integer

from .dataset import Dataset


def digits(seed: int = 0) -> Dataset:
    """The digits, four fifths to learn from and one fifth to be tested on, each class in the same
    proportion in both.

        x = pixel / 16,  pixel in 0 ... 16

    x (1437, 1, 8, 8) and (360, 1, 8, 8) float32, y int64. The same seed gives the same split.
    Raises ImportError where scikit-learn is missing.
    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998; scikit-learn bundles its test part.
    """
    seed = expect_integer("digits", "seed", seed, 0, 2**32 - 1)
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(
            "digits: expected scikit-learn, which brings the pictures. "
            f'Received: {error}. Remedy: pip install "xpnet[data]"'
        ) from error

    bundle = load_digits()
    x = (bundle.images / 16).astype(np.float32)[:, None]   # (N, 1, 8, 8)
    y = bundle.target.astype(np.int64)                     # (N,)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, stratify=y,
                                                        random_state=seed)
    return Dataset(x_train, y_train, x_test, y_test)
