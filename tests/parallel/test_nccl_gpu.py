"""NCCL on a real GPU, with one rank that exchanges with itself: CuPy and CUDA accept the calls, the
streams and the captures. What several GPUs do is not tested."""

from __future__ import annotations

import nccl_checks
import pytest
from gpu import gpu_or_skip, skip_module_without_gpu

from xpnet.backends import Backend, BackendError
from xpnet.backends.cupy.nccl import import_nccl

pytestmark = pytest.mark.gpu
skip_module_without_gpu()


@pytest.fixture(scope="module")
def gpu() -> Backend:
    backend = gpu_or_skip()
    try:
        import_nccl()
    except BackendError as error:
        pytest.skip(str(error))
    return backend


def test_a_rank_exchanges_with_itself(gpu):
    nccl_checks.check_exchange(gpu)


def test_a_training_has_the_bits_of_one_through_the_host(gpu):
    nccl_checks.check_training(gpu)
