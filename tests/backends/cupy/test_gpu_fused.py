"""The fused passes and the pooling kernels on a real GPU: every instantiation, many blocks at a
time, and large arrays."""

from __future__ import annotations

import fused_checks
import numpy as np
import pytest
import window_checks
from gpu import gpu_or_skip, skip_module_without_gpu
from kernel_setting import Setting
from parity import normal, same_bits

from xpnet.backends import Backend, Window
from xpnet.backends.cupy import launch as cuda_launch

pytestmark = pytest.mark.gpu
skip_module_without_gpu()

# (C, H, W, N): few long channels, rows of odd length, more channels than blocks, more rows than a
# grid has in y, enough samples that softmax keeps their classes
MANY_BLOCKS = [(1, 96, 96, 256), (3, 64, 65, 128), (5, 33, 31, 67), (2100, 4, 4, 32),
               (70000, 1, 2, 9), (100, 1, 2, 16384)]


@pytest.fixture(scope="module")
def gpu() -> Backend:
    return gpu_or_skip()


@pytest.mark.parametrize("module", [window_checks, fused_checks])
def test_every_instantiation(module, gpu: Backend):
    with gpu.scope():
        module.every_instantiation(gpu)


@pytest.mark.parametrize("dtype", cuda_launch.TYPES, ids=str)
@pytest.mark.parametrize("shape", MANY_BLOCKS, ids=str)
@pytest.mark.parametrize("check", fused_checks.GRIDS)
def test_many_blocks(check: str, shape: tuple[int, int, int, int], dtype: np.dtype, gpu: Backend):
    """What the shim runs one after the other, thousands of threads do at the same time."""
    with gpu.scope():
        setting = Setting(gpu, shape, Window((1, 2), (1, 2)), dtype, normal, 0, False)      # type: ignore[arg-type]
        fused_checks.GRIDS[check](setting)


def test_the_same_sums_have_the_same_bits(gpu: Backend):
    """A race would show sooner or later."""
    x, gamma = normal(4, 64, 64, 128), np.ones(4, np.float32)
    with gpu.scope():
        device, ones = gpu.asarray(x), gpu.asarray(gamma)
        runs = ([[gpu.to_numpy(a) for a in gpu.batch_norm(device, ones, ones, 1e-5,
                                                          activation="tanh")] for _ in range(20)])
    assert all(same_bits(a, b) for run in runs for a, b in zip(run, runs[0]))


def test_rows_of_more_than_2_to_the_31_elements(gpu: Backend):
    size = 2**31 + 8 * 4099
    if gpu.xp.cuda.Device(gpu.device).mem_info[0] < 16e9:     # type: ignore[attr-defined]
        pytest.skip("needs 16 GB of free memory on the GPU")
    with gpu.scope():
        dy = gpu.zeros((1, size), np.float16)
        dy[0, 0] = dy[0, -1] = dy[0, 2**31] = 1
        total = gpu.empty((1,), np.float16)
        dz = gpu.activation_backward(dy, dy, "relu", bias_grad=total)
        assert gpu.to_numpy(total).tolist() == [3.0]
        assert gpu.to_numpy(dz[0, [0, 1, 2**31 - 1, 2**31, size - 1]]).tolist() == [1, 0, 0, 1, 1]
