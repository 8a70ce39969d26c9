"""Which pixels a class score depends on: gradients, and their mean over noisy copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import expect_integer, expect_number, expect_seed, finite_array
from xpnet.explain.scores import score_gradients
from xpnet.graph import Graph
from xpnet.initializers import generator


def saliency(net: Graph, x: Any, target: Any = None) -> np.ndarray:
    """The saliency map M[n, i, j] = max over c of |d S / d x[n, c, i, j]| of a class score S.

    x (N, C, H, W) -> M (N, H, W). The score is the network's output, or what its last softmax
    reads. The network is in prediction mode. Simonyan et al. 2014, section 3.1.

    Args:
        net: a network with one input of images and one output of class scores.
        x: samples (N, C, H, W), one batch.
        target: a class, or one for each sample; by default the class with the largest score.

    Raises:
        ValueError: the network, x or the target do not fit.
    """
    return over_channels("saliency", score_gradients("saliency", net, x, target).gradient)


def smooth_gradient(net: Graph, x: Any, target: Any = None, *, samples: int = 25,
                    noise: float = 0.15, seed: int = 0) -> np.ndarray:
    """The gradient of a class score, averaged over noisy copies of x: (N, C, H, W).

    1/T sum over t of dS/dx (x + e_t), e_t normal with standard deviation `noise` (max x - min x),
    T = samples. The maximum of its absolute values over the channels is a saliency map with less
    noise. Smilkov et al. 2017, section 2.

    Args:
        net: a network with one input of images and one output of class scores.
        x: samples (N, C, H, W), one batch.
        target: a class, or one for each sample; by default the class with the largest score of x
            without noise.
        samples: the number of noisy copies, T.
        noise: the standard deviation, as a part of the range of each sample.
        seed: of the noise.

    Raises:
        ValueError: the network, x or the target do not fit.
    """
    who = "smooth_gradient"
    samples = expect_integer(who, "samples", samples)
    noise, seed = expect_number(who, "noise", noise, 0), expect_seed(who, seed)
    targets = score_gradients(who, net, x, target).targets
    x = finite_array(x, f"{who}: x").astype(net.dtype)
    axes = tuple(range(1, x.ndim))
    spread = noise * (x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True))
    rng, total = generator(seed, who), np.zeros(x.shape)
    for _ in range(samples):
        noisy = x + (spread * rng.standard_normal(x.shape)).astype(net.dtype)
        total += score_gradients(who, net, noisy, targets).gradient
    return total / samples


def over_channels(who: str, gradient: np.ndarray) -> np.ndarray:
    """max over c of |g[n, c, i, j]|: (N, H, W)."""
    if gradient.ndim != 4:
        raise ValueError(f"{who}: expected images (N, C, H, W). Received: shape {gradient.shape}.")
    return np.abs(gradient).max(axis=1)
