"""xpnet.functional on the arrays of a GPU, here the emulated ones of fake_cupy.py: results are the
same as on the CPU, and on the device of the arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from parity import distance, normal
from tiers import Number

from xpnet import functional as F
from xpnet.backends.cupy.backend import CupyBackend

WINDOW = {"stride": (2, 1), "padding": (1, 0, 1, 1), "dilation": (1, 2)}
ALONG = {"stride": 2, "padding": (1, 2), "dilation": 2}         # of signals
ENDS = {"stride": 2, "padding": (0, 1)}


def arguments(dtype: Any, N: int) -> dict[
        str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]:
    """Each function with arrays, shapes and options; batch-first."""
    x, W, b = (normal(N, 4, 7, 6, dtype=dtype), normal(6, 2, 3, 2, dtype=dtype),
               normal(6, dtype=dtype))
    y, gamma = normal(N, 6, 3, 6, dtype=dtype), normal(4, dtype=dtype)
    pool = {"stride": 2, "padding": (0, 1, 1, 1)}
    largest, argmax = F.max_pool2d(x, 3, backend="numpy", **pool)       # type: ignore[arg-type]
    image = normal(*largest.shape, dtype=dtype)
    indices = F.max_pool_indices(argmax, x.shape, 3, backend="numpy", **pool)               # type: ignore[arg-type]
    signal, W1, made = (normal(N, 4, 10, dtype=dtype), normal(6, 2, 3, dtype=dtype),
                        normal(N, 6, 5, dtype=dtype))
    peaks, won = F.max_pool1d(signal, 3, backend="numpy", **ENDS)           # type: ignore[arg-type]
    labels = np.random.default_rng(0).integers(0, 4, N)
    scores = normal(N, 4, dtype=dtype)
    return {
        "conv1d": (F.conv1d, (signal, W1, b), ALONG | {"groups": 2}),
        "conv1d_backward": (F.conv1d_backward, (made, signal, W1), ALONG | {"groups": 2}),
        "conv_transpose1d": (F.conv_transpose1d, (made, W1, gamma),
                             ALONG | {"groups": 2, "output_padding": 1}),
        "conv_transpose1d_backward": (F.conv_transpose1d_backward,
                                      (normal(N, 4, 11, dtype=dtype), made, W1),
                                      ALONG | {"groups": 2, "output_padding": 1}),
        "max_pool1d": (F.max_pool1d, (signal, 3), ENDS),
        "max_pool1d_backward": (F.max_pool1d_backward, (peaks, won, signal.shape, 3), ENDS),
        "avg_pool1d": (F.avg_pool1d, (signal, 3), ENDS),
        "avg_pool1d_backward": (F.avg_pool1d_backward, (peaks, signal.shape, 3), ENDS),
        "triplet_margin": (F.triplet_margin, (scores, scores[::-1].copy(), abs(scores)), {}),
        "contrastive": (F.contrastive, (scores, abs(scores), labels % 2), {}),
        "cosine_embedding": (F.cosine_embedding, (scores, abs(scores), labels % 2 * 2 - 1), {}),
        "margin_ranking": (F.margin_ranking,
                           (scores[:, 0].copy(), scores[:, 1].copy(), labels % 2 * 2 - 1), {}),
        "relu": (F.relu, (x,), {}),
        "relu_backward": (F.relu_backward, (normal(*x.shape, dtype=dtype, seed=1), x), {}),
        "softmax": (F.softmax, (scores,), {}),
        "softmax_backward": (F.softmax_backward, (normal(N, 4, dtype=dtype, seed=1), abs(scores)),
                             {}),
        "cross_entropy": (F.cross_entropy, (scores, labels),
                          {"ignore_index": 2, "label_smoothing": 0.1}),
        "adaptive_max_pool2d": (F.adaptive_max_pool2d, (x, (3, 4)), {}),
        "max_pool_indices": (F.max_pool_indices, (argmax, x.shape, 3), pool),
        "max_unpool2d": (F.max_unpool2d, (image, indices, x.shape[2:]), {}),
        "max_unpool2d_backward": (F.max_unpool2d_backward, (x, indices), {}),
        "conv2d": (F.conv2d, (x, W, b), WINDOW | {"groups": 2}),
        "conv2d_backward": (F.conv2d_backward, (y, x, W), WINDOW | {"groups": 2}),
        "conv_transpose2d": (F.conv_transpose2d, (y, W, gamma),
                             WINDOW | {"groups": 2, "output_padding": (1, 0)}),
        "conv_transpose2d_backward": (F.conv_transpose2d_backward,
                                      (normal(N, 4, 7, 6, dtype=dtype), y, W),
                                      WINDOW | {"groups": 2, "output_padding": (1, 0)}),
        "im2col": (F.im2col, (x, 3), WINDOW),
        "col2im": (F.col2im, (normal(N, 4 * 6, 18, dtype=dtype), x.shape, (3, 2)), WINDOW),
        "max_pool2d": (F.max_pool2d, (x, 3), pool),
        "max_pool2d_backward": (F.max_pool2d_backward, (image, argmax, x.shape, 3), pool),
        "avg_pool2d": (F.avg_pool2d, (x, 3), pool),
        "avg_pool2d_backward": (F.avg_pool2d_backward, (image, x.shape, 3), pool),
        "batch_norm": (F.batch_norm, (x, gamma, gamma), {}),
        "batch_norm_inference": (F.batch_norm_inference, (x, gamma, gamma, gamma, abs(gamma)), {}),
        "batch_norm_backward": (F.batch_norm_backward,
                                (normal(*x.shape, dtype=dtype), x, gamma, gamma, abs(gamma)), {}),
    }


def batch_last(a: Any, N: int) -> Any:
    """An image, or its shape, with the batch last."""
    if isinstance(a, tuple) and len(a) in (3, 4):
        return (*a[1:], a[0])
    return (np.ascontiguousarray(np.moveaxis(a, 0, -1))
            if isinstance(a, np.ndarray) and a.ndim > 1 and len(a) == N else a)


def functional(backend: CupyBackend, words: list[str], number: Number) -> None:
    """Every function on the second of two GPUs while the first one is current, and the errors."""
    second = CupyBackend(1, tf32="never")
    agree(second)
    halves(second)
    refusals(backend, second)


def agree(gpu: CupyBackend, N: int = 5) -> None:
    """Every function on the arrays of a GPU against NumPy, in full precision, and with the backend
    that follows from the arrays, whose convolutions may round to TF32. Images are recognised by N,
    which differs from every number of filters."""
    def on_device(a: Any) -> Any:
        return gpu.asarray(a) if isinstance(a, np.ndarray) else a

    for dtype, chosen, bound in ((np.float32, gpu, 1e-5), (np.float64, gpu, 1e-12),
                                 (np.float32, "auto", 2e-3)):
        table = arguments(dtype, N)
        assert table.keys() == set(F.__all__) - {"toeplitz"}             # for NumPy only
        for name, (function, given, options) in table.items():
            for layout in ("NCHW", "CHWN"):
                arrays = [batch_last(a, N) if layout == "CHWN" else a for a in given]
                right = function(*arrays, **options, layout=layout, backend="numpy")
                found = function(*map(on_device, arrays), **options, layout=layout, backend=chosen)
                for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, right)),
                                strict=True):
                    assert isinstance(a, gpu.xp.ndarray), name
                    assert a.device.id == gpu.device and a.flags.c_contiguous, name
                    host = gpu.to_numpy(a)
                    assert (host.dtype, host.shape) == (b.dtype, b.shape), name
                    assert distance(host, b) < bound, (
                        f"{name}, {layout}, {dtype.__name__}, {chosen}: {distance(host, b)}")


def halves(gpu: CupyBackend) -> None:
    """float16: exact if nothing is added or if sums are rounded once, as in NumPy's float32;
    otherwise close."""
    for name, (function, given, options) in arguments(np.float32, 5).items():
        if ("batch_norm" in name or name in ("triplet_margin", "contrastive", "cosine_embedding",
                                             "margin_ranking")):
            continue
        given = tuple(a.astype(np.float16) if getattr(a, "dtype", None) == np.float32 else a
                      for a in given)
        wide = (a.astype(np.float32) if getattr(a, "dtype", None) == np.float16 else a
                for a in given)
        right = function(*wide, **options, backend="numpy")
        found = function(*(gpu.asarray(a) if isinstance(a, np.ndarray) else a for a in given),
                         **options)
        for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, right)),
                        strict=True):
            host, expected = gpu.to_numpy(a), b.astype(np.float16) if b.dtype == np.float32 else b
            assert host.dtype == expected.dtype, name
            if "max_pool" in name or "col" in name:
                np.testing.assert_array_equal(host, expected)
            else:
                assert distance(host, expected) < 2e-3, f"{name}: {distance(host, expected)}"


def refusals(backend: CupyBackend, second: CupyBackend) -> None:
    x, W = normal(2, 3, 4, 4), normal(3, 3, 1, 1)
    here, there = backend.asarray(x), second.asarray(W)
    half = second.asarray(x.astype(np.float16))
    for function, error, message in (
            (lambda: F.conv2d(here, there), ValueError,
             "Received: backend cupy:0, x on cupy:0, W on cupy:1."),
            (lambda: F.conv2d(x, there), ValueError, ", x on cpu, W on cupy:1."),
            (lambda: F.conv2d(here, W), ValueError,
             "Received: backend cupy:0, x on cupy:0, W on cpu."),
            (lambda: F.im2col(x, 2, backend=second), ValueError,
             "Received: backend cupy:1, x on cpu."),
            (lambda: F.im2col(here, 2, backend="numpy"), ValueError,
             "Received: backend numpy, x on cupy:0."),
            (lambda: F.im2col(here, 2, backend=second), ValueError,
             "Received: backend cupy:1, x on cupy:0."),
            (lambda: F.batch_norm(half, half[0, :, 0, 0], half[0, :, 0, 0]), TypeError,
             "of one dtype, float32 or float64. Received: x of float16"),
            (lambda: F.conv2d(half, there), TypeError,
             "of one dtype, float32 or float64 or float16. Received: x of float16, W of float32.")):
        try:
            function()
        except error as raised:
            assert message in str(raised), str(raised)
        else:
            raise AssertionError(f"expected an error: {message}")
