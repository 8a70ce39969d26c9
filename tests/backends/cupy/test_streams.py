"""The streams of training next to other streams, threads and GPUs, on GPUs that are pretended."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from fake_cupy import FakeCupy, installed
from gpu_cases import learned, network, pretended, samples
from nets import same

import xpnet as xn
from xpnet.backends.cupy.backend import CupyBackend

QUIET: dict[str, Any] = {"loss": "cross_entropy", "verbose": False}


def test_another_gpu_is_current(folder: Path):
    """Training and predictions on the second GPU, called from a stream of the first."""
    x, y = samples(83)
    found = []
    with installed(FakeCupy(folder, gpus=2)) as cupy:
        for device in (0, 1):
            backend = CupyBackend(device, tf32="never")
            net = network(backend)
            with cupy.cuda.Stream(non_blocking=True):
                net.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), batch_size=8)
                predicted = net.predict(x, batch_size=8)
            assert cupy.current == 0 and net.parameters.device.id == device
            found.append(learned(net) | {"predicted": predicted})
        assert cupy.gpus.graphs == 4
    assert same(*found)


def test_training_waits_for_what_was_launched_before(folder: Path):
    """A step by hand on a batch that another stream still has to compute."""
    x, y = samples(8)
    losses = []
    for late in (False, True):
        with pretended(folder) as (backend, gpus):
            net = network(backend)
            step = xn.TrainStep(net, xn.CrossEntropy(), xn.SGD(0.1), capture=False)
            with backend.xp.cuda.Stream(non_blocking=True) as stream:
                gpus.late = lambda other, stream=stream, late=late: late and other is stream
                batch = net.batch_last(x) * np.float32(0.5)
                assert len(stream.queue) > 0 if late else not stream.queue
                loss, _ = step(batch, backend.asarray(y))
                losses.append(backend.to_numpy(loss))
    assert np.array_equal(*losses)


def test_each_thread_has_streams_of_its_own(folder: Path):
    with pretended(folder) as (backend, _), ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: (backend._lane.compute, backend._lane.copies)).result()
        assert len({*other, backend._lane.compute, backend._lane.copies}) == 4


def test_synchronize_waits_for_the_gpu_of_the_backend(folder: Path):
    with installed(FakeCupy(folder, gpus=2, late=lambda stream: True)) as cupy:
        backend = CupyBackend(1)
        with backend.stream():
            kept, compute = backend.zeros((3,), np.float32), backend._lane.compute
            assert compute.ended < compute.asked
            with cupy.cuda.Device(0):
                backend.synchronize()
            assert compute.ended == compute.asked and kept.size
