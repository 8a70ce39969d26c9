"""Ranks that are processes: the bits of threads, and what happens if one of them fails.

The tests run where mpi4py and mpiexec are installed: pip install "xpnet[mpi]" mpich.
`XPNET_KILLS=50` in the environment kills 50 trainings.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from processes import ROOT, SUPPORT
from shared_trainings import CASES, in_float32, resumed, train
from tiers import full

import xpnet as xn
from xpnet.parallel import in_threads

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
WHY_NOT = ("mpi4py is not installed" if find_spec("mpi4py") is None else
           "" if MPIEXEC else "there is no mpiexec")
KILLS = int(os.environ.get("XPNET_KILLS", "2"))
LIMIT = 10.0            # seconds in which all ranks have to end after one has failed

needs_mpi = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


@contextmanager
def started(ranks: int, what: str, folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """shared_trainings.py in processes; with -m mpi4py an error outside of fit ends all, too."""
    paths = [str(ROOT), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [str(MPIEXEC), "-n", str(ranks), sys.executable, "-m", "mpi4py",
         str(SUPPORT / "shared_trainings.py"), what, str(folder), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


def pids(folder: Path, ranks: int) -> list[int]:
    for rank in range(ranks):
        wait_for(folder / f"pid{rank}")
    return [int((folder / f"pid{rank}").read_text()) for rank in range(ranks)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def expect_gone(process: subprocess.Popen[str], numbers: list[int], since: float) -> None:
    while process.poll() is None or any(map(alive, numbers)):
        assert time.monotonic() - since < LIMIT, "processes are left"
        time.sleep(0.02)


@full
@needs_mpi
@pytest.mark.parametrize("ranks", [2, 4])
def test_processes_have_the_bits_of_threads(ranks, tmp_path):
    expected = {name: in_threads(1, lambda c: train(name, c))[0] for name in CASES}  # noqa: B023
    expected |= {"in pieces": expected["LSTM"], "forks": []}
    with started(ranks, "all", tmp_path) as process:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    every = json.loads((tmp_path / "found.json").read_text())
    for found in every:                     # "plain" is added by MPI
        np.testing.assert_allclose(found.pop("plain"), in_float32(None), rtol=0, atol=1e-6)
    assert every == [expected] * ranks


@full
@needs_mpi
def test_an_error_of_a_rank_ends_all_and_is_the_first_message(tmp_path):
    with started(4, "fails", tmp_path) as process:
        numbers = pids(tmp_path, 4)
        _, err = process.communicate(timeout=60)
        expect_gone(process, numbers, time.monotonic())
    assert process.returncode != 0
    assert err.startswith("xpnet: rank 1 of 4 failed and ends all ranks\nTraceback"), err
    assert "OSError: the samples are gone" in err
    assert not (tmp_path / "found.json").exists()


@full
@needs_mpi
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
@pytest.mark.parametrize("number", range(KILLS))
def test_a_training_with_a_killed_rank_ends_and_is_resumed_to_the_same_bits(number, tmp_path):
    """A random rank is killed at a random moment; the training goes on with as many ranks or
    fewer. Every second signal is that of Ctrl-C."""
    draw = random.Random(number)
    ranks = 2 if number % 4 < 2 else 4
    with started(ranks, "resumed", tmp_path, "0.02") as process:
        numbers = pids(tmp_path, ranks)
        if draw.random() < 0.8:
            wait_for(tmp_path / "checkpoints" / f"step-{draw.randrange(1, 20):09d}.safetensors")
        time.sleep(draw.random() / 20)
        killed = time.monotonic()
        os.kill(draw.choice(numbers), signal.SIGKILL if number % 2 == 0 else signal.SIGINT)
        expect_gone(process, numbers, killed)
    for file in tmp_path.glob("pid*"):
        file.unlink()
    for file in tmp_path.glob("found.json"):    # of an interrupted training, which ends as usual
        file.unlink()
    with started(ranks if number % 3 else 1, "resumed", tmp_path, "0") as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    found = json.loads((tmp_path / "found.json").read_text())
    whole, = in_threads(1, lambda communicator: resumed(communicator, tmp_path / "whole", 0))
    assert {*found} == {whole}


@full
@needs_mpi
def test_the_benchmark_has_a_row_for_each_way():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "parallel", "--net", "bilici", "--batch", "8",
         "--steps", "2", "--rounds", "1", "--backend", "numpy"], capture_output=True, text=True,
        timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    ways = [line.split()[:2] for line in done.stdout.splitlines()[3:]]
    assert ways == [["1", "alone"], ["1", "fixed"], ["2", "fixed"], ["2", "pieces"],
                    ["2", "plain"]]


@full
@needs_mpi
def test_the_command_trains_with_several_processes(tmp_path):
    """One log, one file, and the parameters of one process; a mistake ends all with one line."""
    def command(ranks: int, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(MPIEXEC), "-n", str(ranks), sys.executable, "-m", "xpnet", "train", "--backend",
             "numpy", "--epochs", "1", "--batch-size", "256", *options], cwd=tmp_path,
            capture_output=True, text=True, timeout=120,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT)])})

    found = []
    for ranks in 1, 2:
        done = command(ranks, "--save", f"{ranks}.safetensors", "--checkpoint", f"run{ranks}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("saved ") == done.stdout.count("test accuracy: ") == 1
        found.append(xn.load(tmp_path / f"{ranks}.safetensors", backend="numpy").parameters)
    assert np.array_equal(*found)
    done = command(2, "--data", "missing")
    assert done.returncode == 2
    assert done.stderr.startswith("xpnet: ") and "Traceback" not in done.stderr
    assert done.stderr.count("xpnet: ") == 1
