"""Trainings that are killed at random moments end with the bits of trainings that are not.

`XPNET_KILLS=500 python -m pytest -rP tests/training/test_killed.py` kills as many processes and
says how many trainings ended with the right bits.
"""

from __future__ import annotations

import csv
import importlib.util
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from event_reader import displayed
from processes import ROOT, SUPPORT
from trainings import TRAININGS, run

import xpnet as xn

NAMES = [name for name in TRAININGS if name != "Numba" or importlib.util.find_spec("numba")]

PROGRAM = """
import sys
from pathlib import Path
import xpnet
from trainings import run
print("begin", flush=True)
print(run(sys.argv[1], Path(sys.argv[2])))
"""


def killed_or_ended(name: str, folder: Path, seconds: float | None) -> tuple[str | None, float]:
    """Run the training in a process that is killed after some seconds, None for never; what it
    printed, None if it was killed, and how long it ran."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, name, str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        bufsize=0,                      # readline must not take what communicate returns
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT)])})
    assert process.stdout is not None and process.stdout.readline() == b"begin\n"
    start = time.perf_counter()
    if seconds is not None:
        time.sleep(seconds)
        process.kill()
    out, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err
    return out.decode().strip() if process.returncode == 0 else None, time.perf_counter() - start


def logged(folder: Path) -> list[float]:
    """The epochs in a CSV file, which are those that TensorBoard shows."""
    with open(folder / "log.csv", newline="") as file:
        lines = [float(line["epoch"]) for line in csv.DictReader(file)]
    shown = {part: displayed(folder / "runs" / part) for part in ("train", "validation")}
    assert [epoch for _, epoch in shown["train"]["epoch"]] == lines
    steps = [[step for step, _ in shown[part]["loss"]] for part in shown]
    assert steps[0] == steps[1] == sorted({*steps[0]})
    return lines


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_at_random_moments(everything, tmp_path):
    """Each training is resumed and killed until it ends; the moments are spread evenly over the
    time that the training takes, its saves included."""
    most = int(os.environ.get("XPNET_KILLS", 24 if everything else 2))
    chance, kills, right = random.Random(1), 0, Counter()
    whole, seconds = {}, {}
    for number, name in enumerate(itertools.cycle(NAMES)):
        if kills >= most:
            break
        folder, found = tmp_path / str(number), None
        if name not in whole:
            whole[name] = run(name, None)
            found, seconds[name] = killed_or_ended(name, tmp_path / name, None)
            assert found == whole[name], f"{name}: other bits without kills"
            found = None
        while found is None:
            found, _ = killed_or_ended(name, folder, chance.uniform(0, seconds[name])
                                       if kills < most else None)
            kills += found is None
            for file in folder.glob("*.safetensors") if found is None else ():
                xn.load(file, backend="numpy")              # each file that is there is complete
        assert found == whole[name], f"{name}: other bits after {kills} kills in all"
        assert not list(folder.glob("*.part"))
        assert logged(folder) == list(range(1, 1 + int(found.split()[1])))
        right[name] += 1
    print(f"{kills} kills; the same bits at the end of {right.total()} trainings of "
          f"{right.total()}: " + "; ".join(f"{name}: {count}" for name, count in right.items()))
