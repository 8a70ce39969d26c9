"""A rehearsal of the first check on a GPU: the commands and processes are those of a GPU, CuPy is
the emulation, and sizes are tiny (tests/support/rehearsal/sitecustomize.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, SUPPORT
from tiers import full

DRIVER = "580.65.06"
QUICK = ["--threads", "1", "--rounds", "1", "--seconds", "0"]


@pytest.fixture
def out(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the logs. All processes that are started have the emulation, and programs in
    place of NVIDIA's."""
    programs = {"nvidia-smi": f"echo {DRIVER}",
                # Its own options end before "python".
                "compute-sanitizer": 'while [ "$1" != "$PYTHON" ]; do shift; done; exec "$@"'}
    for name, command in programs.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{command}\n")
        program.chmod(0o755)
    for name, value in {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
                        "PYTHON": sys.executable,
                        "PYTHONPATH": os.pathsep.join(map(str, (SUPPORT / "rehearsal", ROOT)))
                        }.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "out"


def rehearse(out: Path, *arguments: str) -> tuple[dict[str, str], str]:
    """({step: its result}, what is printed) of a check."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu.check", str(out), *arguments],
                          cwd=ROOT, capture_output=True, text=True)
    lines = (out / "summary.log").read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.split(": ", 1) for line in lines), done.stdout + done.stderr


def parts_of(out: Path) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {}
    for row in json.loads((out / "rows.json").read_text(encoding="utf-8")):
        assert row["device"] == "Pretended GPU" and row["driver"] == DRIVER
        assert row["versions"]["CUDA of CuPy"] == "13.0"
        rows.setdefault(row["part"], []).append(row)
    return rows


@full
def test_steps_rows_and_tables(out: Path):
    """The contender "cupy" alone, one network, and the bandwidth of the kernels."""
    results, said = rehearse(out, "--steps", "machine", "bench", "--", "--contenders", "cupy",
                             "--parts", "steps", "bandwidth", "--nets", "numpy_cnn", "--batches",
                             "1", *QUICK)
    log = (out / "bench.log").read_text(encoding="utf-8")
    assert all(result.startswith("passed") for result in results.values()), said + log
    assert (out / "machine.log").read_text() == f"{DRIVER}\n"
    rows = parts_of(out)
    step, = rows["steps"]
    assert step["warning"] is None and step["reserved"] >= step["memory"] > 0 < step["predicted"]
    assert len(rows["bandwidth"]) == 18 and "a copy" in log and "numpy_cnn  1" in log


@full
def test_the_whole_check(out: Path, tmp_path: Path):
    """The default parts and the plans; all steps but the tests, and memcheck, which runs the same
    program as racecheck. PyTorch is missing."""
    steps = ["machine", "compile", "racecheck", "bench"]
    results, said = rehearse(
        out, "--steps", *steps, "--", "--parts", "steps", "bandwidth", "products", "mnist", "plans",
        "--nets", "numpy_cnn", "--batches", "1", "--data", str(tmp_path), *QUICK)
    log = (out / "bench.log").read_text(encoding="utf-8")
    assert list(results) == steps, said
    assert all(result.startswith("passed") for result in results.values()), said + log
    assert "torch-graph: PyTorch cannot be imported" in log
    rows = parts_of(out)
    assert {row["contender"] for row in rows["steps"]} == {"cupy", "cupy-eager"}
    assert len(rows["steps"]) == len(rows["mnist"]) == 2 and len(rows["products"]) == 2 * 9
    assert rows["plans"] and (out / "rows.plans").is_file()
    assert "captured the same" in (out / "racecheck.log").read_text(encoding="utf-8")
    assert "compiled " in (out / "compile.log").read_text(encoding="utf-8")

    # A later run adds to the rows; the tables are made of the file.
    bench = [sys.executable, "-m", "benchmarks", "gpu", "--json", str(out / "rows.json")]
    subprocess.run([*bench, "--merge", "--parts", "bandwidth", "--contenders", "cupy", *QUICK],
                   cwd=ROOT, check=True)
    assert {part: len(found) for part, found in parts_of(out).items()} == {
        part: len(found) for part, found in rows.items()}
    tables = subprocess.run([*bench, "--tables-only"], cwd=ROOT, check=True, capture_output=True,
                            text=True).stdout
    assert "Pretended GPU" in tables and "Fma<float>" in tables
