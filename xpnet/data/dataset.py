"""What every data set of this package is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Pictures and labels, to learn from and to be tested on: `x_train, y_train, x_test, y_test =
    digits()`.

    x (N, C, H, W) float32 in [0, 1], batch first as people hold them; y (N,) int64, the class's
    number.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
