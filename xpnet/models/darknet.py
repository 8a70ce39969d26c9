"""The classifiers whose weights Darknet's authors published. They are written as cfg files, and
read as `xn.io.load_darknet` reads them.

`weights` is the name of a weights file, e.g. the published "darknet19.weights"; without it, values
are initial ones. `xn.io.save_darknet(net, "darknet19.cfg")` writes the cfg file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpnet.backends import Backend
from xpnet.checks import expect_shape
from xpnet.io.darknet import network_from_text
from xpnet.layer import Shape
from xpnet.models.classes import Classes, count, named
from xpnet.network import Network

if TYPE_CHECKING:
    from pathlib import Path

# --- parts of cfg files ---------------------------------------------------------------------------


def section(kind: str, **options: object) -> str:
    return "\n".join([f"[{kind}]", *(f"{key}={value}" for key, value in options.items()), "", ""])


def conv(filters: int, size: int, stride: int = 1, activation: str = "leaky") -> str:
    """A convolution that keeps rows and columns, or divides them by the stride, and batch norm."""
    return section("convolutional", batch_normalize=1, filters=filters, size=size, stride=stride,
                   pad=1, activation=activation)


def linear(filters: Any) -> str:
    """A 1x1 convolution with biases, without batch norm and activation."""
    return section("convolutional", filters=filters, size=1, stride=1, pad=1, activation="linear")


def pool(size: int = 2, stride: int = 2) -> str:
    return section("maxpool", size=size, stride=stride)


def route(*layers: int, **options: int) -> str:
    return section("route", layers=",".join(map(str, layers)), **options)


def shortcut(before: int, activation: str = "linear") -> str:
    return section("shortcut", **{"from": before, "activation": activation})


def between(filters: int, convolutions: int) -> str:
    """3x3 convolutions to `filters` maps, with 1x1 convolutions to half as many between them."""
    return "".join(conv(filters // 2, 1) if number % 2 else conv(filters, 3)
                   for number in range(convolutions))


def made(who: str, input_shape: Shape, layers: str, weights: str | Path | None,
         backend: str | Backend, dtype: Any, seed: int) -> Network:
    """The network of a cfg file with [net] and these layers."""
    shape = expect_shape(who, "an input shape (channels, height, width)", input_shape)
    if len(shape) != 3:
        raise ValueError(f"{who}: expected an input shape (channels, height, width). Received: "
                         f"{shape}.")
    net = section("net", width=shape[2], height=shape[1], channels=shape[0])
    return network_from_text(net + layers, f"{who}.cfg", weights, backend=backend, dtype=dtype,
                             seed=seed)


# --- the parts that detectors share ---------------------------------------------------------------

def layers19() -> str:
    """The convolutions of Darknet-19 without the last one."""
    return (conv(32, 3) + pool() + conv(64, 3) + pool() + between(128, 3) + pool()
            + between(256, 3) + pool() + between(512, 5) + pool() + between(1024, 5))


def layers53() -> str:
    """The convolutions of Darknet-53 without the last one: 75 sections."""
    text = conv(32, 3)
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        text += conv(filters, 3, 2)
        text += (conv(filters // 2, 1) + conv(filters, 3) + shortcut(-3)) * blocks
    return text


def head(classes: Any) -> str:
    """Means of the feature maps, and probabilities of the classes."""
    return section("avgpool") + linear(classes) + section("softmax", groups=1)


def map_head(classes: Any) -> str:
    """A feature map for each class, the means of these maps, and probabilities of the classes."""
    return linear(classes) + section("avgpool") + section("softmax", groups=1)


# --- classifiers ----------------------------------------------------------------------------------

def darknet19(input_shape: Shape = (3, 256, 256), *, classes: Classes = 1000,
              weights: str | Path | None = None, backend: str | Backend = "auto",
              dtype: Any = "float32", seed: int = 0) -> Network:
    """Darknet-19: 19 convolutions of 3x3 and 1x1 and five max-pools; 20,842,376 parameters for
    1,000 classes.

    Redmon and Farhadi 2017, table 6.
    """
    layers = layers19() + map_head(count("darknet19", classes))
    return named(made("darknet19", input_shape, layers, weights, backend, dtype, seed), classes)


def darknet53(input_shape: Shape = (3, 256, 256), *, classes: Classes = 1000,
              weights: str | Path | None = None, backend: str | Backend = "auto",
              dtype: Any = "float32", seed: int = 0) -> Network:
    """Darknet-53: 52 convolutions in residual blocks and a last one; 41,609,928 parameters for
    1,000 classes.

    Redmon and Farhadi 2018, table 1.
    """
    layers = layers53() + head(count("darknet53", classes))
    return named(made("darknet53", input_shape, layers, weights, backend, dtype, seed), classes)


def darknet_tiny(input_shape: Shape = (3, 224, 224), *, classes: Classes = 1000,
                 weights: str | Path | None = None, backend: str | Backend = "auto",
                 dtype: Any = "float32", seed: int = 0) -> Network:
    """Tiny Darknet: 3x3 convolutions with 1x1 convolutions to an eighth of the maps between them;
    1,042,104 parameters for 1,000 classes.

    Redmon 2016, Darknet's page of classifiers (tiny.cfg).
    """
    layers = conv(16, 3) + pool() + conv(32, 3) + pool()
    for filters in (128, 256, 512):
        layers += (conv(filters // 8, 1) + conv(filters, 3)) * 2
        layers += pool() if filters < 512 else conv(128, 1)
    layers += map_head(count("darknet_tiny", classes))
    return named(made("darknet_tiny", input_shape, layers, weights, backend, dtype, seed), classes)


def darknet_resnet50(input_shape: Shape = (3, 256, 256), *, classes: Classes = 1000,
                     weights: str | Path | None = None, backend: str | Backend = "auto",
                     dtype: Any = "float32", seed: int = 0) -> Network:
    """ResNet-50 in Darknet's form: leaky ReLU, and shortcuts without weights that drop every second
    row and column and add to the first maps only; 22,780,456 parameters for 1,000 classes.

    He et al. 2016, table 1 and option A.
    """
    layers = conv(64, 7, 2) + pool()
    for stage, depth in enumerate((3, 4, 6, 3)):
        filters = 64 * 2**stage
        for number in range(depth):
            layers += conv(filters, 1) + conv(filters, 3, 2 if stage > 0 and number == 0 else 1)
            layers += conv(4 * filters, 1, activation="linear") + shortcut(-4, "leaky")
    layers += head(count("darknet_resnet50", classes))
    net = made("darknet_resnet50", input_shape, layers, weights, backend, dtype, seed)
    return named(net, classes)


def darknet_densenet201(input_shape: Shape = (3, 256, 256), *, classes: Classes = 1000,
                        weights: str | Path | None = None, backend: str | Backend = "auto",
                        dtype: Any = "float32", seed: int = 0) -> Network:
    """DenseNet-201 in Darknet's form: batch norm and leaky ReLU after each convolution, and four
    blocks of 6, 12, 48 and 32 layers that each add 32 feature maps; 17,173,160 parameters for 1,000
    classes.

    Huang et al. 2017, table 1.
    """
    layers = conv(64, 7, 2) + pool()
    for depth, maps in ((6, 128), (12, 256), (48, 512), (32, 0)):
        layers += (conv(128, 1) + conv(32, 3) + route(-1, -3)) * depth
        layers += conv(maps, 1) + pool() if maps else ""
    layers += head(count("darknet_densenet201", classes))
    net = made("darknet_densenet201", input_shape, layers, weights, backend, dtype, seed)
    return named(net, classes)
