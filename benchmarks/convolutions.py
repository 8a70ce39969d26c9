"""The speed of single convolutions, in multiplications and additions per second.

Counted are the operations of the direct algorithm, 2 F C/groups KH KW OH OW N in each direction.
Winograd's algorithm needs fewer, so its figure can exceed the machine's peak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backends import Backend, Window

Call = Callable[[], object]
Noise = Callable[..., Any]          # makes an array of this shape
BATCHES = (32, 128)
DIRECTIONS = ("forward", "input", "filters")    # y, and the gradients with respect to x and W


@dataclass(frozen=True)
class Convolution:
    """`filters` filters of kernel x kernel on images of `channels` x size x size."""

    channels: int
    filters: int
    kernel: int
    size: int
    padding: str | int = 0
    stride: int = 1
    groups: int = 1

    @property
    def name(self) -> str:
        """64->128 3x3 half /2 @16: channels, filters, kernel, padding, stride, size."""
        maps, taps = f"{self.channels}->{self.filters}", f"{self.kernel}x{self.kernel}"
        padding, stride = str(self.padding or ""), f"/{self.stride}" if self.stride > 1 else ""
        groups = f"groups {self.groups}" if self.groups > 1 else ""
        return " ".join(filter(None, (maps, taps, padding, stride, groups, f"@{self.size}")))

    @property
    def window(self) -> Window:
        return Window.make(self.kernel, self.stride, self.padding)

    def operations(self, batch: int) -> int:
        """2 F C/groups KH KW OH OW N."""
        OH, OW = self.window.output_size(self.size, self.size)
        return (2 * self.filters * (self.channels // self.groups) * self.window.taps * OH * OW
                * batch)


CONVOLUTIONS = (
    Convolution(1, 8, 5, 28), Convolution(8, 8, 5, 24),  # numpy_cnn
    Convolution(1, 8, 3, 28, "half"), Convolution(8, 32, 5, 14, "half"),  # bilici
    Convolution(1, 6, 5, 32), Convolution(6, 16, 5, 14), Convolution(16, 120, 5, 5),  # lenet5
    Convolution(3, 64, 3, 32, "half"), Convolution(64, 64, 3, 32, "half"),  # vgg_small, resnet18
    Convolution(64, 128, 3, 16, "half"), Convolution(128, 128, 3, 16, "half"),
    Convolution(128, 256, 3, 8, "half"), Convolution(256, 256, 3, 8, "half"),
    Convolution(512, 512, 3, 4, "half"),  # resnet18
    Convolution(64, 128, 3, 32, "half", stride=2), Convolution(64, 128, 1, 32, stride=2),
    Convolution(64, 256, 1, 16),  # bottlenecks
    Convolution(64, 64, 3, 32, "half", groups=64),  # depthwise
)


def calls(backend: Backend, convolution: Convolution, batch: int,
          noise: Noise | None = None) -> Iterator[tuple[str, Call]]:
    """(direction, call) of each direction, on noise, which is drawn on the host by default."""
    rng = np.random.default_rng(0)
    noise = noise or (lambda *shape: backend.asarray(rng.standard_normal(shape, np.float32)))
    c, window = convolution, convolution.window
    OH, OW = window.output_size(c.size, c.size)
    x = noise(c.channels, c.size, c.size, batch)
    W = noise(c.filters, c.channels // c.groups, c.kernel, c.kernel)
    dy = noise(c.filters, OH, OW, batch)
    yield "forward", lambda: backend.conv2d(x, W, window, groups=c.groups)
    yield "input", lambda: backend.conv2d_dx(dy, W, x.shape, window, groups=c.groups)
    yield "filters", lambda: backend.conv2d_dW(x, dy, window, groups=c.groups)


def measure_convolutions(backend: Backend, batches: Sequence[int],
                         seconds_of: Callable[[Call], float]) -> list[dict[str, Any]]:
    """A row for each convolution, batch and direction."""
    return [{"convolution": convolution.name, "batch": batch, "direction": direction,
             "operations": convolution.operations(batch), "seconds": seconds_of(call)}
            for convolution in CONVOLUTIONS for batch in batches
            for direction, call in calls(backend, convolution, batch)]
