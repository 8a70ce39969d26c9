"""Networks whose output is an image: segmentation, super-resolution, and an autoencoder."""

from __future__ import annotations

from typing import Any

from xpnet.backends import Backend
from xpnet.checks import expect_choice, expect_integer
from xpnet.graph import Input
from xpnet.layer import Shape
from xpnet.layers import (
    Concat,
    Conv2d,
    ConvTranspose2d,
    Crop2d,
    Dropout,
    MaxPool2d,
    PixelShuffle,
    Sigmoid,
)
from xpnet.models.classes import Classes, count, named
from xpnet.network import Network, Sequential
from xpnet.node import Node

MOST_LEVELS = 16


def unet(input_shape: Shape = (1, 572, 572), *, classes: Classes = 2, filters: int = 64,
         depth: int = 4, padding: str = "valid", backend: str | Backend = "auto",
         dtype: Any = "float32", seed: int = 0) -> Network:
    """U-Net: convolutions and max-pools down, transposed convolutions up, and at each size the maps
    of the way down beside those of the way up; 31,030,658 parameters for images of 572x572
    pixels, one channel and two classes.

    The output is (classes, H', W'), the logits of each pixel. With padding="valid", as in the
    paper, convolutions lose their border, and 572x572 pixels give 388x388. With padding="half" they
    keep it, and H' x W' is H x W; then H and W have to be multiples of 2^depth.

    Args:
        filters: of the first convolutions; each level down has twice as many.
        depth: levels below the first.
        padding: "valid" or "half".

    Ronneberger et al. 2015, figure 1.
    """
    padding = expect_choice("unet", "padding", padding, ("valid", "half"))
    filters = expect_integer("unet", "filters", filters)
    depth = expect_integer("unet", "depth", depth, 1, MOST_LEVELS)
    x = Input(input_shape)
    h, levels = _two_convolutions(x, filters, padding), []
    for level in range(1, depth + 1):
        levels.append(h)
        h = MaxPool2d(2)(h)
        if level == depth:
            h = Dropout(0.5)(h)
        h = _two_convolutions(h, filters * 2**level, padding)
    for level in reversed(range(depth)):
        h = ConvTranspose2d(filters * 2**level, 2, stride=2, init="he_normal")(h)
        h = Concat()(_cropped(levels[level], h), h)
        h = _two_convolutions(h, filters * 2**level, padding)
    y = Conv2d(count("unet", classes), 1)(h)
    return named(Network(x, y, backend=backend, dtype=dtype, seed=seed), classes)


def _two_convolutions(h: Node, filters: int, padding: str) -> Node:
    for _ in range(2):
        h = Conv2d(filters, 3, padding=padding, activation="relu", init="he_normal")(h)
    return h


def _cropped(larger: Node, smaller: Node) -> Node:
    """The middle of maps, as large as other maps."""
    rows, columns = (size - wanted for size, wanted in zip(larger.shape[1:], smaller.shape[1:],
                                                           strict=True))
    crop = Crop2d((rows // 2, (rows + 1) // 2, columns // 2, (columns + 1) // 2))
    return crop(larger) if rows or columns else larger


def espcn(input_shape: Shape = (1, 32, 32), *, upscale_factor: int = 3,
          backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Sequential:
    """ESPCN: super-resolution by three convolutions of the small image, of which the last makes
    the r^2 pixels of the large image for each of the small one; 22,729 parameters for one channel
    of 32x32 pixels, which becomes 96x96, or any other size.

    (C, H, W) -> (C, r H, r W), r = upscale_factor.

    Shi et al. 2016, section 3.2; tanh as in its figure 5.
    """
    channels = Input(input_shape).shape[0]
    upscale_factor = expect_integer("espcn", "upscale_factor", upscale_factor)
    return Sequential([
        Conv2d(64, 5, padding="half", activation="tanh"),
        Conv2d(32, 3, padding="half", activation="tanh"),
        Conv2d(channels * upscale_factor**2, 3, padding="half"), PixelShuffle(upscale_factor),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed)


def conv_autoencoder(input_shape: Shape = (1, 28, 28), *, filters: int = 16, code: int = 8,
                     backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0
                     ) -> Sequential:
    """A convolutional autoencoder: two convolutions of stride 2 to a code of few maps, and two
    transposed convolutions back to the image; 2,633 parameters for one channel of 28x28 pixels, or
    of any H and W that are multiples of 4.

    The code is the output of the layer "code": net.up_to("code"). The outputs are between 0 and 1.

    Args:
        filters: of the first convolution and of the last but one.
        code: maps of the code, (code, H / 4, W / 4).

    After Masci et al. 2011, with strides in place of its max-pools.
    """
    channels = Input(input_shape).shape[0]
    return Sequential([
        Conv2d(filters, 3, stride=2, padding=1, activation="relu"),
        Conv2d(code, 3, stride=2, padding=1, activation="relu", name="code"),
        ConvTranspose2d(filters, 3, stride=2, padding=1, output_padding=1, activation="relu"),
        ConvTranspose2d(channels, 3, stride=2, padding=1, output_padding=1), Sigmoid(),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed)
