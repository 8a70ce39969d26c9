"""Samples of different lengths on the host: lists of arrays, padded arrays, numbers of steps.

Steps are the last axis of what people pass: samples (D, T_i) or tokens (T_i,), targets (D, T_i) or
labels (T_i,).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.buffers import Shape
from xpnet.checks import real_array, shown
from xpnet.dlpack import host_array


def is_list(x: Any) -> bool:
    """Whether x is a list of arrays, or an array of objects, and not an array of numbers."""
    return isinstance(x, list | tuple) or (isinstance(x, np.ndarray) and x.dtype == object
                                           and x.ndim == 1)


def packed(x: Any, shape: Shape, who: str, backend: Backend) -> tuple[np.ndarray, np.ndarray]:
    """A list of arrays as an array (N, *shape), with zeros beyond the end of each, and their
    numbers of steps (N,).

    Raises ValueError if one of them has another shape, no step, or more steps than `shape`.
    """
    *features, T = shape
    samples = [real_array(host_array(a, who, backend), who) for a in x]
    for number, a in enumerate(samples):
        if a.shape[:-1] != tuple(features) or a.ndim != len(shape) or not 1 <= a.shape[-1] <= T:
            wanted = ", ".join([*map(str, features), "steps"])
            raise ValueError(f"{who}: expected a list of arrays of shape ({wanted}), with 1 to {T} "
                             f"steps. Received: shape {a.shape} of sample {number}.")
    lengths = np.array([a.shape[-1] for a in samples], np.int64)
    dtypes = {a.dtype for a in samples} or {np.dtype(float)}
    out = np.zeros((len(samples), *shape), np.result_type(*dtypes))
    for row, a in zip(out, samples, strict=True):
        row[..., :a.shape[-1]] = a
    return out, lengths


def checked_lengths(lengths: Any, samples: int, T: int, who: str, backend: Backend) -> np.ndarray:
    """The numbers of steps (N,) as int64. Raises ValueError or TypeError if they are not one whole
    number from 1 to T for each sample."""
    lengths = real_array(host_array(lengths, f"{who}: lengths", backend), f"{who}: lengths")
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"{who}: expected lengths to be integers. Received: an array of dtype "
                        f"{lengths.dtype}.")
    if lengths.shape != (samples,):
        raise ValueError(f"{who}: expected lengths to have a number of steps for each of {samples} "
                         f"samples. Received: shape {lengths.shape}.")
    if samples and not 1 <= lengths.min() <= lengths.max() <= T:
        raise ValueError(f"{who}: expected lengths from 1 to {T}. Received: lengths from "
                         f"{lengths.min()} to {lengths.max()}.")
    return lengths.astype(np.int64)


def filled(target: Any, lengths: np.ndarray, T: int, who: str, backend: Backend) -> np.ndarray:
    """Targets of the steps of N samples, (N, ..., T) or a list of arrays (..., T_i). Behind the end
    of each sample they are those of its last step, which are valid for every loss."""
    if is_list(target):
        if len(target) != len(lengths):
            raise ValueError(f"{who}: expected as many targets as samples. Received: "
                             f"{len(lengths)} samples, {len(target)} targets.")
        rows = [real_array(host_array(a, who, backend), who) for a in target]
        for number, (a, steps) in enumerate(zip(rows, lengths.tolist(), strict=True)):
            if a.shape[-1:] != (steps,) or a.shape[:-1] != rows[0].shape[:-1]:
                raise ValueError(f"{who}: expected targets for each step, and of one shape "
                                 f"otherwise. Received: shape {a.shape} of sample {number}, which "
                                 f"has {steps} steps.")
        out = np.empty((len(rows), *rows[0].shape[:-1], T),
                       np.result_type(*{a.dtype for a in rows}))
        for row, a in zip(out, rows, strict=True):
            row[..., :a.shape[-1]], row[..., a.shape[-1]:] = a, a[..., -1:]
        return out
    target = real_array(host_array(target, who, backend), who)
    if target.ndim < 2 or target.shape[-1] != T or len(target) != len(lengths):
        return target                       # the loss says what is wrong with it
    last = np.minimum(np.arange(T), lengths[:, None] - 1)               # (N, T)
    return np.take_along_axis(target, last.reshape(len(last), *(1,) * (target.ndim - 2), T),
                              axis=-1)


def cut(y: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The samples of y (N, ..., T) without the padding."""
    return [row[..., :steps].copy() for row, steps in zip(y, lengths.tolist(), strict=True)]


def real_steps(y: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The real steps of y (N, ..., T), one after another: (P, ...)."""
    return np.moveaxis(y, -1, 1)[np.arange(y.shape[-1]) < lengths[:, None]]


def expect_no_lengths(lengths: Any, who: str) -> None:
    if lengths is not None:
        raise ValueError(f"{who}: expected lengths for a network with an Input(..., lengths=True) "
                         f"only. Received: lengths={shown(lengths)}.")
