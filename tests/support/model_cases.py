"""The networks of xpnet.models with images as small as they can take."""

from __future__ import annotations

from typing import Any

SMALLEST = {
    "mlp": (1, 4, 4), "numpy_cnn": (1, 16, 16), "bilici": (1, 8, 8), "lecun1989": (1, 20, 20),
    "lenet5": (1, 28, 28), "alexnet": (3, 63, 63), "zfnet": (3, 63, 63), "vgg16": (3, 32, 32),
    "googlenet": (3, 32, 32), "resnet18": (3, 8, 8), "resnet34": (3, 8, 8),
    "resnet50": (3, 32, 32), "densenet121": (3, 32, 32), "all_cnn": (3, 16, 16),
    "squeezenet1_0": (3, 32, 32), "squeezenet1_1": (3, 32, 32), "mobilenet_v2": (3, 32, 32),
    "unet": (1, 16, 16), "espcn": (1, 8, 8), "conv_autoencoder": (1, 8, 8),
    "siamese": (1, 20, 20), "char_lstm": (7,), "crnn": (1, 32, 12),
}
SETTINGS: dict[str, dict[str, Any]] = {"unet": {"padding": "half", "filters": 4, "depth": 2}}
LARGE = ["alexnet", "zfnet", "vgg16"]       # tens of millions of parameters for any image
