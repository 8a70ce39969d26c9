"""Occlusion: how much a class score falls if a part of the image is covered."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Window
from xpnet.checks import expect_integer, expect_number, finite_array, wrong
from xpnet.explain.scores import expect_targets, scores_of
from xpnet.graph import Graph
from xpnet.training.prediction import values_of

WHO = "occlusion"


def occlusion(net: Graph, x: Any, target: int | None = None, *, size: int = 3, stride: int = 1,
              fill: float = 0.0, batch_size: int = 256) -> np.ndarray:
    """The occlusion map D[i, j] = S(x) - S(x[i, j]) of a class score S: x[i, j] is x with a covered
    square, whose first pixel is (i stride, j stride). D is large where the score depends on it.

    x (C, H, W) -> D (OH, OW), OH = (H - size) // stride + 1. The score is the network's output, or
    what its last softmax reads. It takes OH OW + 1 predictions. Zeiler and Fergus 2014,
    section 4.2.

    Args:
        net: a network with one input of images and one output of class scores.
        x: one sample (C, H, W).
        target: a class; by default the one with the largest score.
        size: rows and columns of the square.
        stride: from one square to the next.
        fill: what covers the pixels, in all channels.
        batch_size: images of a forward pass.

    Raises:
        ValueError: the network, x or the target do not fit, or the square is larger than x.
    """
    score = scores_of(WHO, net)
    x = finite_array(x, f"{WHO}: x").astype(net.dtype)
    if x.ndim != 3:
        raise ValueError(f"{WHO}: expected x to be one image (C, H, W). Received: shape {x.shape}.")
    size, stride = expect_integer(WHO, "size", size), expect_integer(WHO, "stride", stride)
    fill = expect_number(WHO, "fill", fill)
    OH, OW = Window.make(size, stride, who=WHO).output_size(*x.shape[1:], who=WHO)
    batch_size = expect_integer(WHO, "batch_size", batch_size)
    if target is not None and not np.isscalar(target):
        raise wrong(WHO, "target to be None or a class", "target", target)
    targets = expect_targets(WHO, target, 1, score.shape[0])
    before = values_of(net, x[None], [score], 1, WHO)[0][0]             # (K,)
    k = int(before.argmax()) if targets is None else int(targets[0])
    places = [(i * stride, j * stride) for i in range(OH) for j in range(OW)]
    after = np.empty(len(places), net.dtype)
    for first in range(0, len(places), batch_size):     # not all images at once
        some = places[first:first + batch_size]
        covered = np.repeat(x[None], len(some), axis=0)
        for image, (top, left) in zip(covered, some, strict=True):
            image[:, top:top + size, left:left + size] = fill
        after[first:first + len(some)] = values_of(net, covered, [score], batch_size, WHO)[0][:, k]
    return (before[k] - after).reshape(OH, OW)
