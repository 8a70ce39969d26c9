"""Siamese networks: the same layers read two inputs."""

from __future__ import annotations

from typing import Any

from xpnet.backends import Backend
from xpnet.graph import Input, chain
from xpnet.layer import Shape
from xpnet.layers import Abs, Conv2d, Flatten, Linear, MaxPool2d, Subtract
from xpnet.network import Network


def siamese(input_shape: Shape = (1, 28, 28), *, features: int = 64,
            backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Network:
    """A siamese network: the same convolutional layers read two images, and a linear layer weights
    the distances between their features, Y = w^T |F(X1) - F(X2)| + b; 46,145 parameters for images
    of 28x28 pixels.

    The inputs are "first" and "second": fit({"first": x1, "second": x2}, y, loss=
    "binary_cross_entropy"), y (N, 1) is 1 for images of one class. Y (1, N) is the logit of that.
    The features of an image are the output of the layer "features".

    Args:
        features: numbers that describe an image.

    Bromley et al. 1993; the distance of Koch et al. 2015, section 3.1, with a smaller network.
    """
    layers = [Conv2d(16, 5, activation="relu"), MaxPool2d(2),
              Conv2d(32, 5, activation="relu"), MaxPool2d(2), Flatten(),
              Linear(features, activation="sigmoid", name="features")]
    first, second = Input(input_shape, name="first"), Input(input_shape, name="second")
    ends = [chain("siamese", layers, image) for image in (first, second)]
    y = Linear(1)(Abs()(Subtract()(*ends)))
    return Network({"first": first, "second": second}, y, backend=backend, dtype=dtype, seed=seed)
