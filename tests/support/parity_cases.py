"""One table of calls for every public method of Backend: every backend must agree with base.py.

    for case in CASES: agree(case, run(case, backend), run(case, Backend()))

`missing_methods()` names the public methods that the table does not cover.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np
from parity import Case, call, normal, public_methods, special, ties

from xpnet.backends import Backend, Window
from xpnet.backends.activations import ACTIVATIONS, FUSED
from xpnet.backends.cells import cell_of

FLOATS = (np.float32, np.float64)

# Input (C, H, W, N) and window: odd sizes, strides 1 to 3, every kind of padding, dilation.
GEOMETRIES = [
    ((1, 5, 5, 1), Window.make(3)),
    ((3, 8, 7, 3), Window.make(3, padding=1)),
    ((7, 9, 6, 16), Window.make((3, 2), stride=2, padding=(1, 0))),
    ((8, 11, 12, 17), Window.make((3, 5), stride=(3, 2), padding=(0, 1, 2, 3))),
    ((8, 7, 7, 33), Window.make(3, padding="half", dilation=2)),
    ((4, 6, 6, 8), Window.make(2, stride=2)),
    ((3, 6, 5, 1), Window.make(1)),
    ((7, 6, 6, 3), Window.make(1, stride=2)),
    ((1, 4, 4, 33), Window.make(4, padding="full")),
    ((3, 13, 5, 16), Window.make((5, 1), stride=(3, 1), dilation=(2, 1))),
    ((2, 1, 1, 1), Window.make(3, padding=1)),
    ((8, 1, 35, 17), Window.in_row(3, padding=(2, 1))),     # a signal
    # 272 taps: argmax is int32
    ((1, 18, 17, 2), Window.make((16, 17), stride=3, padding=(0, 2, 0, 1))),
    ((8, 40, 40, 33), Window.make(3, padding=1)),  # larger than one tile of the CPU
]
# Padding as large as the window and larger: some windows are empty. A convolution gives 0 for them;
# poolings are not defined.
EMPTY = [
    ((3, 6, 5, 1), Window.make(1, padding=1)),
    ((2, 4, 5, 3), Window.make(3, padding=(4, 0, 3, 5))),
    ((4, 5, 4, 16), Window.make((2, 3), stride=(2, 3), padding=(5, 3, 1, 7))),
    ((2, 3, 4, 17), Window.make(2, stride=3, padding=(0, 9, 4, 0), dilation=(2, 1))),
    ((2, 1, 2, 8), Window.make(1, stride=2, padding=3)),
    ((3, 1, 7, 16), Window.in_row(2, padding=(4, 3))),      # a signal
]


def _windows(geometries: list[tuple[tuple[int, int, int, int], Window]] = GEOMETRIES
             ) -> Iterator[tuple[str, tuple[int, int, int, int], Window, tuple[int, int], Any]]:
    """(label, shape of x, window, output size, dtype) of each geometry and type."""
    for shape, window in geometries:
        for dtype in FLOATS:
            label = (
                f"{shape}k{window.kernel}s{window.stride}p{window.padding}d{window.dilation}-"
                f"{np.dtype(dtype)}")
            yield label, shape, window, window.output_size(*shape[1:3]), dtype


def _memory() -> Iterator[Case]:
    for dtype in (np.float16, np.float32, np.float64, np.uint8, np.int32, np.uint64, bool):
        for shape in ((7,), (3, 0, 5), (2, 3, 4, 5)):
            for method in ("empty", "zeros"):
                yield Case(method, f"{shape}-{np.dtype(dtype)}",
                           options={"shape": shape, "dtype": dtype})
        yield Case("asarray", f"{np.dtype(dtype)}",
                   {"a": np.arange(12).reshape(3, 4).astype(dtype)}, exact=True)
    yield Case("asarray", "list", options={"a": [[1, 2], [3, 4]], "dtype": np.float32}, exact=True)
    yield Case("asarray", "transposed", options={"a": normal(3, 4).T, "dtype": np.float64},
               exact=True)
    yield Case("to_numpy", "float32", {"a": normal(3, 4)}, exact=True)
    yield Case("synchronize", "returns")
    yield Case("scope", "returns")
    yield Case("stream", "returns")
    yield Case("collector", "of several shapes")
    yield Case("capture", "a number", options={"fn": lambda: np.float64(3)})
    for n in (1, 7, 8, 9, 20):
        yield Case("assign", f"{n}", {"out": normal(n, dtype=np.float64)},
                   {"values": tuple(0.1 * k for k in range(n))}, writes=("out",), exact=True)
    counters = {"steps": np.array([2**40], np.uint64), "position": np.array([7])}
    yield Case("advance", "both", counters, {"samples": 32}, writes=tuple(counters), exact=True)
    yield Case("advance", "steps", {"steps": counters["steps"]}, writes=("steps",), exact=True)
    for axis in (0, 1, 2):
        for count in (1, 3, 10):
            parts = {f"part {k}": np.moveaxis(normal(k + 1, 3, 4, seed=k), 0, axis)
                     for k in range(count)}
            yield Case("joined", f"{count} along {axis}", parts, {"axis": axis}, exact=True)
    for k in (1, (15, 17), 16):
        yield Case("argmax_dtype", f"{k}", options={"window": Window.make(k)})
    yield Case("store", "value", {"value": normal(5, 3)}, {"out": None}, exact=True)
    for accumulate in (False, True):
        yield Case("store", f"out-{accumulate}",
                   {"value": normal(5, 3), "out": normal(5, 3, seed=1)},
                   {"accumulate": accumulate}, writes=("out",), exact=True)


def _batches() -> Iterator[Case]:
    for S, sample in ((1, ()), (7, ()), (5, (3,)), (40, (1, 5, 4)), (33, (3, 32, 32)),
                      (9, (2, 1, 70, 70))):
        rng = np.random.default_rng([4, S])
        for source in (np.uint8, np.int64, bool, np.float16, np.float32, np.float64,
                       np.dtype(">f4")):
            samples = rng.integers(0, 255, (S, *sample)).astype(source)
            for dtype in FLOATS:
                label = f"{(S, *sample)}-{np.dtype(source).str}-{np.dtype(dtype)}"
                host: dict[str, Any] = {"samples": samples, "dtype": dtype}
                yield Case("gather_batch", f"{label}-all", options=host | {"index": None},
                           exact=True)
                for N in (1, S, 2 * S + 1):
                    index = rng.integers(0, S, N)
                    yield Case("gather_batch", f"{label}-{N}", options=host | {"index": index},
                               exact=True)
                    if np.dtype(source).isnative:  # GPU arrays have the native byte order
                        yield Case("gather_batch", f"{label}-{N}-there",
                                   {"samples": samples, "index": index}, {"dtype": dtype},
                                   exact=True)
    for dtype in FLOATS:
        for rows, columns in ((1, 1), (3, 7), (5, 0)):
            index = np.random.default_rng(columns).permutation(9)[:columns]
            yield Case("take_columns", f"{rows}-{columns}-{np.dtype(dtype)}",
                       {"m": normal(rows, 9, dtype=dtype), "index": index}, exact=True)
            yield Case("put_columns", f"{rows}-{columns}-{np.dtype(dtype)}",
                       {"m": normal(rows, columns, dtype=dtype), "index": index}, {"columns": 9},
                       exact=True)
    yield Case("gather_batch", "special",
               options={"samples": special(20, 3, 4), "index": np.arange(20)[::-1],
                        "dtype": np.float64}, exact=True)


def _feeds() -> Iterator[Case]:
    for S, sample in ((1, ()), (7, (3,)), (40, (1, 5, 4)), (70, (3, 11, 16))):
        for source in (np.uint8, np.int64, bool, np.float16, np.float32, np.float64,
                       np.dtype(">f4")):
            samples = np.random.default_rng([4, S]).integers(0, 255, (S, *sample)).astype(source)
            for dtype in FLOATS:
                yield Case("feed", f"{(S, *sample)}-{np.dtype(source).str}-{np.dtype(dtype)}",
                           options={"samples": samples, "dtype": dtype, "most": S}, exact=True)
    labels = np.random.default_rng(4).integers(0, 10, 33)
    yield Case("feed", "labels", options={"samples": labels, "dtype": np.int64, "most": 33},
               exact=True)
    yield Case("feed", "every second",
               options={"samples": normal(20, 3, 4)[::2], "dtype": np.float32, "most": 10},
               exact=True)


def _matrices() -> Iterator[Case]:
    for dtype in FLOATS:
        for M, K, N in ((1, 1, 1), (3, 7, 1), (8, 17, 33), (65, 31, 16), (10, 600, 128),
                        (16, 27, 4099)):
            for trans in (False, False), (True, False), (False, True), (True, True):
                label = f"{M}x{K}x{N}-{'NT'[trans[0]]}{'NT'[trans[1]]}-{np.dtype(dtype)}"
                options: dict[str, Any] = {"trans_a": trans[0], "trans_b": trans[1]}
                ab = {"a": normal(*((K, M) if trans[0] else (M, K)), dtype=dtype),
                      "b": normal(*((N, K) if trans[1] else (K, N)), dtype=dtype)}
                yield Case("gemm", label, ab, options)
                yield Case("gemm", label + "-bias-relu", ab | {"bias": normal(M, dtype=dtype)},
                           options | {"activation": "relu"})
                for accumulate in (False, True):
                    yield Case("gemm", f"{label}-out-{accumulate}",
                               ab | {"out": normal(M, N, dtype=dtype, seed=1)},
                               options | {"accumulate": accumulate}, writes=("out",))
        for G, M, K, N in ((1, 3, 2, 5), (6, 7, 5, 3), (40, 1, 17, 9), (33, 20, 16, 33)):
            for trans in (False, False), (True, False), (False, True), (True, True):
                yield Case("products", f"{G}x{M}x{K}x{N}-{'NT'[trans[0]]}{'NT'[trans[1]]}-"
                                       f"{np.dtype(dtype)}",
                           {"a": normal(G, *((K, M) if trans[0] else (M, K)), dtype=dtype),
                            "b": normal(G, *((N, K) if trans[1] else (K, N)), dtype=dtype, seed=1)},
                           {"trans_a": trans[0], "trans_b": trans[1]})


def _tokens() -> Iterator[Case]:
    for dtype in FLOATS:
        for V, D, P in ((1, 1, 1), (5, 3, 17), (300, 16, 64), (7, 33, 400)):
            tokens = np.random.default_rng([8, P]).integers(0, V, P)
            for accumulate in (False, True):
                yield Case("sums_by_token", f"{V}x{D}-{P}-{accumulate}-{np.dtype(dtype)}",
                           {"dy": normal(D, P, dtype=dtype), "tokens": tokens,
                            "out": normal(V, D, dtype=dtype, seed=1)}, {"accumulate": accumulate},
                           writes=("out",))


def _columns() -> Iterator[Case]:
    for label, shape, window, (OH, OW), dtype in _windows(GEOMETRIES + EMPTY):
        for data in (normal, special):
            yield Case("im2col", f"{label}-{data.__name__}", {"x": data(*shape, dtype=dtype)},
                       {"window": window}, exact=True)
        cols = normal(shape[0] * window.taps, OH * OW * shape[3], dtype=dtype)
        yield Case("col2im", label, {"cols": cols}, {"x_shape": shape, "window": window},
                   exact=True)


def _convolution() -> Iterator[Case]:
    for label, shape, window, (OH, OW), dtype in _windows(GEOMETRIES + EMPTY):
        C, _, _, N = shape
        for groups, F in sorted({(1, 1), (1, 7), (C, 2 * C), (2 if C % 2 == 0 else 1, 4)}):
            x, dy = normal(*shape, dtype=dtype), normal(F, OH, OW, N, dtype=dtype, seed=1)
            W = normal(F, C // groups, *window.kernel, dtype=dtype, seed=2)
            name = f"{label}-F{F}-g{groups}"
            options: dict[str, Any] = {"window": window, "groups": groups}
            yield Case("conv2d", name, {"x": x, "W": W}, options)
            yield Case("conv2d", name + "-bias-tanh",
                       {"x": x, "W": W, "bias": normal(F, dtype=dtype)},
                       options | {"activation": "tanh"})
            yield Case("conv2d_dx", name, {"dy": dy, "W": W}, options | {"x_shape": shape})
            yield Case("conv2d_dW", name, {"x": x, "dy": dy}, options)
            for accumulate in (False, True):
                yield Case("conv2d_dW", f"{name}-out-{accumulate}",
                           {"x": x, "dy": dy, "out": normal(*W.shape, dtype=dtype, seed=3)},
                           options | {"accumulate": accumulate}, writes=("out",))


def _pooling() -> Iterator[Case]:
    for label, shape, window, (OH, OW), dtype in _windows():
        window.check_no_empty_window(*shape[1:3])
        for data in (normal, ties, special):
            yield Case("max_pool2d", f"{label}-{data.__name__}", {"x": data(*shape, dtype=dtype)},
                       {"window": window}, exact=True)
        dy = normal(shape[0], OH, OW, shape[3], dtype=dtype, seed=1)
        _, argmax = Backend().max_pool2d(ties(*shape, dtype=dtype), window)
        back = {"x_shape": shape, "window": window}
        yield Case("max_pool2d_dx", label, {"dy": dy, "argmax": argmax}, back, exact=True)
        for count in (True, False):
            yield Case("avg_pool2d", f"{label}-{count}", {"x": normal(*shape, dtype=dtype)},
                       {"window": window, "count_padding": count})
            yield Case("avg_pool2d_dx", f"{label}-{count}", {"dy": dy},
                       back | {"count_padding": count})


MAPS = ((1, 1), (3, 17), (7, 5, 6, 3), (8, 4, 4, 16), (64, 9, 9, 33))      # (rows, ..., N)


def _elementwise() -> Iterator[Case]:
    for dtype in FLOATS:
        for shape in MAPS:
            for activation in (None, "relu", "sigmoid", "tanh", "scaled_tanh"):
                label, options = (f"{shape}-{activation}-{np.dtype(dtype)}",
                                  {"activation": activation})
                for data in (normal, special):
                    yield Case("activate", f"{label}-{data.__name__}",
                               {"z": data(*shape, dtype=dtype)}, options)
                arrays = {"dy": normal(*shape, dtype=dtype, seed=1),
                          "y": Backend().activate(normal(*shape, dtype=dtype), activation)}
                yield Case("activation_backward", label, arrays, options)
                for data in (normal, special):
                    yield Case("add", f"{label}-{data.__name__}",
                               {"a": data(*shape, dtype=dtype), "b": ties(*shape, dtype=dtype)},
                               options, exact=activation in (None, "relu"))
                for accumulate in (False, True):
                    yield Case("activation_backward", f"{label}-bias-{accumulate}",
                               arrays | {"bias_grad": normal(shape[0], dtype=dtype)},
                               options | {"accumulate": accumulate}, writes=("bias_grad",))


def _curves() -> Iterator[Case]:
    """The activations that are not fused with other kernels, each with its default constants and
    with others."""
    for dtype, (name, f) in product(FLOATS, ACTIVATIONS.items()):
        own = tuple(f.constants.values())
        given = [(), tuple(0.75 * c for c in own)] if own else [()]
        for constants in [] if name in FUSED else given:
            label, options = (f"{name}{constants}-{np.dtype(dtype)}",
                              {"activation": name, "constants": constants})
            z = 3 * normal(3, 5, 7, dtype=dtype)
            for data in (z, special(3, 5, 7, dtype=dtype)):
                yield Case("activate", f"{label}-{data is z}", {"z": data}, options)
            if not constants:
                yield Case("add", label, {"a": z, "b": normal(3, 5, 7, dtype=dtype, seed=1)},
                           {"activation": name})
            y = z if f.of == "z" else Backend().activate(z, name, constants)
            yield Case("activation_backward", label,
                       {"dy": normal(3, 5, 7, dtype=dtype, seed=1), "y": y,
                        "bias_grad": normal(3, dtype=dtype)}, options, writes=("bias_grad",))


def _normalisation() -> Iterator[Case]:
    for dtype in FLOATS:
        for shape in ((1, 5), *MAPS[1:]):
            C = shape[0]
            x, dy = normal(*shape, dtype=dtype) + dtype(1), normal(*shape, dtype=dtype, seed=1)
            gamma, beta = normal(C, dtype=dtype) + dtype(1), normal(C, dtype=dtype, seed=1)
            for activation in (None, "relu", "tanh"):
                label, options = (f"{shape}-{activation}-{np.dtype(dtype)}",
                                  {"eps": 1e-5, "activation": activation})
                y, mean, var = Backend().batch_norm(x, gamma, beta, 1e-5, activation=activation)
                known = {"x": x, "gamma": gamma}
                yield Case("batch_norm", label, known | {"beta": beta}, options)
                known |= {"mean": mean, "var": var}
                yield Case("batch_norm_inference", label, known | {"beta": beta}, options)
                grads = {"gamma_grad": normal(C, dtype=dtype, seed=2),
                         "beta_grad": normal(C, dtype=dtype, seed=3)}
                for accumulate in (False, True):
                    yield Case("batch_norm_backward", f"{label}-{accumulate}",
                               known | {"dy": dy, "y": y} | grads,
                               options | {"accumulate": accumulate},
                               writes=("gamma_grad", "beta_grad"))
            running = {"running_mean": normal(C, dtype=dtype, seed=4),
                       "running_var": normal(C, dtype=dtype, seed=5) ** 2}
            yield Case("update_running", f"{shape}-{np.dtype(dtype)}",
                       running | {"mean": mean, "var": var}, {"momentum": 0.1, "n": dy.size // C},
                       writes=("running_mean", "running_var"))


def _softmax() -> Iterator[Case]:
    for dtype in FLOATS:
        for shape in ((1, 1), (2, 3), (10, 33), (100, 16), (5, 4, 3, 17)):
            label, z = f"{shape}-{np.dtype(dtype)}", 30 * normal(*shape, dtype=dtype)
            yield Case("softmax", label, {"z": z})
            dy = normal(*shape, dtype=dtype, seed=1)
            yield Case("softmax_dx", label, {"dy": dy, "y": Backend().softmax(z)})
            if len(shape) == 2:
                labels = np.random.default_rng(5).integers(0, shape[0], shape[1])
                for name, target in (("int64", labels), ("uint8", labels.astype(np.uint8)),
                                     ("one-hot", np.eye(shape[0], dtype=dtype)[:, labels].copy()),
                                     ("soft", np.abs(normal(*shape, dtype=dtype, seed=2)))):
                    yield Case("softmax_cross_entropy", f"{label}-{name}",
                               {"z": z, "target": target})


def _totals() -> Iterator[Case]:
    for dtype in FLOATS:
        loss, sums = {"loss": normal(1, dtype=dtype)}, {"sums": normal(3, dtype=np.float64)}
        for K, N in ((1, 1), (3, 1), (10, 33), (10, 128), (1000, 40), (2, 1500)):
            rng = np.random.default_rng([7, K, N])
            for data in (normal, ties, special):
                y, label = data(K, N, dtype=dtype), f"{(K, N)}-{data.__name__}-{np.dtype(dtype)}"
                known = sums | loss | {"y": y}
                labels = np.where(rng.random(N) < 0.5, y.argmax(axis=0), rng.integers(0, K, N))
                yield Case("tally", f"{label}-none", known, {"target": None}, writes=("sums",))
                for name, target in (("labels", labels), ("uint8", labels.astype(np.uint8)),
                                     ("shares", data(K, N, dtype=dtype))):
                    yield Case("tally", f"{label}-{name}", known | {"target": target},
                               writes=("sums",))
        yield Case("tally", f"maps-{np.dtype(dtype)}",
                   sums | loss | {"y": normal(3, 4, 5, dtype=dtype)}, {"target": None},
                   writes=("sums",))


def _winners() -> Iterator[Case]:
    """Columns with several NaNs and with equal numbers: of both the first counts."""
    for dtype in FLOATS:
        for shape in ((1, 1), (10, 33), (1000, 40), (3, 600, 5), (300, 3, 70)):
            for data in (normal, ties, special):
                x = data(*shape, dtype=dtype)
                if data is special:
                    x[np.random.default_rng(9).random(shape) < 0.1] = np.nan
                for axis in range(len(shape) - 1):
                    yield Case("argmax", f"{shape}-{axis}-{data.__name__}-{np.dtype(dtype)}",
                               {"x": x}, {"axis": axis}, exact=True)


def _scans() -> Iterator[Case]:
    """All samples in all steps; fewer and fewer samples; with masks; predictions."""
    for dtype in FLOATS:
        for cell in ("lstm", "gru", "tanh", "relu", "sigmoid", "softplus"):
            shapes = (3, 5, 4), (1, 1, 2), (17, 20, 3), (2, 3, 35)
            for H, N, T in shapes if cell in ("lstm", "gru", "tanh") else shapes[:1]:
                for kind in ("full", "ragged", "masks", "prediction"):
                    yield from scans(cell, H, N, T, kind, dtype)


def scans(cell: str, H: int, N: int, T: int, kind: str, dtype: Any) -> Iterator[Case]:
    """A scan and its gradient, and the same of a product. With masks the host does not know the
    lengths."""
    rules, rng = cell_of(cell), np.random.default_rng([H, N, T])
    ends = np.sort(rng.integers(0, T + 1, N))[::-1]
    counts = [int((ends > t).sum()) if kind == "ragged" else N for t in range(T)]
    P, rows = sum(counts), rules.gates * H
    U = normal(rows, H, dtype=dtype, seed=1) * dtype(H**-0.5)
    arrays = {"a": 2 * normal(rows, P, dtype=dtype), "U": U}
    arrays |= {f"states {k}": normal(H, N, dtype=dtype, seed=2 + k) for k in range(rules.states)}
    if cell == "gru" and N % 2:
        arrays["bias"] = normal(H, dtype=dtype, seed=4)
    options = {"cell": cell, "counts": counts, "reverse": kind == "ragged"}
    known = {"lengths": ends[None].astype(dtype)} if kind == "masks" else {}
    label = f"{cell}-{H}x{N}x{T}-{kind}-{np.dtype(dtype)}"
    scan = Case("scan", label, arrays | known, options | {"keep": kind != "prediction"})
    yield scan
    factors = {"x": normal(3, P, dtype=dtype, seed=8), "W": normal(rows, 3, dtype=dtype, seed=9)}
    b = {"b": normal(rows, dtype=dtype, seed=10) if N % 2 else None}
    given = {name: array for name, array in arrays.items() if name != "a"} | factors
    yield Case("scan_product", label, given | known | (b if N % 2 else {}),
               scan.options | ({} if N % 2 else b))
    if kind == "prediction":
        return
    kept = call(Backend(), "scan", scan.arrays | scan.options)[2]
    dy = normal(H, P, dtype=dtype, seed=5)
    if kind == "masks":
        dy *= (np.repeat(np.arange(T), N) < np.tile(ends, T)).astype(dtype)
    arrays = {"U": U} | {f"kept {k}": array for k, array in enumerate(kept)}
    arrays |= {f"dstates {k}": normal(H, N, dtype=dtype, seed=6 + k) for k in range(rules.states)}
    last_alone = kind == "full" and N == 5
    arrays |= known | ({} if last_alone else {"dy": dy})
    options |= {"dy": None} if last_alone else {}
    yield Case("scan_backward", label, arrays, options)
    yield Case("scan_product_backward", label, arrays | {
        "x": factors["x"], "dW": normal(rows, 3, dtype=dtype, seed=11),
        "dU": normal(rows, H, dtype=dtype, seed=12)}, options | {"accumulate": kind == "ragged"},
        writes=("dW", "dU"))


def _dropout() -> Iterator[Case]:
    for key, step_use in (((0, 0), (0, 0)), ((2**64 - 1, 7), (5, 2**64 - 1)),
                          ((1234, 3), (2**40, 1))):
        counter = {"counter": np.array(step_use, np.uint64)}
        for n in (1, 2, 7, 8, 9, 63, 64, 1001):
            yield Case("random_bits", f"{n}-{key}", counter, {"n": n, "key": key}, exact=True)
        for dtype in FLOATS:
            for shape in ((1,), (7, 3), (3, 5, 4, 17), (8, 6, 6, 16)):
                for p in (0.0, 0.3, 0.5, 0.999):
                    label, x = f"{shape}-{p}-{key}-{np.dtype(dtype)}", special(*shape, dtype=dtype)
                    keep = np.random.default_rng(6).random(shape) >= p
                    yield Case("dropout", label, {"x": x} | counter, {"p": p, "key": key},
                               exact=True)
                    yield Case("dropout_dx", label, {"dy": x, "keep": keep}, {"p": p}, exact=True)


def _optimizers() -> Iterator[Case]:
    for dtype in FLOATS:
        for n, decayed in ((1, 0), (1, 1), (17, 5), (1000, 1000), (70001, 65536)):
            wg = {"w": normal(n, dtype=dtype), "g": normal(n, dtype=dtype, seed=1)}
            v = normal(n, dtype=dtype, seed=2)
            for label, rule, velocity in (("plain", "sgd", {}), ("momentum", "sgd", {"v": v}),
                                          ("nesterov", "nesterov", {"v": v})):
                yield Case("update", f"{label}-{n}-{decayed}-{np.dtype(dtype)}",
                           wg | velocity | {"hyper": np.array([0.1, 0.9, 0.01])},
                           {"rule": rule, "decayed": decayed}, writes=("w", *velocity))
            for rule in ("adam", "adamw"):
                yield Case("update", f"{rule}-{n}-{decayed}-{np.dtype(dtype)}", wg | {
                    "m": v, "v": normal(n, dtype=dtype, seed=3) ** 2,
                    "hyper": np.array([1e-3, 0.9, 0.999, 1e-8, 0.01, 1 - 0.9**3, 1 - 0.999**3])},
                           {"rule": rule, "decayed": decayed}, writes=("w", "m", "v"))
            yield from other_optimizers(f"{n}-{decayed}-{np.dtype(dtype)}", wg,
                                        {"decayed": decayed})


def large_columns() -> Iterator[Case]:
    """Columns of matrices that several threads share."""
    index = np.random.default_rng(9).permutation(3000)[:2000]
    yield Case("take_columns", "large", {"m": normal(300, 3000), "index": index}, exact=True)
    yield Case("put_columns", "large", {"m": normal(300, 2000), "index": index}, {"columns": 3000},
               exact=True)


def other_optimizers(label: str, wg: dict[str, np.ndarray], options: dict[str, Any]
                     ) -> Iterator[Case]:
    """All optimizers except SGD and Adam, with slots as after some steps."""
    w = wg["w"]
    m, v, u = (normal(w.size, dtype=w.dtype, seed=seed) for seed in (2, 3, 4))
    adam = [1e-3, 0.9, 0.999, 1e-8, 0.01, 1 - 0.9**3, 1 - 0.999**3]
    centred, rmsprop = {"v": m * m + abs(v) + 0.5}, [0.01, 0.99, 1e-8, 0.1, 0.9]
    for rule, slots, hyper in (
            ("adamax", {"m": m, "u": abs(v)}, [2e-3, 0.9, 0.999, 1e-8, 0.01, 1 - 0.9**3]),
            ("amsgrad", {"m": m, "v": v * v, "top": u * u}, adam),
            ("nadam", {"m": m, "v": v * v}, [1e-4, 2e-3, 0.9, 0.999, 1e-8, 0.01, 0.003]),
            ("rprop", {"before": m, "s": abs(u) * (np.arange(w.size) % 3 > 0)},
             [0.1, 0.5, 1.2, 1e-3, 2.0, 0.1]),
            ("adagrad", {"s": v * v}, [0.01, 1e-10, 0.1]),
            ("adadelta", {"v": v * v, "u": u * u}, [1.0, 0.9, 1e-6, 0.1]),
            ("rmsprop", centred, rmsprop), ("rmsprop", centred | {"mean": m}, rmsprop),
            ("rmsprop", centred | {"velocity": u}, rmsprop),
            ("rmsprop", centred | {"mean": m, "velocity": u}, rmsprop),
            ("lion", {"m": m}, [1e-4, 0.9, 0.99, 0.1])):
        yield Case("update", f"{rule}-{'-'.join(slots)}-{label}",
                   wg | slots | {"hyper": np.array(hyper)}, options | {"rule": rule},
                   writes=("w", *slots))


FAMILIES = (_memory, _batches, _feeds, _matrices, _tokens, _columns, _convolution, _pooling,
            _elementwise, _curves, _normalisation, _softmax, _totals, _winners, _scans, _dropout,
            _optimizers)
CASES: list[Case] = [case for family in FAMILIES for case in family()]


def by_method(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """The cases of each method. A test runs all of a method: pytest would take as long for each
    case as most of them take."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.method, []).append(case)
    return found


def missing_methods() -> set[str]:
    return public_methods() - {case.method for case in CASES}
