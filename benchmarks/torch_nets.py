"""The networks of the comparison in PyTorch.

tests/benchmarks/test_benchmarks_torch.py checks that they are the same as xpnet's: with equal
parameters they have equal outputs and gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from xpnet import Network
from xpnet.backends.activations import SCALE, SLOPE
from xpnet.models.digits import C3_TABLE, codes


def relu() -> nn.Module:
    return nn.ReLU(inplace=True)        # as torchvision's networks do; it saves a pass over memory


def numpy_cnn(width: float = 1) -> nn.Module:
    filters = int(8 * width)
    return nn.Sequential(
        nn.Conv2d(1, filters, 5), relu(), nn.Conv2d(filters, filters, 5), relu(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(100 * filters, 128), relu(), nn.Linear(128, 10),
    )


def bilici() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), relu(), nn.MaxPool2d(2),
        nn.Conv2d(8, 32, 5, padding=2), nn.BatchNorm2d(32), relu(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1568, 600), relu(), nn.Linear(600, 10),
    )


class ScaledTanh(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return SCALE * torch.tanh(SLOPE * x)


class Subsampling(nn.Module):
    """a[c] times the sum over 2x2 of channel c, plus b[c]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.full((channels,), 0.25))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sums = functional.avg_pool2d(x, 2, divisor_override=1)
        return sums * self.a[:, None, None] + self.b[:, None, None]


class TableConv2d(nn.Module):
    """A convolution with weights only for the filters and channels that the table connects."""

    def __init__(self, table: tuple[tuple[int, ...], ...], channels: int, kernel_size: int) -> None:
        super().__init__()
        self.shape = len(table), channels, kernel_size, kernel_size
        connections = [(f, channel) for f, row in enumerate(table) for channel in row]
        self.connections: torch.Tensor
        self.register_buffer("connections", torch.tensor(connections).T)  # filters, channels
        bound = (len(connections) / len(table) * kernel_size**2) ** -0.5
        weight = torch.empty(len(connections), kernel_size, kernel_size)
        self.weight = nn.Parameter(weight.uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.new_zeros(self.shape).index_put(tuple(self.connections), self.weight)
        return functional.conv2d(x, weight, self.bias)


class RBF(nn.Module):
    """-|x - code|^2 for each code, as 2 code.x - |code|^2 - |x|^2."""

    def __init__(self, codes: list[list[float]]) -> None:
        super().__init__()
        self.weight: torch.Tensor
        self.bias: torch.Tensor
        centres = torch.tensor(codes)
        self.register_buffer("weight", 2 * centres)
        self.register_buffer("bias", -(centres * centres).sum(dim=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias) - (x * x).sum(dim=1, keepdim=True)


def lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), ScaledTanh(), Subsampling(6), ScaledTanh(),
        TableConv2d(C3_TABLE, 6, 5), ScaledTanh(), Subsampling(16), ScaledTanh(),
        nn.Conv2d(16, 120, 5), ScaledTanh(), nn.Flatten(), nn.Linear(120, 84), ScaledTanh(),
        RBF(codes()),
    )


def vgg_small(width: float = 1) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for filters in (int(64 * width), int(128 * width), int(256 * width)):
        for _ in range(2):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), relu()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 4 * 4, 10))


def conv_bn(channels: int, filters: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels, filters, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return [conv, nn.BatchNorm2d(filters)]


class BasicBlock(nn.Module):
    """He et al. 2016, figure 2, with a projection if the shape changes."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn(channels, filters, 3, stride), relu(),
                                  *conv_bn(filters, filters, 3))
        same = stride == 1 and channels == filters
        self.shortcut = (nn.Identity() if same
                         else nn.Sequential(*conv_bn(channels, filters, 1, stride)))
        self.relu = relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """He et al. 2016, figure 5, with the stride in the 3x3 convolution, and a projection if the
    shape changes."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn(channels, filters, 1), relu(),
                                  *conv_bn(filters, filters, 3, stride), relu(),
                                  *conv_bn(filters, 4 * filters, 1))
        same = stride == 1 and channels == 4 * filters
        self.shortcut = (nn.Identity() if same
                         else nn.Sequential(*conv_bn(channels, 4 * filters, 1, stride)))
        self.relu = relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Module:
    layers = [*conv_bn(3, 64, 3), relu()]
    channels = 64
    for stage, filters in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(BasicBlock(channels, filters, stride))
            channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def resnet50() -> nn.Module:
    layers = [*conv_bn(3, 64, 7, 2), relu(), nn.MaxPool2d(3, stride=2, padding=1)]
    channels = 64
    for stage, (filters, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(Bottleneck(channels, filters, stride))
            channels = 4 * filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


NETS: dict[str, Callable[[], nn.Module]] = {
    "numpy_cnn": numpy_cnn, "bilici": bilici, "lenet5": lenet5, "vgg_small": vgg_small,
    "resnet18": resnet18, "resnet50": resnet50,
}
WIDE: dict[str, Callable[[float], nn.Module]] = {"numpy_cnn": numpy_cnn, "vgg_small": vgg_small}


def copy_parameters(net: Network, model: nn.Module) -> None:
    """Copy the parameters of xpnet's `net` to `model`; both have their layers in the same order."""
    ours = [p for layer in net.layers for p in layer.parameters]
    with torch.no_grad():
        for p, q in zip(ours, model.parameters(), strict=True):
            if tuple(q.shape) != p.shape:
                raise ValueError(f"copy_parameters: expected shape {p.shape} for {p.name}. "
                                 f"Received: {tuple(q.shape)}.")
            q.copy_(torch.tensor(net.backend.to_numpy(p.data)))
