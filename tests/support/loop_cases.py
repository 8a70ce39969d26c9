"""Calls whose sizes make Numba's kernels use several pieces, parts and tasks. Importing this needs
numba."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from parity import Case, normal, public_methods, run, special, ties
from parity_cases import large_columns, other_optimizers, scans

from xpnet.backends import Backend, Window
from xpnet.backends.numba.backend import NumbaBackend
from xpnet.backends.numba.kernels import (
    activation,
    batches,
    curves,
    dropout,
    normalization,
    optimizers,
    pooling,
    recurrent,
    softmax,
)
from xpnet.backends.numba.kernels.jit import Kernel

# All overrides except convolutions and products, and those by a method of the reference.
OVERRIDES = {name for name in public_methods() & vars(NumbaBackend).keys()
             if vars(NumbaBackend)[name] is not vars(Backend).get(name)} - {
    "gemm", "conv2d", "conv2d_dx", "conv2d_dW"}
KERNELS = {name: value for module in (activation, batches, curves, dropout, normalization,
                                      optimizers, pooling, recurrent, softmax)
           for name, value in vars(module).items() if isinstance(value, Kernel)}
ADAM = np.array([1e-3, 0.9, 0.999, 1e-8, 0.01, 1 - 0.9**3, 1 - 0.999**3])


def with_base(case: Case) -> list[np.ndarray]:
    """The result of base.py, which may warn of infinities and NaNs in its arguments."""
    with np.errstate(all="ignore"):
        return run(case, Backend())


def _large() -> Iterator[Case]:
    for shape, window in (((8, 28, 28, 65), Window.make(2, stride=2)),
                          ((8, 29, 28, 65), Window.make(2, stride=2)),
                          ((16, 21, 21, 65), Window.make(3, stride=2, padding=1)),
                          ((8, 22, 22, 65), Window.make(2, stride=3)),
                          ((8, 22, 22, 33), Window.make(2, dilation=2, padding=(0, 1, 1, 0)))):
        x, (OH, OW) = ties(*shape), window.output_size(*shape[1:3])
        _, argmax = Backend().max_pool2d(x, window)
        dy = normal(shape[0], OH, OW, shape[3])
        dy[0] = -0.0  # adds nothing, not even its sign
        yield Case("max_pool2d", f"{shape}", {"x": x}, {"window": window}, exact=True)
        yield Case("max_pool2d_dx", f"{shape}", {"dy": dy, "argmax": argmax},
                   {"x_shape": shape, "window": window}, exact=True)
        for count in (True, False):
            options = {"window": window, "count_padding": count}
            yield Case("avg_pool2d", f"{shape}-{count}", {"x": normal(*shape)}, options)
            yield Case("avg_pool2d_dx", f"{shape}-{count}", {"dy": dy},
                       options | {"x_shape": shape})
    for cell in ("lstm", "gru", "tanh"):        # several blocks of samples
        for kind in ("full", "ragged"):
            yield from (case for case in scans(cell, 64, 50, 6, kind, np.float32)
                        if case.method in OVERRIDES)
    # the second and the fourth have few and long channels
    for shape in ((24, 20, 20, 65), (3, 47, 60, 65), (600, 128), (2, 131_072)):
        C = shape[0]
        x, dy = normal(*shape) + np.float32(30), normal(*shape, seed=1)  # a mean far from 0
        gamma, beta = normal(C), normal(C, seed=1)
        for name in (None, "relu"):
            label, options = f"{shape}-{name}", {"activation": name}
            y, mean, var = Backend().batch_norm(x, gamma, beta, 1e-5, activation=name)
            yield Case("activate", label, {"z": dy}, options)
            yield Case("add", label, {"a": x, "b": dy}, options, exact=True)
            for accumulate in (False, True):
                grads = {"gamma_grad": gamma, "beta_grad": beta}
                yield Case("activation_backward", label, {"dy": dy, "y": y, "bias_grad": gamma},
                           options | {"accumulate": accumulate}, writes=("bias_grad",))
                yield Case("batch_norm_backward", label,
                           {"dy": dy, "x": x, "y": y, "gamma": gamma, "mean": mean, "var": var}
                           | grads, options | {"eps": 1e-5, "accumulate": accumulate},
                           writes=("gamma_grad", "beta_grad"))
            yield Case("batch_norm", label, {"x": x, "gamma": gamma, "beta": beta},
                       options | {"eps": 1e-5})
            yield Case("batch_norm_inference", label,
                       {"x": x, "gamma": gamma, "beta": beta, "mean": mean, "var": var},
                       options | {"eps": 1e-5})
    for shape in ((24, 20, 20, 65), (2, 131_072), (70_001,)):
        z, dy = 3 * normal(*shape), normal(*shape, seed=1)
        for name in curves.NAMES:
            yield Case("activate", f"{shape}-{name}", {"z": z}, {"activation": name})
            for accumulate in (False, True):
                yield Case("activation_backward", f"{shape}-{name}-{accumulate}",
                           {"dy": dy, "y": z, "bias_grad": normal(shape[0], seed=2)},
                           {"activation": name, "accumulate": accumulate}, writes=("bias_grad",))
    # -1 and 300 are no labels
    z, labels = 5 * normal(300, 200), np.random.default_rng(3).integers(-1, 301, 200)
    for name, target in (("labels", labels), ("soft", np.abs(normal(300, 200, seed=1)))):
        yield Case("softmax_cross_entropy", name, {"z": z, "target": target})
    yield Case("softmax", "large", {"z": z})
    counter, dy = np.array([3, 2**64 - 1], np.uint64), special(100_003)
    yield Case("dropout", "large", {"x": dy, "counter": counter}, {"p": 0.3, "key": (2**63 + 5, 1)},
               exact=True)
    yield Case("dropout_dx", "large", {"dy": dy, "keep": normal(100_003) > 0}, {"p": 0.3},
               exact=True)
    yield Case("random_bits", "large", {"counter": counter}, {"n": 100_003, "key": (2**63 + 5, 1)},
               exact=True)
    n, decayed = 100_003, 50_001
    buffers = {"w": normal(n), "g": normal(n, seed=1), "v": normal(n, seed=2) ** 2}
    for rule, slots, hyper in (("sgd", ("v",), ADAM[:3]), ("nesterov", ("v",), ADAM[:3]),
                               ("adam", ("m", "v"), ADAM), ("adamw", ("m", "v"), ADAM)):
        memory = {"m": normal(n, seed=3)} if "m" in slots else {}
        yield Case("update", rule, buffers | memory | {"hyper": hyper},
                   {"rule": rule, "decayed": decayed}, writes=("w", *slots))
    yield from other_optimizers("large", {"w": normal(n), "g": normal(n, seed=1)},
                                {"decayed": decayed})
    for samples in (normal(300, 1, 28, 28),
                    np.arange(300 * 784).reshape(300, 784).astype(np.uint8)):
        index = np.random.default_rng(4).permutation(300)[:130]
        yield Case("gather_batch", f"{samples.dtype}", {"samples": samples, "index": index},
                   {"dtype": np.float32}, exact=True)
    yield from large_columns()


LARGE = list(_large())
