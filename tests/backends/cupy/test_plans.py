"""What the host computes for matrix products: divisors, structs, plans, and who multiplies."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet.backends import Window
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy import plans

MOST = 2**31 - 1                # of a dividend and of a divisor


def quotient(n: int, d: int) -> int:
    """The arithmetic of the kernel, in its 32 bits."""
    magic, shift = plans.divisor(d)
    assert 0 < magic < 2**32 and 0 <= shift < 32 and 2 * n < 2**32
    return 2 * n * magic >> 32 >> shift


# --- divisions ------------------------------------------------------------------------------------

@pytest.mark.parametrize("d", [*range(1, 70), *(2**k + e for k in range(7, 31) for e in (-1, 0, 1)),
                               MOST - 1, MOST])
def test_a_quotient_is_exact_at_the_edges(d: int):
    """An error would show where the quotient changes, and most at the largest dividends."""
    last = MOST // d * d
    dividends = {0, 1, d - 1, d, d + 1, 2 * d - 1, 2 * d, last - d, last - 1, last, last + d - 1,
                 MOST - 1, MOST, *(2**k * d + e for k in range(31) for e in (-1, 0))}
    for n in sorted(dividends):
        if 0 <= n <= MOST:
            assert quotient(n, d) == n // d


@given(st.integers(0, MOST), st.integers(1, MOST))
def test_a_quotient_is_exact(n: int, d: int):
    assert quotient(n, d) == n // d


def test_a_smaller_magic_is_not_exact():
    magic, shift = plans.divisor(7)
    assert 2 * 7 * magic >> 32 >> shift == 1 and 2 * 7 * (magic - 1) >> 32 >> shift == 0


# --- structs --------------------------------------------------------------------------------------

def test_the_structs_are_those_of_the_kernels():
    text = cuda_launch.source("product")
    product = re.search(r"struct Product \{(.*?)\};", text, re.DOTALL)
    image = re.search(r"struct Image \{(.*?)\};", text, re.DOTALL)
    assert product is not None and image is not None
    fields = re.sub(r"//.*", "", product[1])
    assert [name.strip() for line in re.findall(r"(?:i64|int) ([^;]*);", fields)
            for name in line.split(",")] == list(plans.PRODUCT.names or ())
    assert re.sub(r"\s+", " ", image[1]).strip() == (
        "Window window; Divisor " + ", ".join((plans.IMAGE.names or ())[1:]) + ";")
    assert "struct Divisor { unsigned magic; int shift; };" in text
    assert re.search(rf"constexpr int BATCH = {plans.BATCH};", text)


def test_the_struct_of_an_image_has_the_divisors_of_its_sizes():
    window = cuda_launch.window_struct((3, 9, 8, 5), Window((3, 2), (2, 1), (1, 0, 2, 3), (1, 2)))
    image = plans.image_struct(window)
    assert image["window"] == window
    for name in ("N", "OW", "KH", "KW"):
        assert image[f"by_{name}"].item() == plans.divisor(int(window[name]))
    assert image.tobytes()[:window.nbytes] == window.tobytes()
    assert image.nbytes == window.nbytes + 4 * 8 and image.dtype["by_N"]["magic"] == np.uint32


# --- plans ----------------------------------------------------------------------------------------

TF32 = plans.MATRIX_UNITS[np.dtype(np.float32)]


def test_a_gpu_of_an_unknown_architecture_is_like_the_last_known_one():
    assert plans.gpu(90) == plans.Gpu(132, 228) and plans.gpu(121) == plans.gpu(120)
    assert plans.gpu(103) == plans.gpu(100) and plans.gpu(75) == plans.gpu(80)


def test_blocks_that_run_at_once_are_limited_by_registers_and_by_shared_memory():
    assert [plans.resident(TF32, tile, plans.GPUS[90]) for tile in TF32.tiles] == [4, 4, 2, 2, 1]
    assert [plans.resident(TF32, tile, plans.GPUS[120]) for tile in TF32.tiles] == [3, 3, 2, 1, 1]


@pytest.mark.parametrize("math", plans.MATHS, ids=lambda math: math.name)
@pytest.mark.parametrize("gpu", plans.GPUS.values(), ids=map(str, plans.GPUS))
def test_splits_fill_one_wave_and_no_more(gpu: plans.Gpu, math: plans.Math):
    for M, N, K in ((8, 200, 18432), (64, 576, 500_000), (64, 128, 4096), (8, 8, 5_000_000)):
        plan = plans.plan(math, M, N, K, 1, gpu)
        x, y, z = plan.grid(M, N, 1)
        capacity = gpu.multiprocessors * plans.resident(math, (plan.rows, plan.columns), gpu)
        assert 1 < y and x * y * z <= capacity
        assert (plan.splits - 1) * plan.steps < -(-K // math.tile_k)


def test_enough_tiles_are_not_split():
    for gpu in plans.GPUS.values():
        assert plans.plan(TF32, 512, 65536, 4608, 1, gpu).splits == 1


def test_a_wave_that_is_nearly_empty_is_avoided():
    """133 tiles of 128 x 256 would keep one of 132 multiprocessors busy for two turns."""
    full = plans.plan(TF32, 128, 132 * 256, 2304, 1, plans.GPUS[90])
    one_more = plans.plan(TF32, 128, 133 * 256, 2304, 1, plans.GPUS[90])
    assert (full.rows, full.columns) == (128, 256)
    assert one_more.rows * one_more.columns < 128 * 256


# --- products by cuBLAS ---------------------------------------------------------------------------

@pytest.mark.parametrize("sizes, finished, library", [
    ((1024, 1024, 256), True, True), ((1024, 1023, 256), True, False),      # 2^28 multiply-adds
    ((127, 100_000, 256), True, False), ((128, 100_000, 256), True, True),  # each side
    ((4096, 4096, 2048), False, True), ((4096, 4096, 2047), False, False)])  # a pass over C
def test_the_library_multiplies_large_matrices(sizes: tuple[int, int, int], finished: bool,
                                               library: bool):
    assert plans.by_library(*sizes, 1, finished) == library
