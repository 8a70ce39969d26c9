"""What several networks are made of."""

from __future__ import annotations

from xpnet.layers import BatchNorm2d, Conv2d
from xpnet.node import Node


def conv_bn(h: Node, filters: int, kernel_size: int, *, stride: int = 1,
            activation: str | None = "relu", eps: float = 1e-5) -> Node:
    """A convolution without a bias, (C, H, W) -> (filters, H / stride, W / stride), batch norm, and
    the activation."""
    conv = Conv2d(filters, kernel_size, stride=stride, padding="half", bias=False,
                  init="he_normal")
    return BatchNorm2d(eps=eps, activation=activation)(conv(h))
