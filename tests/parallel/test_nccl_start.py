"""The start of ranks with a GPU each, on pretended GPUs: which GPU a rank takes, when the command
uses NCCL, and errors."""

from __future__ import annotations

import argparse
import importlib
from types import SimpleNamespace
from typing import Any

import pytest
from fake_nccl import in_gpus, pretended_ranks
from gpu_cases import network, samples

import xpnet as xn
import xpnet.backends.cupy.backend
from xpnet.parallel import Communicator, NCCLCommunicator, in_threads


def test_a_network_on_another_gpu_is_refused(folder):
    x, y = samples(26)
    with pretended_ranks(folder, 2) as (backends, _):
        def run(communicator: Communicator) -> None:
            backend = backends[communicator.rank]
            with backend.scope():
                network("numpy").fit(x / 255, y, loss="cross_entropy", batch_size=8, verbose=False,
                                     parallel=NCCLCommunicator(communicator, backend=backend))

        with pytest.raises(ValueError, match=r"fit: expected a network on the GPU of its rank, "
                                             r"backend=communicator.backend \(cupy:\d\). Received: "
                                             r"a network on numpy."):
            in_threads(2, run)


def test_without_nccl_the_error_names_the_package(folder):
    with (pretended_ranks(folder, 2, available=False) as (backends, _),
          pytest.raises(xn.BackendError, match="CuPy is installed, but it finds no NCCL. Install "
                                               "it: pip install nvidia-nccl-cu13")):
        in_gpus(backends, lambda communicator: None)


def test_two_ranks_on_one_gpu_are_refused(folder):
    with (pretended_ranks(folder, 4, visible=2) as (backends, _),
          pytest.raises(xn.BackendError, match=(
              "NCCLCommunicator: expected a GPU of its own for each rank. Received: the GPU "
              "0000:01:00.0 for ranks 0 and 2, of 4 ranks with 2 GPUs on their machine. Start as "
              "many processes on each machine as it has GPUs, e.g. mpiexec -n 2"))):
        in_gpus(backends, lambda communicator: None)


def test_a_rank_without_a_gpu_is_named_on_the_others(folder):
    """Rank 1 fails; rank 0 would otherwise wait for it."""
    errors = []
    with pretended_ranks(folder, 2) as (backends, _):
        backends[1].xp.cuda.Device = type("Device", (), {
            "__init__": lambda self, device: None, "pci_bus_id": property(_broken)})

        def refused(communicator: Communicator) -> None:
            try:
                NCCLCommunicator(communicator, backend=backends[communicator.rank])
            except xn.BackendError as error:
                errors.append((communicator.rank, str(error)))

        in_threads(2, refused)
    assert sorted(errors) == [
        (0, "NCCLCommunicator: rank 1 failed (NCCLCommunicator: NCCL cannot begin (cudaErrorX)). "
            "All ranks end."),
        (1, "NCCLCommunicator: NCCL cannot begin (cudaErrorX). Look for the reason with "
            "NCCL_DEBUG=WARN in the environment.")]


def _broken(device: Any) -> str:
    raise RuntimeError("cudaErrorX")


@pytest.mark.parametrize("local, visible, device", [(0, 4, 0), (3, 4, 3), (5, 4, 1), (3, 1, 0)])
def test_ranks_take_the_gpus_of_their_machine_in_turn(local, visible, device, monkeypatch):
    """With one visible GPU it is that one: Slurm may show each process a GPU of its own."""
    module = xpnet.parallel.nccl
    monkeypatch.setattr(xpnet.backends.cupy.backend, "device_count", lambda: visible)
    monkeypatch.setattr(module, "get_backend", lambda name: SimpleNamespace(name=name))
    assert module._gpu(local).name == f"cupy:{device}"


@pytest.mark.parametrize("backend, gpu, autotune, found", [
    ("cupy", False, False, "NCCL"), ("auto", True, False, "NCCL"), ("auto", False, False, "MPI"),
    ("cupy:0", True, False, "MPI"), ("numpy", True, True, "MPI"),
    ("cupy", True, True, "--autotune: expected one process")])
def test_the_command_uses_nccl_if_it_uses_gpus(backend, gpu, autotune, found, monkeypatch):
    module = importlib.import_module("xpnet.cli.train")
    monkeypatch.setattr(module, "get_backend", lambda: SimpleNamespace(captures=gpu))
    monkeypatch.setattr(module, "NCCLCommunicator", lambda: "NCCL")
    monkeypatch.setattr(module, "MPICommunicator", lambda: "MPI")
    options = argparse.Namespace(backend=backend, autotune=autotune)
    try:
        assert module._communicator(options) == found
    except ValueError as error:
        assert str(error).startswith(found)
