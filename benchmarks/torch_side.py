"""PyTorch's side of the competition: the same networks, eager in two memory layouts, and as CUDA graphs.

tests/test_benchmarks_torch.py shows that the networks are the same: with our parameters they give our outputs and gradients.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.contenders import LEARNING_RATE, Job, sample_batch
from xpnet import Network
from xpnet.backends.activations import SCALE, SLOPE
from xpnet.lenet_codes import codes
from xpnet.models import C3_TABLE

WARM_UP = 3             # steps before a capture, as PyTorch's notes on CUDA graphs ask for: they choose algorithms


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
        self.a, self.b = nn.Parameter(torch.full((channels,), 0.25)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(x, 2, divisor_override=1) * self.a[:, None, None] + self.b[:, None, None]


class TableConv2d(nn.Module):
    """A convolution with weights only where the table connects a filter to a channel."""

    def __init__(self, table: tuple[tuple[int, ...], ...], channels: int, kernel_size: int) -> None:
        super().__init__()
        self.shape = len(table), channels, kernel_size, kernel_size
        connections = [(f, channel) for f, row in enumerate(table) for channel in row]
        self.connections: torch.Tensor
        self.register_buffer("connections", torch.tensor(connections).T)            # filters, channels
        bound = (len(connections) / len(table) * kernel_size**2) ** -0.5
        self.weight = nn.Parameter(torch.empty(len(connections), kernel_size, kernel_size).uniform_(-bound, bound))
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
        nn.Conv2d(16, 120, 5), ScaledTanh(), nn.Flatten(), nn.Linear(120, 84), ScaledTanh(), RBF(codes()),
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
    """He et al. 2016, figure 2, with a projection where the shape changes."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn(channels, filters, 3, stride), relu(), *conv_bn(filters, filters, 3))
        same = stride == 1 and channels == filters
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(channels, filters, 1, stride))
        self.relu = relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Module:
    layers = [*conv_bn(3, 64, 3), relu()]
    channels = 64
    for stage, filters in enumerate((64, 128, 256, 512)):
        for block in range(2):
            layers.append(BasicBlock(channels, filters, stride=2 if stage > 0 and block == 0 else 1))
            channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def load_all() -> None:
    """Make PyTorch import now what it imports when an optimizer is made: some 70 MB that are no step's."""
    torch.optim.Adam([nn.Parameter(torch.zeros(1))])


NETS: dict[str, Callable[[], nn.Module]] = {
    "numpy_cnn": numpy_cnn, "bilici": bilici, "lenet5": lenet5, "vgg_small": vgg_small, "resnet18": resnet18,
}
WIDE: dict[str, Callable[[float], nn.Module]] = {"numpy_cnn": numpy_cnn, "vgg_small": vgg_small}


def copy_parameters(net: Network, model: nn.Module) -> None:
    """Give `model` the parameters of our `net`; both list their layers in the same order."""
    ours = [p for layer in net.layers for p in layer.parameters]
    with torch.no_grad():
        for p, q in zip(ours, model.parameters(), strict=True):
            if tuple(q.shape) != p.shape:
                raise ValueError(f"copy_parameters: expected shape {p.shape} for {p.name}. Received: {tuple(q.shape)}.")
            q.copy_(torch.tensor(net.backend.to_numpy(p.data)))


class Eager:
    """PyTorch as it runs line by line, in layout "nchw" or "nhwc" (channels last); a Runner."""

    capturable = False

    def __init__(self, job: Job, layout: str, batch: int) -> None:
        torch.set_num_threads(job.threads)
        torch.manual_seed(0)
        self.device = torch.device("cuda" if job.device == "gpu" else "cpu")
        if job.device == "gpu":
            torch.backends.cuda.matmul.allow_tf32 = job.tf32
            torch.backends.cudnn.allow_tf32 = job.tf32
            torch.backends.cudnn.benchmark = True               # the fastest of cuDNN's algorithms for these shapes
        memory_format = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}[layout]
        images, labels = sample_batch(job.net, batch)
        self.x = torch.tensor(images, device=self.device).contiguous(memory_format=memory_format)
        self.labels = torch.tensor(labels, device=self.device)
        model = NETS[job.net]() if job.width == 1 else WIDE[job.net](job.width)
        self.model = model.to(self.device, memory_format=memory_format)               # type: ignore[call-overload]
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE, capturable=self.capturable,
                                          fused=True if job.fused_adam else None)

    def train(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(self.model(self.x), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss

    @torch.inference_mode()
    def predict(self) -> torch.Tensor:
        return self.model(self.x)

    def step(self, mode: str) -> Callable[[], torch.Tensor]:
        self.model.train(mode == "train")
        return self.train if mode == "train" else self.predict

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def finite(self, value: torch.Tensor) -> bool:
        return bool(torch.isfinite(value).all())

    def about(self) -> dict[str, Any]:
        versions = {"PyTorch": str(torch.__version__)}
        if self.device.type == "cpu":
            return {"versions": versions, "kernels": cpu_kernels()}
        versions |= {"CUDA of PyTorch": str(torch.version.cuda), "cuDNN": str(torch.backends.cudnn.version())}
        tf32 = f"TF32 {onoff(torch.backends.cuda.matmul.allow_tf32)} in products, " \
               f"{onoff(torch.backends.cudnn.allow_tf32)} in convolutions"
        return {"versions": versions, "kernels": f"cuBLAS and cuDNN, the fastest algorithms chosen by timing, {tf32}",
                "device": torch.cuda.get_device_name()}


class Captured(Eager):
    """PyTorch with the whole step captured once as a CUDA graph, and replayed."""

    capturable = True                   # Adam must keep its count of steps on the GPU

    def step(self, mode: str) -> Callable[[], torch.Tensor]:
        work = super().step(mode)
        side = torch.cuda.Stream()      # a capture may not follow work on the default stream
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)      # so that backward makes gradients in the graph's own memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value = work()

        def replay() -> torch.Tensor:
            graph.replay()
            return value
        return replay


def cpu_kernels() -> str:
    """Which libraries do PyTorch's products, and for which processor they chose their kernels."""
    config = torch.__config__.show()
    found = [re.search(r"BLAS_INFO=(\w+)", config), re.search(r"MKL-DNN v([\w.]+)", config)]
    names = [f"{name} {match[1]}" for name, match in zip(("BLAS", "oneDNN"), found) if match]
    return ", ".join([*names, f"{torch.backends.cpu.get_cpu_capability()} kernels"])


def onoff(flag: bool) -> str:
    return "on" if flag else "off"
