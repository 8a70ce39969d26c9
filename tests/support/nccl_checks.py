"""What one rank can show of NCCL, on a pretended GPU and on a real one: it sends to itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from gpu_cases import network, samples
from nets import same

import xpnet as xn
from xpnet.backends.cupy.nccl import Nccl, StreamSender, import_nccl
from xpnet.parallel import Communicator, NCCLCommunicator, in_threads


def check_exchange(backend: Any) -> None:
    """Each exchange returns what was sent, on a stream of its own, also as part of a graph."""
    ranks, sender = Nccl(backend, 1, import_nccl().get_unique_id(), 0), StreamSender(backend)
    x = backend.asarray(np.arange(1000, dtype=np.float32))
    out = backend.zeros((1000,), np.float32)
    failures: list[str] = []

    def step() -> None:
        def exchange() -> None:
            received = ranks.gather(ranks.exchange((x * 2).reshape(1, -1))[0])[0]
            ranks.sum(received)
            out[...] = received
        sender.send(exchange)
        sender.wait()
        x[...] = out + 1

    run, expected = backend.capture(step, failures.append), np.arange(1000, dtype=np.float32)
    with backend.scope():
        for _ in range(6):
            run()
            expected = 2 * expected + 1
            assert np.array_equal(backend.to_numpy(x), expected)
    assert failures == [] and ranks.captures


def check_training(backend: Any) -> None:
    """A training by NCCL has the bits of one through the host, captured or not."""
    def trained(parallel: Communicator, capture: bool) -> dict[str, np.ndarray]:
        x, y = samples(52)
        net = network(backend)
        net.fit(x / 255, y, loss="cross_entropy", optimizer=xn.Adam(1e-2), batch_size=8,
                verbose=False, capture=capture, parallel=parallel)
        assert net.step is not None and net.step.capture == capture
        return {"parameters": backend.to_numpy(net.parameters).copy(),
                "state": backend.to_numpy(net.state).copy()}

    def all_of_them(communicator: Communicator) -> list[dict[str, np.ndarray]]:
        nccl = NCCLCommunicator(communicator, backend=backend)
        return [trained(communicator, False), trained(nccl, False), trained(nccl, True)]

    (host, eager, captured), = in_threads(1, all_of_them)
    assert same(host, eager) and same(host, captured)
