"""Checks of the fused passes (batch norm, softmax, activations, average pooling) against base.py in
double precision, over a grid of problems; and mistakes they must notice."""

from __future__ import annotations

from typing import Any

import numpy as np
from kernel_setting import Mutant, Setting, base, other_limits
from parity import distance, normal, ties

from xpnet.backends import Window
from xpnet.backends.activations import ACTIVATIONS
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.backends.cupy.elementwise import FEW_PIECES

# ||a - b|| / ||b||; halves are rounded once
TOLERANCE = {np.float16: 1e-3, np.float32: 1e-5, np.float64: 1e-12}
ENDS = tuple(cuda_launch.ACTIVATIONS)       # of the kernels that make z
MOMENTUM, EPS = 0.1, 1e-5


def near(s: Setting, results: Any, expected: Any, times: float = 1.0, scale: float = 0.0) -> None:
    """Fails if a result has another type or shape, or is further away in norm than `times` what
    its type explains.

    `scale` is the size of the terms that the results are sums of: a sum that happens to be close to
    0 has the rounding errors of its terms.
    """
    results, expected = (r if isinstance(r, tuple) else (r,) for r in (results, expected))
    assert len(results) == len(expected)
    for k, (result, right) in enumerate(zip(results, expected)):
        a, right = s.backend.to_numpy(result), np.asarray(right)
        assert (a.dtype, a.shape) == (s.dtype, right.shape), (f"{s}: result {k} is {a.dtype} "
                                                              f"{a.shape}")
        right = double(right)               # the norm of many halves would overflow
        norm = max(float(np.linalg.norm(right[np.isfinite(right)])), 1e-30)
        error = distance(a, right) * norm / max(norm, scale)
        assert error <= times * TOLERANCE[np.dtype(s.dtype).type], (f"{s}: result {k} is "
                                                                    f"{error:.1e} away in norm")


def largest(*arrays: np.ndarray | None) -> float:
    """The largest finite absolute value."""
    return max(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in arrays if a is not None)


def double(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64)


def drawn(s: Setting, *shape: int, seed: int = 0) -> np.ndarray:
    return normal(*shape, dtype=s.dtype, seed=seed)


def activation(s: Setting) -> str | None:
    """One of them, another for the next problem."""
    return ENDS[sum(s.shape) % len(ENDS)]


# --- normalisation --------------------------------------------------------------------------------

def channels(s: Setting, mean: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, gamma and beta; gamma and beta are no halves' rounding away from 0."""
    C = s.shape[0]
    x = (3 * normal(*s.shape, dtype=np.float64) + mean).astype(s.dtype)
    return x, drawn(s, C, seed=1) + s.dtype.type(2), drawn(s, C, seed=2)


def check_batch_norm(s: Setting) -> None:
    for mean, times in ((0.5, 1), (1000, 30)):
        if mean == 1000 and (s.dtype == np.float16 or s.shape[1] * s.shape[2] * s.shape[3] < 8):
            # halves near 1000 have no digits left, and few elements may happen to have no variance
            continue
        x, gamma, beta = channels(s, mean)
        wide = [double(a) for a in (x, gamma, beta)]
        right, *moments = base.batch_norm(*wide, 0.1, activation=activation(s))
        y, *results = s.backend.batch_norm(*(s.to_device(a) for a in (x, gamma, beta)), 0.1,
                                           activation=activation(s))
        near(s, y, right, times, scale=terms(*wide, *moments))
        near(s, tuple(results), tuple(moments), times, scale=largest(x))


def check_batch_norm_inference(s: Setting) -> None:
    x, gamma, beta = channels(s)
    mean, var = drawn(s, s.shape[0], seed=3), drawn(s, s.shape[0], seed=4) ** 2
    y = s.backend.batch_norm_inference(*(s.to_device(a) for a in (x, gamma, beta, mean, var)), 0.1,
                                       activation=activation(s))
    wide = [double(a) for a in (x, gamma, beta, mean, var)]
    near(s, y, base.batch_norm_inference(*wide, 0.1, activation=activation(s)), scale=terms(*wide))


def terms(x: np.ndarray, *per_channel: np.ndarray) -> float:
    """The largest of the two terms of batch norm, gamma (x - mean) / sqrt(var + eps) and beta."""
    gamma, beta, mean, var = (a[:, None, None, None] for a in per_channel)
    return largest(gamma * (x - mean) / np.sqrt(var + 0.1), beta)


def check_batch_norm_backward(s: Setting) -> None:
    x, gamma, beta = channels(s)
    y, mean, var = (a.astype(s.dtype)
                    for a in base.batch_norm(double(x), double(gamma), double(beta), 0.1,
                                                               activation=activation(s)))
    arrays = drawn(s, *s.shape, seed=5), x, y, gamma, mean, var
    for accumulate in (False, True):
        grads = (drawn(s, len(gamma), seed=6) * s.dtype.type(9),
                 drawn(s, len(gamma), seed=7) * s.dtype.type(9))
        ours, right = [s.to_device(g) for g in grads], [double(g) for g in grads]
        options = {"activation": activation(s), "accumulate": accumulate}
        dx = s.backend.batch_norm_backward(*(s.to_device(a) for a in arrays), 0.1,
                                           gamma_grad=ours[0], beta_grad=ours[1], **options)
        dx_right = base.batch_norm_backward(*(double(a) for a in arrays), 0.1, gamma_grad=right[0],
                                            beta_grad=right[1], **options)
        dz = base.activation_backward(double(arrays[0]), double(y), activation(s))
        for result, correct in zip((dx, *ours), (dx_right, *right)):
            near_enough(s, result, correct, dz)


def near_enough(s: Setting, result: Any, right: np.ndarray, terms: np.ndarray) -> None:
    """For sums of `terms`: a sum may be much smaller than what it is made of, and so have fewer
    digits; or, of many terms, much larger, and is then rounded itself."""
    unit = TOLERANCE[s.dtype.type]
    bound = unit * (10 * (float(np.abs(terms).max()) + 1) + float(np.abs(right).max()))
    a = s.backend.to_numpy(result)
    error = float(np.abs(double(a) - right).max())
    assert a.dtype == s.dtype and error <= bound, (f"{s}: {a.dtype}, {error:.1e} away, more than "
                                                   f"{bound:.1e}")


def check_constant_channel(s: Setting) -> None:
    """Each channel has one value, whose mean is itself to the bit: nothing is left to divide by a
    deviation of 0."""
    C = s.shape[0]
    gamma, beta = drawn(s, C, seed=1) + s.dtype.type(2), drawn(s, C, seed=2)
    value = (np.linspace(1, 2, C) * 100.1).astype(s.dtype)
    # The sum of a few equal elements may be exact; of 2400, some threads add 12.
    for shape in (s.shape, (C, 1, 1, 2400)):
        x = np.broadcast_to(value[:, None, None, None], shape).copy()
        y, mean, var = s.backend.batch_norm(*(s.to_device(a) for a in (x, gamma, beta)), 1e-5)
        assert (s.backend.to_numpy(mean).tobytes() == value.tobytes()
                and not s.backend.to_numpy(var).any())
        assert (s.backend.to_numpy(y) == beta[:, None, None, None]).all()


def check_update_running(s: Setting) -> None:
    C = s.shape[0]
    ours = [s.to_device(drawn(s, C, seed=k)) for k in (1, 2)]
    right = [double(drawn(s, C, seed=k)) for k in (1, 2)]
    mean, var = drawn(s, C, seed=3), drawn(s, C, seed=4) ** 2
    s.backend.update_running(*ours, s.to_device(mean), s.to_device(var), MOMENTUM, 5)
    base.update_running(*right, double(mean), double(var), MOMENTUM, 5)
    near(s, tuple(ours), tuple(right), scale=largest(mean, var))
    if s.dtype != np.float16:               # a half is rounded once more, and stops a little before
        still, spread = s.to_device(np.zeros(C, s.dtype)), s.to_device(np.ones(C, s.dtype))
        target = s.to_device((np.linspace(1, 2, C) * 100.1).astype(s.dtype))
        for _ in range(500):
            s.backend.update_running(still, spread, target, s.to_device(np.zeros(C, s.dtype)),
                                     MOMENTUM, 5)
        assert s.backend.to_numpy(still).tobytes() == s.backend.to_numpy(target).tobytes()
        s.backend.update_running(still, spread, s.to_device(drawn(s, C)), spread, 0.0, 5)
        assert s.backend.to_numpy(still).tobytes() == s.backend.to_numpy(target).tobytes()


# --- activations ----------------------------------------------------------------------------------

def check_activation(s: Setting) -> None:
    z, dy, f = s.array(s.shape), drawn(s, *s.shape), activation(s)
    near(s, s.backend.activate(s.to_device(z), f), base.activate(double(z), f))
    near(s, s.backend.activation_backward(s.to_device(dy), s.to_device(z), f),
         base.activation_backward(double(dy), double(z), f))
    for accumulate in (False, True):
        y, grad = (base.activate(drawn(s, *s.shape), f),
                   drawn(s, s.shape[0], seed=2) + s.dtype.type(100))
        ours, right = s.to_device(grad), double(grad)
        near(s, s.backend.activation_backward(s.to_device(dy), s.to_device(y), f, bias_grad=ours,
                                              accumulate=accumulate),
             base.activation_backward(double(dy), double(y), f, bias_grad=right,
                                      accumulate=accumulate))
        near_enough(s, ours, right, right)


def check_add(s: Setting) -> None:
    """Sums with each activation that the kernel applies, and with one that runs after it."""
    a, b, f = s.array(s.shape), s.array(s.shape[::-1]).reshape(s.shape), activation(s)
    first, second = s.to_device(a), s.to_device(b)
    s.agree(s.backend.add(first, second), base.add(a, b))
    near(s, s.backend.add(first, second, "relu"), base.add(a, b, "relu"), 0.0)
    near(s, s.backend.add(first, second, f), base.add(double(a), double(b), f))
    near(s, s.backend.add(first, second, "leaky_relu"), base.add(a, b, "leaky_relu"), 2)


def check_curve(s: Setting) -> None:
    """Another of them for the next problem, and other constants for every second one."""
    f = (cuda_launch.curves()[(131 * s.shape[0] + 31 * s.shape[1] + 7
                               * s.shape[2] + s.shape[3]) % len(cuda_launch.curves())])
    constants = tuple(0.75 * c for c in ACTIVATIONS[f].constants.values()) if s.backwards else ()
    z, dy, grad = (s.array(s.shape), drawn(s, *s.shape),
                   drawn(s, s.shape[0], seed=2) + s.dtype.type(100))
    near(s, s.backend.activate(s.to_device(z), f, constants),
         base.activate(double(z), f, constants))
    near(s, s.backend.activation_backward(s.to_device(dy), s.to_device(z), f, constants),
         base.activation_backward(double(dy), double(z), f, constants))
    kept, ours, right = np.abs(drawn(s, *s.shape)), s.to_device(grad), double(grad)
    near(s, s.backend.activation_backward(s.to_device(dy), s.to_device(kept), f, constants,
                                          bias_grad=ours, accumulate=True),
         base.activation_backward(double(dy), double(kept), f, constants, bias_grad=right,
                                  accumulate=True))
    near_enough(s, ours, right, right)


# --- softmax --------------------------------------------------------------------------------------

def ways(s: Setting) -> list[dict[str, int]]:
    """Limits for softmax: the usual ones, or, backwards, as if one thread were enough for wide
    vectors, with the classes in registers and without."""
    return [{"ENOUGH": 1}, {"ENOUGH": 1, "NEIGHBOURS": 2**30}] if s.backwards else [{}]


def check_softmax(s: Setting) -> None:
    z, dy = s.array(s.shape), drawn(s, *s.shape)
    y = base.softmax(double(drawn(s, *s.shape))).astype(s.dtype)
    for limits in ways(s):
        with other_limits(**limits):
            near(s, s.backend.softmax(s.to_device(z)), base.softmax(double(z)))
            near(s, s.backend.softmax_dx(s.to_device(dy), s.to_device(y)),
                 base.softmax_dx(double(dy), double(y)), 10, scale=largest(dy * y))


def check_cross_entropy(s: Setting) -> None:
    C, H, W, N = s.shape
    K = C * H * W
    z = s.dtype.type(4) * drawn(s, K, N)
    soft = np.abs(drawn(s, K, N, seed=1)) / s.dtype.type(1 + K // 100)  # the loss fits into a half
    labels = np.random.default_rng(K).integers(-1, K + 1, N)                # some are no classes
    labels[0] = K - 1
    for limits in ways(s):
        with other_limits(**limits):
            near(s, s.backend.softmax_cross_entropy(s.to_device(z), s.to_device(soft)),
                 base.softmax_cross_entropy(double(z), double(soft)), 10)
            for given in (labels, labels.astype(np.int32)):
                near(s, s.backend.softmax_cross_entropy(s.to_device(z), s.backend.asarray(given)),
                     base.softmax_cross_entropy(double(z), given), 10)


def check_mean_of_losses(s: Setting) -> None:
    """Of as many losses as one block adds up, of one more, and of more than twice as many."""
    few = FEW_PIECES * cuda_launch.TURN * cuda_launch.THREADS
    N = (few, few + 1, 2 * few + 37 * s.shape[3])[s.shape[0] % 3]
    z, labels = drawn(s, 2, N), np.random.default_rng(N).integers(-1, 2, N)
    near(s, s.backend.softmax_cross_entropy(s.to_device(z), s.to_device(labels)),
         base.softmax_cross_entropy(double(z), labels), 10)


# --- pooling, dropout -----------------------------------------------------------------------------

def check_avg_pool2d(s: Setting) -> None:
    if not all(taps.any(axis=1).all() for taps in s.window.inside(*s.shape[1:3])):
        return                  # a window that is all padding has no mean; the layers refuse it
    x, dy = s.array(s.shape), s.array(s.output())
    for count in (True, False):
        near(s, s.backend.avg_pool2d(s.to_device(x), s.window, count_padding=count),
             base.avg_pool2d(double(x), s.window, count_padding=count), scale=largest(x))
        near(s, s.backend.avg_pool2d_dx(s.to_device(dy), s.shape, s.window, count_padding=count),
             base.avg_pool2d_dx(double(dy), s.shape, s.window, count_padding=count),
             scale=largest(dy))


def check_dropout_dx(s: Setting) -> None:
    dy = s.array(s.shape)
    keep = np.random.default_rng(dy.size).random(s.shape) >= 0.4
    s.agree(s.backend.dropout_dx(s.to_device(dy), 0.4, s.to_device(keep)),
            base.dropout_dx(dy, 0.4, keep))


# --- the order of sums ----------------------------------------------------------------------------

def check_order(s: Setting) -> None:
    """Sums have the same bits whatever the number of blocks and whichever comes first."""
    C, f = s.shape[0], activation(s)
    x, gamma, beta = channels(s)
    results = []
    for most, backwards in ((cuda_launch.MAX_GRID, s.backwards), ((2, 2), not s.backwards)):
        for library in getattr(s.backend.xp, "libraries", ()):  # a real GPU has its own order
            library.run_backwards(backwards)
        with other_limits(MAX_GRID=most):
            y, mean, var = s.backend.batch_norm(*(s.to_device(a) for a in (x, gamma, beta)), 0.1,
                                                activation=f)
            grads = [s.backend.empty((C,), s.dtype) for _ in range(3)]
            dx = s.backend.batch_norm_backward(s.to_device(x), s.to_device(x), y,
                                               s.to_device(gamma), mean, var, 0.1,
                                               activation=f, gamma_grad=grads[0],
                                               beta_grad=grads[1])
            dz = s.backend.activation_backward(dx, y, f, bias_grad=grads[2])
        results.append(tuple(s.backend.to_numpy(a) for a in (y, mean, var, dx, dz, *grads)))
    s.agree(tuple(s.backend.asarray(a) for a in results[0]), results[1])


GRIDS = {"batch_norm": check_batch_norm, "batch_norm_inference": check_batch_norm_inference,
         "batch_norm_backward": check_batch_norm_backward, "update_running": check_update_running,
         "constant_channel": check_constant_channel,
         "activation": check_activation, "add": check_add, "curve": check_curve,
         "softmax": check_softmax, "cross_entropy": check_cross_entropy,
         "mean_of_losses": check_mean_of_losses,
         "avg_pool2d": check_avg_pool2d, "order": check_order, "dropout_dx": check_dropout_dx}


def every_instantiation(backend: CupyBackend) -> None:
    """Asks for each kernel of these families once: for each activation one element and 16 bytes at
    a time, each width."""
    for dtype in cuda_launch.TYPES:
        widths = cuda_launch.widths(dtype)
        shapes = [*((1, 1, 3, N) for N in (1, 3, 5, 7, 9)),
                  *((C, 1, 2, widths[-1]) for C in range(1, 6)),
                  # the last one's row is more than one piece
                  *((1, 3, 3, N) for N in widths), (1, 5, 5, 43)]
        for shape in shapes:
            for backwards in (False, True):
                window = Window.make(2, padding=1, stride=1 + backwards)
                for check in GRIDS.values():
                    check(Setting(backend, shape, window, dtype, ties, 0, backwards))


# Mistakes: the file, what stands there, what stands there instead, and the check that has to
# notice.
MUTANTS: dict[str, Mutant] = {
    "threads merge what others have not written yet": (
        "rows", "        __syncthreads();\n        if (lane < half)", "        if (lane < "
                                                                      "half)", "activation"),
    "a result is overwritten before all have read it": (
        "rows", "call before has been read\n    __syncthreads();", "call before has been "
                                                                   "read", "cross_entropy"),
    "the last turn of a piece is left out": ("rows", "i < (s).end; i +=", "i + STEP(V) < (s).end; "
                                                                          "i +=", "activation"),
    "a difference instead of a sum": ("activation", "+ Number(second", "- Number(second", "add"),
    "the first of each access is added to all": ("activation", "Number(second[u].at[k])",
                                                 "Number(second[u].at[0])", "add"),
    "a sum leaves out its second turn": ("activation", "store_turn(y, i, n, first)",
                                         "store(y + i, first[0])", "add"),
    "a NaN becomes 0": ("functions", "z < Number(0) ? Number(0) : z", "z > Number(0) ? z : "
                                                                      "Number(0)", "activation"),
    "a curve does not divide by its constant": ("curves", "log1p(exp(-k * fabs(z))) / k",
                                                "log1p(exp(-k * fabs(z)))", "curve"),
    "a NaN is cut off": ("curves", "return z < low ? low : z > high ? high : z;",
                         "return z > low ? z < high ? z : high : low;", "curve"),
    "moments of two sets have the wrong weights": ("normalization", "b.n / n : Number(0)",
                                                   "a.n / n : Number(0)", "batch_norm"),
    "the mean of equal elements is rounded": ("normalization", "const Number first = "
                                                               "Number(turn[0].at[0]);",
                                              "const Number first = Number(0);",
                                              "constant_channel"),
    "a running mean stops before its target": ("normalization", "moved == before && m > Number(0) "
                                                                "?", "false ?",
                                               "update_running"),
    "zeros beyond the end count": ("normalization", "s.end ? Number(turn[u].at[k]) - some.mean : "
                                                    "Number(0);",
                                   "s.end + 1000 ? Number(turn[u].at[k]) - some.mean : "
                                   "Number(0);", "batch_norm"),
    "the mean of dz is its sum": ("normalization", "level = dbeta / n", "level = dbeta",
                                  "batch_norm_backward"),
    "the running variance moves away": ("normalization", "* unbiased - spread",
                                        "* unbiased + spread", "update_running"),
    "a thread without samples reads on": ("softmax", "return n < P ?", "return n < P + V ?",
                                          "softmax"),
    "the losses of the last piece are left out": ("softmax", "else parts[piece] = all",
                                                  "else parts[piece] = piece + 1 < p.per_row ? all "
                                                  ": 0", "mean_of_losses"),
    "a mean of losses is their sum": ("softmax", "T(all / Number(N))", "T(all / Number(N > 0))",
                                      "mean_of_losses"),
    "every piece of the losses is the first one": ("softmax", "span(p, 0, piece)",
                                                   "span(p, 0, 0 * piece)", "mean_of_losses"),
    "a class after the last one counts": ("softmax", "T(-Number(1) / Number(0))", "T(0)",
                                          "softmax"),
    "one class too many is kept": ("softmax", "if ((R) == 0 || k < (K))",
                                   "if ((R) == 0 || k <= (K))", "softmax"),
    "the first class kept is used twice": ("softmax", "return kept[r]", "return kept[r - (r == 1)]",
                                           "softmax"),
    "a label after the last class": ("softmax", "given < K ?", "given <= K ?", "cross_entropy"),
    "padding counts where dilation jumps over the edge": ("avg_pool", "(dilation - 1 - start) / "
                                                                      "dilation",
                                                          "-start / dilation", "avg_pool2d"),
}
