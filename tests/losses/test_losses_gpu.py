"""Every loss on an emulated GPU against base.py, with and without a reduction and sample
weights."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
from gpu_cases import pretended
from loss_cases import CASES, TARGET, Y

from xpnet.backends import Backend

WEIGHTS = np.array([1.0, 0.0, 2.5, 0.5, 3.0, 0.25], np.float32)


def test_losses_on_an_emulated_gpu(folder: Path):
    base = Backend()
    with pretended(folder) as (gpu, _), gpu.scope():
        for name, case in CASES.items():
            for reduction in (case.loss.reduction, "none"):
                for weights in ((), (WEIGHTS,)):
                    loss = copy.copy(case.loss)
                    loss.reduction = reduction
                    y = np.moveaxis(Y[case.y], 0, -1).astype(np.float32)
                    target = loss.targets(TARGET[case.target], y.shape[:-1], np.dtype(np.float32))
                    given = [np.ascontiguousarray(a)
                             for a in (y, np.moveaxis(target, 0, -1), *weights)]
                    found, right = loss(gpu, *map(gpu.asarray, given)), loss(base, *given)
                    for a, b in zip(found, right, strict=True):
                        np.testing.assert_allclose(gpu.to_numpy(a), b, rtol=2e-5, atol=2e-6,
                                                   err_msg=f"{name}, {reduction}")
