"""The CUDA kernels against base.py, on the CPU: CupyBackend over the fake CuPy over the shim.

    python tests/support/kernel_checks.py FOLDER [--kernels DIR] [--only WORD ..] [--sanitize O0|O1]
                                          [--everything] CHECK ..

test_cuda_kernels.py also runs this in processes of its own (check_runs.py), because
AddressSanitizer must be loaded before Python. FOLDER is for compiled libraries; --kernels reads
other sources (mutated ones), --only compiles what contains one of the words, --sanitize compiles
the sanitizers in, without or with optimisation, --everything draws as many examples as
`make test-all`, otherwise as the first tier. With --only, g++ does not optimise: a few kernels that
run once are ready sooner.
A failed check ends the process with status 3; the sanitizers end it with 99.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import batch_checks
import fused_checks
import layer_cases
import layer_parity
import numpy as np
import optimizer_checks
import product_checks
import recurrent_checks
import shim
import warpgroup_checks
import window_checks
from fake_cupy import FakeCupy, installed
from functional_checks import functional
from kernel_setting import base, grid, other_limits
from parity import agree, distance, normal, run, same_bits, ties
from parity_cases import CASES
from tiers import Number, number_of

import xpnet as xn
from xpnet.backends import Window
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.backend import CupyBackend, kernels
from xpnet.backends.numpy.backend import NumpyBackend
from xpnet.backends.tracing import implementations, trace

CHECK_FAILED = 3
SANITIZER_FAILED = 99


# Each module has GRIDS (checks over a grid of problems, by name), every_instantiation(backend), and
# MUTANTS.
MODULES: tuple[Any, ...] = (window_checks, batch_checks, product_checks, fused_checks,
                            optimizer_checks, recurrent_checks, warpgroup_checks)
GRIDS = {name: check for module in MODULES for name, check in module.GRIDS.items()}


def small_grids(backend: CupyBackend, words: list[str], number: Number) -> None:
    """Launches that are too small for the work: each thread must go on with what no other one
    does."""
    with other_limits(MAX_GRID=(2, 2), THREADS=8):
        for name, check in GRIDS.items():
            grid(check, 10 if name in LONGEST else 30)(backend, words, number)


def every_instantiation(backend: CupyBackend, words: list[str], number: Number) -> None:
    """Every kernel that can be asked for has been asked for."""
    assert words == [""], "this check is about all of them"
    for module in MODULES:
        module.every_instantiation(backend)
    launched = {name for library in backend.xp.libraries for name in library.launched}
    listed = {name for names in kernels().values() for name in names}
    assert launched == listed, f"never asked for: {sorted(listed - launched)}"


def parity(backend: CupyBackend, words: list[str], number: Number) -> None:
    """The table that all backends share, by every method of CuPy's own. What CuPy would refuse is
    refused here too."""
    ran: Counter[tuple[str, str]] = Counter()
    for case in CASES:
        if all(a.size < 5000 for a in case.arrays.values()):
            with trace(backend) as answered:
                results = run(case, backend)
            ran += answered
            agree(case, results, run(case, base))
    own = {version for version in implementations(type(backend)).values() if version[1] == "cupy"}
    assert len(own) > 20 and own - ran.keys() == set(), own - ran.keys()


def other_arrays(backend: CupyBackend, words: list[str], number: Number) -> None:
    """Inputs that are not contiguous, types without a kernel, and arrays without elements."""
    x, window = normal(2, 6, 5, 8), Window.make(3, padding=1)
    for view in (lambda a: a[..., ::2], lambda a: a.transpose(0, 2, 1, 3), lambda a: a[:, 1:, :4]):
        device, host = view(backend.asarray(x)), view(x)
        assert same_bits(backend.to_numpy(backend.im2col(device, window)),
                         base.im2col(host, window))
        for a, b in zip(backend.max_pool2d(device, window), base.max_pool2d(host, window)):
            assert same_bits(backend.to_numpy(a), b)
    integers = ties(2, 6, 5, 8, dtype=np.int32)
    assert same_bits(backend.to_numpy(backend.im2col(backend.asarray(integers), window)),
                     base.im2col(integers, window))
    empty = np.empty((2, 6, 5, 0), np.float32)
    for a, b in zip(backend.max_pool2d(backend.asarray(empty), window),
                    base.max_pool2d(empty, window)):
        assert same_bits(backend.to_numpy(a), b)
    assert (backend.to_numpy(backend.random_bits(0, (1, 2),
                                                 backend.asarray(np.zeros(2, np.uint64)))).shape
            == (0,))


def layers(backend: CupyBackend, words: list[str], number: Number) -> None:
    """Every layer as on NumPy, in full digits and in TF32."""
    for case in layer_cases.CASES:
        for digits in layer_parity.TOLERANCE:
            backend.tf32 = "always" if digits == "tf32" else "never"
            layer_parity.agree(case, backend, digits)
    backend.tf32 = "never"


def training(backend: CupyBackend, words: list[str], number: Number) -> None:
    """A whole network trained on the second of two GPUs as on the CPU, and nothing in it that CuPy
    would refuse."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((22, 1, 9, 8)).astype(np.float32), rng.integers(0, 5, 22)
    losses, outputs = [], []
    for other in (CupyBackend(1, tf32="never"), NumpyBackend()):
        with other.scope():
            net = xn.Sequential([
                xn.Conv2d(4, 3, padding="half", activation="relu"),
                xn.BatchNorm2d(activation="relu"), xn.MaxPool2d(2),
                xn.Conv2d(6, 3, stride=2), xn.Tanh(), xn.AvgPool2d(1), xn.Flatten(),
                xn.Dropout(0.3),
                xn.Linear(16, activation="sigmoid"), xn.Linear(5), xn.Softmax(),
            ], input_shape=(1, 9, 8), backend=other, seed=3)
            losses.append(net.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(1e-2), epochs=2,
                                  batch_size=8, validation=(x, y), verbose=False))
            outputs.append(net.predict(x))
    for column in ("loss", "val_loss"):
        np.testing.assert_allclose(losses[0][column], losses[1][column], rtol=1e-5)
    assert distance(*outputs) < 1e-5


# examples, where one takes long
LONGEST = {"gemm": 60, "conv2d": 80, "tally_in_pieces": 20, "scan": 60, "scan_launches": 30,
           "update_running": 40}
CHECKS = {name: grid(check, LONGEST.get(name, 120)) for name, check in GRIDS.items()} | {
    check.__name__: check for check in (small_grids, every_instantiation, parity, other_arrays,
                                        layers, training, functional,
                                        product_checks.banks, warpgroup_checks.warpgroups_agree)}
DRAWN = {*GRIDS, "small_grids"}         # those that draw more problems when everything runs


def sanitized(level: str) -> tuple[str, ...]:
    """The flags of g++ for `--sanitize level`."""
    return f"-{level}", *shim.SANITIZED


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kernels", type=Path, default=cuda_launch.FOLDER)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--sanitize", choices=["O0", "O1"])
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], default=[])
    options = parser.parse_args(arguments)
    cuda_launch.FOLDER = options.kernels
    flags = (sanitized(options.sanitize) if options.sanitize
             else shim.PLAIN if options.only == [""] else shim.UNOPTIMIZED)
    with installed(FakeCupy(options.folder, 2, ("random_bits", *options.only), flags)):
        backend = CupyBackend(tf32="never")
        for name in options.checks:
            try:
                CHECKS[name](backend, options.only, number_of(options.everything))
            except AssertionError:
                traceback.print_exc()
                return CHECK_FAILED
            print(f"{name}: as base.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
