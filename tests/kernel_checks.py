"""The CUDA kernels against base.py, on the CPU: CupyBackend over the fake CuPy over the shim.

    python tests/kernel_checks.py FOLDER [--kernels DIR] [--only WORD ..] [--quick] CHECK ..

test_cuda_kernels.py runs this in a process of its own, because AddressSanitizer must be loaded before Python. FOLDER
is for compiled libraries; --kernels reads other sources (mutated ones), --only compiles what contains one of the words,
--quick without optimisation.
A failed check ends the process with status 3; the sanitizers end it with 99.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shim
from fake_cupy import FakeCupy, installed
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from parity_cases import CASES, agree, distance, normal, run, same_bits, special, ties

import xpnet as xn
from xpnet.backends import Backend, Window, cuda_launch
from xpnet.backends.cupy_backend import CupyBackend
from xpnet.backends.numpy_backend import NumpyBackend

CHECK_FAILED = 3
SANITIZER_FAILED = 99
base = Backend()


@dataclass
class Setting:
    """One way to run a kernel: the problem, and circumstances that must not matter."""

    backend: CupyBackend
    shape: tuple[int, int, int, int]        # (C, H, W, N)
    window: Window
    dtype: Any
    data: Callable[..., np.ndarray]
    offset: int                             # elements by which inputs are shifted from an aligned address
    backwards: bool                         # threads and blocks in the opposite order

    def output(self) -> tuple[int, int, int, int]:
        return (self.shape[0], *self.window.output_size(*self.shape[1:3]), self.shape[3])

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.data(*shape, dtype=self.dtype)

    def to_device(self, a: np.ndarray) -> Any:
        """`a` on the device, contiguous, `offset` elements behind an aligned address; its buffer ends where `a` does."""
        buffer = self.backend.empty((self.offset + a.size,), a.dtype)
        view = buffer[self.offset:].reshape(a.shape)
        view[...] = self.backend.asarray(a)
        return view

    def agree(self, results: Any, expected: Any) -> None:
        results, expected = (r if isinstance(r, tuple) else (r,) for r in (results, expected))
        for result, right in zip(results, expected):
            assert same_bits(self.backend.to_numpy(result), right), f"{self}\n{self.backend.to_numpy(result)}\n{right}"


@st.composite
def axis(draw: st.DrawFn) -> tuple[int, int, int, int, int, int]:
    """(size, kernel, stride, before, after, dilation) of one axis, with a window that fits."""
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    extent = dilation * (kernel - 1) + 1
    before, after = draw(st.integers(0, extent - 1)), draw(st.integers(0, extent - 1))
    least = max(1, extent - before - after)
    return draw(st.integers(least, least + 6)), kernel, draw(st.integers(1, 3)), before, after, dilation


def problems(backend: CupyBackend, words: list[str]) -> st.SearchStrategy[Setting]:
    types = [dtype for dtype, name in cuda_launch.TYPES.items() if any(word in f"<{name}," for word in words)]

    @st.composite
    def problem(draw: st.DrawFn) -> Setting:
        (H, kh, sh, top, bottom, dh), (W, kw, sw, left, right, dw) = draw(axis()), draw(axis())
        window = Window((kh, kw), (sh, sw), (top, bottom, left, right), (dh, dw))
        N = draw(st.sampled_from((1, 2, 3, 4, 5, 7, 8, 16, 17, 33)))
        return Setting(backend, (draw(st.integers(1, 4)), H, W, N), window, draw(st.sampled_from(types)),
                       draw(st.sampled_from((normal, ties, special))), draw(st.sampled_from((0, 0, 1, 2))),
                       draw(st.booleans()))
    return problem()


def wide(s: Setting, a: np.ndarray) -> np.ndarray:
    """Halves are added in float, and rounded once."""
    return a.astype(np.float32) if s.dtype == np.float16 else a


def check_im2col(s: Setting) -> None:
    x = s.array(s.shape)
    s.agree(s.backend.im2col(s.to_device(x), s.window), base.im2col(x, s.window))


def check_col2im(s: Setting) -> None:
    C, OH, OW, N = s.output()
    cols = s.array((C * s.window.taps, OH * OW * N))
    s.agree(s.backend.col2im(s.to_device(cols), s.shape, s.window),
            base.col2im(wide(s, cols), s.shape, s.window).astype(s.dtype))


def check_max_pool2d(s: Setting) -> None:
    if not all(taps.any(axis=1).all() for taps in s.window.inside(*s.shape[1:3])):
        return                  # a window that is all padding: the layers refuse it, the contract leaves it open
    x = s.array(s.shape)
    s.agree(s.backend.max_pool2d(s.to_device(x), s.window), base.max_pool2d(x, s.window))


def check_max_pool2d_dx(s: Setting) -> None:
    dy = s.array(s.output())
    taps = np.random.default_rng(dy.size).integers(0, s.window.taps, dy.shape)          # any tap, on padding too
    argmax = taps.astype(base.argmax_dtype(s.window))
    s.agree(s.backend.max_pool2d_dx(s.to_device(dy), s.to_device(argmax), s.shape, s.window),
            base.max_pool2d_dx(wide(s, dy), argmax, s.shape, s.window).astype(s.dtype))


def check_dropout(s: Setting) -> None:
    x, (key, step, use, p) = s.array(s.shape), ((2**64 - 1, x_size := int(np.prod(s.shape))), x_size, 2**64 - 1, 0.3)
    counter = np.array([step, use], np.uint64)
    s.agree(s.backend.dropout(s.to_device(x), p, key, s.to_device(counter)), base.dropout(x, p, key, counter))
    n = max(x_size - s.offset, 1)
    s.agree(s.backend.random_bits(n, key, s.to_device(counter)), base.random_bits(n, key, counter))


def grid(check: Callable[[Setting], None], examples: int = 120) -> Callable[[CupyBackend, list[str]], None]:
    """The check over a grid of problems that hypothesis draws, the same at every run."""
    def run_grid(backend: CupyBackend, words: list[str]) -> None:
        @settings(max_examples=examples, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
        @given(problems(backend, words))
        def over_the_grid(s: Setting) -> None:
            for library in backend.xp.libraries:
                library.run_backwards(s.backwards)
            with np.errstate(all="ignore"):
                check(s)
        over_the_grid()
    return run_grid


def small_grids(backend: CupyBackend, words: list[str]) -> None:
    """Launches that are too small for the work: each thread must go on with what no other one does."""
    before = cuda_launch.MAX_GRID, cuda_launch.THREADS
    cuda_launch.MAX_GRID, cuda_launch.THREADS = (2, 2), 8
    try:
        for check in GRIDS.values():
            grid(check, examples=30)(backend, words)
    finally:
        cuda_launch.MAX_GRID, cuda_launch.THREADS = before


def every_instantiation(backend: CupyBackend, words: list[str]) -> None:
    """Every kernel that can be asked for has been asked for."""
    assert words == [""], "this check is about all of them"
    for dtype in cuda_launch.TYPES:
        for N in (*cuda_launch.widths(dtype), 3):
            for window in (Window.make(2, padding=1), Window.make((16, 17), padding=(15, 0, 16, 0))):
                s = Setting(backend, (1, 3, 3, N), window, dtype, ties, 0, False)
                for check in GRIDS.values():
                    check(s)
    launched = {name for library in backend.xp.libraries for name in library.launched}
    assert launched == {name for names in cuda_launch.kernels().values() for name in names}


def parity(backend: CupyBackend, words: list[str]) -> None:
    """The table that all backends share. What CuPy would refuse (see fake_cupy.py) is refused here too."""
    for case in CASES:
        if all(a.size < 5000 for a in case.arrays.values()):
            agree(case, run(case, backend), run(case, base))


def other_arrays(backend: CupyBackend, words: list[str]) -> None:
    """Inputs that are not contiguous, types without a kernel, and arrays without elements."""
    x, window = normal(2, 6, 5, 8), Window.make(3, padding=1)
    for view in (lambda a: a[..., ::2], lambda a: a.transpose(0, 2, 1, 3), lambda a: a[:, 1:, :4]):
        device, host = view(backend.asarray(x)), view(x)
        assert same_bits(backend.to_numpy(backend.im2col(device, window)), base.im2col(host, window))
        for a, b in zip(backend.max_pool2d(device, window), base.max_pool2d(host, window)):
            assert same_bits(backend.to_numpy(a), b)
    integers = ties(2, 6, 5, 8, dtype=np.int32)
    assert same_bits(backend.to_numpy(backend.im2col(backend.asarray(integers), window)), base.im2col(integers, window))
    empty = np.empty((2, 6, 5, 0), np.float32)
    for a, b in zip(backend.max_pool2d(backend.asarray(empty), window), base.max_pool2d(empty, window)):
        assert same_bits(backend.to_numpy(a), b)
    assert backend.to_numpy(backend.random_bits(0, (1, 2), backend.asarray(np.zeros(2, np.uint64)))).shape == (0,)


def training(backend: CupyBackend, words: list[str]) -> None:
    """A whole network trained on the second of two GPUs as on the CPU, and nothing in it that CuPy would refuse."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((22, 1, 9, 8)).astype(np.float32), rng.integers(0, 5, 22)
    losses, outputs = [], []
    for other in (CupyBackend(1), NumpyBackend()):
        with other.scope():
            net = xn.Sequential([
                xn.Conv2d(4, 3, padding="half", activation="relu"), xn.BatchNorm2d(activation="relu"), xn.MaxPool2d(2),
                xn.Conv2d(6, 3, stride=2), xn.Tanh(), xn.AvgPool2d(1), xn.Flatten(), xn.Dropout(0.3),
                xn.Linear(16, activation="sigmoid"), xn.Linear(5), xn.Softmax(),
            ], input_shape=(1, 9, 8), backend=other, seed=3)
            losses.append(net.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(1e-2), epochs=2, batch_size=8,
                                  validation=(x, y), verbose=False))
            outputs.append(net.predict(x))
    for column in ("loss", "val_loss"):
        np.testing.assert_allclose(losses[0][column], losses[1][column], rtol=1e-5)
    assert distance(*outputs) < 1e-5


GRIDS = {"im2col": check_im2col, "col2im": check_col2im, "max_pool2d": check_max_pool2d,
         "max_pool2d_dx": check_max_pool2d_dx, "dropout": check_dropout}
CHECKS = {name: grid(check) for name, check in GRIDS.items()} | {
    check.__name__: check for check in (small_grids, every_instantiation, parity, other_arrays, training)}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kernels", type=Path, default=cuda_launch.FOLDER)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], default=[])
    options = parser.parse_args()
    cuda_launch.FOLDER = options.kernels
    flags = (*shim.CHECKS, "-O0") if options.quick else shim.CHECKS
    with installed(FakeCupy(options.folder, gpus=2, kernels=("random_bits", *options.only), checks=flags)):
        backend = CupyBackend()
        for name in options.checks:
            try:
                CHECKS[name](backend, options.only)
            except AssertionError:
                traceback.print_exc()
                return CHECK_FAILED
            print(f"{name}: as base.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
