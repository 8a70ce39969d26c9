"""Calls with sizes that use several threads. Both CPU backends must agree with base.py, and give
the same bits with any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
from parity import Case, agree, call, flat, normal, run, same_bits
from parity_cases import large_columns, other_optimizers, scans

import xpnet as xn
from xpnet.backends import Backend, Window

CONVOLUTIONS = [        # x (C, H, W, N), window, filters, groups
    ("shared", (8, 24, 24, 32), Window.make(5), 8, 1),
    ("first layer", (1, 28, 28, 130), Window.make(5), 8, 1),
    ("strided", (16, 31, 30, 32), Window.make(3, stride=2, padding=1), 40, 1),
    ("dilated", (16, 24, 24, 33), Window.make(3, dilation=2, padding=2), 16, 1),
    ("deep", (256, 2, 2, 3), Window.make(3, padding=1), 256, 1),
    ("wide", (64, 8, 8, 20), Window.make(5, padding=2), 64, 1),
    ("pointwise", (64, 16, 16, 33), Window.make(1), 64, 1),
    ("pointwise, strided", (64, 17, 17, 32), Window.make(1, stride=2), 96, 1),
    ("depthwise", (64, 20, 20, 32), Window.make(3, padding=1), 64, 64),
    ("grouped", (48, 14, 14, 32), Window.make(3, padding=1), 96, 4),
    ("full", (8, 16, 16, 64), Window.make(5, padding="full"), 16, 1),
    ("winograd", (64, 16, 16, 32), Window.make(3, padding=1), 64, 1),
    ("empty windows", (16, 12, 10, 32), Window.make(3, stride=2, padding=(4, 3, 7, 0)), 24, 1),
    ("empty windows, grouped", (16, 12, 10, 32), Window.make((2, 1), padding=(2, 5, 1, 3)), 24, 2),
    ("winograd, empty windows", (64, 6, 7, 32), Window.make(3, padding=(3, 6, 5, 4)), 64, 1),
    ("winograd, odd", (64, 7, 13, 17), Window.make(3, padding=(0, 1, 2, 0)), 72, 1),
]


def _large() -> Iterator[Case]:
    for name, shape, window, F, groups in CONVOLUTIONS:
        (C, _, _, N), (OH, OW) = shape, window.output_size(*shape[1:3])
        x, dy = normal(*shape), normal(F, OH, OW, N, seed=1)
        filters = normal(F, C // groups, *window.kernel, seed=2)
        options = {"window": window, "groups": groups}
        yield Case("conv2d", name, {"x": x, "W": filters, "bias": normal(F)},
                   options | {"activation": "relu"})
        yield Case("conv2d_dx", name, {"dy": dy, "W": filters}, options | {"x_shape": shape})
        yield Case("conv2d_dW", name, {"x": x, "dy": dy, "out": filters},
                   options | {"accumulate": True}, writes=("out",))
    for M, K, N in ((600, 1568, 8), (600, 1568, 128), (1568, 600, 32), (600, 1, 1568),
                    (16, 64, 20_000)):
        for trans_a, trans_b in ((False, False), (True, False), (False, True)):
            yield Case("gemm", f"{M}x{K}x{N}-{trans_a}-{trans_b}",
                       {"a": normal(*((K, M) if trans_a else (M, K))),
                        "b": normal(*((N, K) if trans_b else (K, N))),
                        "out": normal(M, N)}, {"trans_a": trans_a, "trans_b": trans_b},
                       writes=("out",))
    for trans_a, trans_b in ((False, False), (True, False), (False, True)):
        yield Case("products", f"{trans_a}-{trans_b}",     # several tasks
                   {"a": normal(70, *((32, 64) if trans_a else (64, 32))),
                    "b": normal(70, *((48, 32) if trans_b else (32, 48)))},
                   {"trans_a": trans_a, "trans_b": trans_b})
    yield Case("sums_by_token", "many",
               {"dy": normal(65, 6000), "tokens": np.random.default_rng(8).integers(0, 500, 6000),
                "out": normal(500, 65)}, {"accumulate": True}, writes=("out",))
    for cell, kind in (("lstm", "full"), ("lstm", "ragged"), ("gru", "full"), ("tanh", "ragged")):
        yield from scans(cell, 72, 130, 20, kind, np.float32)
    for shape, window in (((16, 32, 32, 65), Window.make(2, stride=2)),
                          ((16, 33, 32, 65), Window.make(2, stride=2)),
                          ((16, 31, 31, 65), Window.make(3, stride=2, padding=1)),
                          ((16, 32, 32, 65), Window.make(2, stride=3))):
        OH, OW = window.output_size(*shape[1:3])
        x, dy, label = normal(*shape), normal(shape[0], OH, OW, shape[3],
                                              seed=1), f"{shape}-{window}"
        argmax = Backend().max_pool2d(x, window)[1]
        yield Case("max_pool2d", label, {"x": x}, {"window": window}, exact=True)
        yield Case("max_pool2d_dx", label, {"dy": dy, "argmax": argmax},
                   {"x_shape": shape, "window": window}, exact=True)
        yield Case("avg_pool2d", label, {"x": x}, {"window": window, "count_padding": False})
        yield Case("avg_pool2d_dx", label, {"dy": dy},
                   {"x_shape": shape, "window": window, "count_padding": False})
        yield Case("im2col", label, {"x": x}, {"window": window}, exact=True)
        cols = normal(shape[0] * window.taps, OH * OW * shape[3])
        yield Case("col2im", label, {"cols": cols}, {"x_shape": shape, "window": window},
                   exact=True)
    # values that fast paths could get wrong
    for values in ((-1.0, -0.0, 0.0), (-np.inf, -1.0), (np.nan, -np.inf, 1.0)):
        x = np.random.default_rng(7).choice(np.array(values, np.float32), (16, 31, 31, 65))
        yield Case("max_pool2d", f"{values}", {"x": x},
                   {"window": Window.make(3, stride=2, padding=1)}, exact=True)
        yield Case("max_pool2d", f"{values}-tiled", {"x": x}, {"window": Window.make(2, stride=2)},
                   exact=True)
    x, dy = normal(24, 20, 20, 65), normal(24, 20, 20, 65, seed=1)
    for activation in (None, "relu", "scaled_tanh"):
        options, y = {"activation": activation}, Backend().activate(x, activation)
        yield Case("activate", f"{activation}", {"z": x}, options)
        yield Case("add", f"{activation}", {"a": x, "b": dy}, options,
                   exact=activation in (None, "relu"))
        yield Case("activation_backward", f"{activation}",
                   {"dy": dy, "y": y, "bias_grad": normal(24)}, options,
                   writes=("bias_grad",))
        yield from _batch_norm(x, dy, activation)
    # few channels of many elements are cut into parts
    long = normal(3, 40, 52, 64), normal(3, 40, 52, 64, seed=1)
    yield from _batch_norm(*long, "relu")
    yield Case("zeros", "large", options={"shape": (300, 1000), "dtype": np.float32}, exact=True)
    for samples in (normal(300, 3, 32, 32), np.abs(9 * normal(300, 3, 32, 32)).astype(np.uint8)):
        index = np.random.default_rng(8).integers(0, 300, 130)
        yield Case("gather_batch", f"{samples.dtype}", {"samples": samples, "index": index},
                   {"dtype": np.float32}, exact=True)
    yield from large_columns()
    n, hyper = 300_000, np.array([1e-3, 0.9, 0.999, 1e-8, 0.01, 1 - 0.9**3, 1 - 0.999**3])
    buffers = {"w": normal(n), "g": normal(n, seed=1), "v": normal(n, seed=2) ** 2}
    yield Case("update", "nesterov-large", buffers | {"hyper": hyper[:3]},
               {"rule": "nesterov", "decayed": 200_000}, writes=("w", "v"))
    yield Case("update", "adam-large", buffers | {"m": normal(n, seed=3), "hyper": hyper},
               {"rule": "adam", "decayed": 200_000}, writes=("w", "m", "v"))
    yield from other_optimizers("large", {"w": normal(n), "g": normal(n, seed=1)},
                                {"decayed": 200_000})


def _batch_norm(x: np.ndarray, dy: np.ndarray, activation: str | None) -> Iterator[Case]:
    C, label, options = len(x), f"{activation}-{len(x)}", {"eps": 1e-5, "activation": activation}
    gamma, beta = normal(C), normal(C, seed=1)
    y, mean, var = Backend().batch_norm(x, gamma, beta, 1e-5, activation=activation)
    yield Case("batch_norm", label, {"x": x, "gamma": gamma, "beta": beta}, options)
    known = {"x": x, "gamma": gamma, "mean": mean, "var": var}
    yield Case("batch_norm_inference", label, known | {"beta": beta}, options)
    yield Case("batch_norm_backward", label,
               known | {"dy": dy, "y": y, "gamma_grad": normal(C), "beta_grad": normal(C)},
               options, writes=("gamma_grad", "beta_grad"))


LARGE = list(_large())


def agree_on_strided_arrays(case: Case, backend: Backend) -> None:
    """Fails if arrays that are not contiguous give another result, or are changed."""
    arrays = {name: np.repeat(a, 2, axis=-1)[..., ::2] for name, a in case.arrays.items()}
    assert not any(a.flags.c_contiguous for a in arrays.values() if a.size > 1)
    returned = call(backend, case.method, arrays | case.options)
    agree(case, [np.array(a) for a in flat(returned) + [arrays[name] for name in case.writes]],
          run(case, backend))
    for name, a in case.arrays.items():
        assert name in case.writes or same_bits(np.array(arrays[name]), a)


def digits(backend: Backend, dtype: str = "float32", seed: int = 0,
           between: Callable[[], list[xn.Layer]] = list
           ) -> xn.Sequential:
    """A network from images of 2 x 12 x 12 to 5 classes, with the layers of a network for digits
    and some less common convolutions.

    The layers made by `between` are inserted between any two layers.
    """
    layers = [xn.Conv2d(8, 5, padding=2, activation="relu"), xn.MaxPool2d(2),
              xn.Conv2d(8, 3, groups=8, padding=1, bias=False), xn.BatchNorm2d(activation="relu"),
              xn.Conv2d(12, 3, stride=(2, 1), dilation=(1, 2), activation="tanh"), xn.Flatten(),
              xn.Dropout(0.3), xn.Linear(20, activation="relu"), xn.Linear(5)]
    return xn.Sequential([item for layer in layers for item in (layer, *between())],
                         input_shape=(2, 12, 12), backend=backend, dtype=dtype, seed=seed)


def agree_among_threads(make: Callable[[], Backend]) -> None:
    """Four threads, each with large calls in another order, on a shared backend and on separate
    ones, get the same bits."""
    shared, cases = make(), LARGE[::3]
    expected, errors = [run(case, make()) for case in cases], []

    def caller(me: int) -> None:
        mine = make()
        for k in np.random.default_rng(me).permutation(len(cases)):
            for backend in (shared, mine):
                if not all(map(same_bits, run(cases[k], backend), expected[k])):
                    errors.append(str(cases[k]))

    crew = [threading.Thread(target=caller, args=(me,), daemon=True) for me in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(300)
    assert not any(thread.is_alive() for thread in crew) and not errors
