"""PyTorch's matrix products and convolutions: cuBLAS and cuDNN, in both memory layouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.contenders import Job
from benchmarks.convolutions import Convolution
from benchmarks.gpu.shapes import Product
from benchmarks.gpu.timing import HOLD, Call, Timer, clock_timer, event_timer
from benchmarks.torch_side import about_pytorch, choose_math

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def prepare(job: Job) -> None:
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    choose_math(job)


def device(job: Job) -> torch.device:
    return torch.device("cuda" if job.device == "gpu" else "cpu")


def torch_calls(job: Job, what: Product | Convolution, batch: int) -> Iterator[tuple[str, Call]]:
    """(direction, call) of each direction, on noise; for a convolution, in each layout."""
    if isinstance(what, Convolution):
        for layout in LAYOUTS:
            yield from _convolution(what, batch, device(job), layout)
        return
    W, x, dy = (torch.randn(*shape, device=device(job)) for shape in what.shapes())
    yield "forward", lambda: torch.mm(W, x)
    yield "input", lambda: torch.mm(W.T, dy)
    yield "filters", lambda: torch.mm(dy, x.T)


def _convolution(c: Convolution, batch: int, where: torch.device,
                 layout: torch.memory_format) -> Iterator[tuple[str, Call]]:
    top, _, left, _ = c.window.padding
    OH, OW = c.window.output_size(c.size, c.size)
    shapes = ((batch, c.channels, c.size, c.size),
              (c.filters, c.channels // c.groups, c.kernel, c.kernel), (batch, c.filters, OH, OW))
    x, W, dy = (torch.randn(*shape, device=where).contiguous(memory_format=layout)
                for shape in shapes)

    def backward(*mask: bool) -> object:
        return torch.ops.aten.convolution_backward(dy, x, W, None, (c.stride, c.stride),
                                                   (top, left), (1, 1), False, (0, 0),
                                                   c.groups, list(mask))

    yield "forward", lambda: torch.nn.functional.conv2d(x, W, None, c.stride, (top, left), 1,
                                                        c.groups)
    yield "input", lambda: backward(True, False, False)
    yield "filters", lambda: backward(False, True, False)


def timer(job: Job) -> Timer:
    """A timer with PyTorch's events; on a CPU, which only the tests use, with a clock."""
    if job.device == "cpu":
        return clock_timer()
    size = min(HOLD, torch.cuda.mem_get_info()[0] // 8)
    source, target = (torch.zeros(size, dtype=torch.uint8, device="cuda") for _ in range(2))
    return event_timer(lambda: torch.cuda.Event(enable_timing=True),
                       lambda start, stop: start.elapsed_time(stop) / 1000,
                       lambda: target.copy_(source), lambda event: event.query())


def about(job: Job) -> dict[str, Any]:
    return about_pytorch(job.device)
