"""Images and drawings that the page sends, as inputs of a network."""

from __future__ import annotations

import numpy as np

from xpnet.data.images import decode_bytes
from xpnet.node import Node

WHO = "explore"
MOST_PIXELS = 50_000_000        # of an image file; a photograph has about 12 million


def drawn(body: bytes, node: Node) -> np.ndarray:
    """float32 numbers, little-endian, in the shape of an input."""
    count = int(np.prod(node.shape))
    if len(body) != 4 * count:
        raise ValueError(f"{WHO}: expected {count} float32 numbers, for an input of shape "
                         f"{node.shape}. Received: {len(body)} bytes.")
    x = np.frombuffer(body, "<f4").reshape(node.shape)
    if not np.isfinite(x).all():
        raise ValueError(f"{WHO}: expected finite numbers. Received: NaN or infinity among them.")
    return x


def pictured(body: bytes, node: Node, limits: tuple[float, float]) -> np.ndarray:
    """An image file, cropped at its centre and resized to the input; black becomes limits[0] and
    white limits[1]."""
    if len(node.shape) != 3 or node.shape[0] not in (1, 3):
        raise ValueError(f"{WHO}: expected an input (C, H, W) with 1 or 3 channels, for an image "
                         f"file. Received: the input {node.name} of shape {node.shape}.")
    pixels = decode_bytes(body, node.shape, "crop", WHO, most_pixels=MOST_PIXELS)
    low, high = limits
    return (low + (high - low) * (pixels / 255.0)).astype(np.float32)
