"""A first check on a GPU: versions, compilation, the GPU's tests, compute-sanitizer, benchmarks.

    python -m benchmarks.gpu.check FOLDER [--steps STEP ...] [--limit SECONDS] [-- OPTION ...]

The steps are machine, compile, training, tests, memcheck, racecheck, bench; by default all of them
run. "training" has the tests that matter most, "tests" the others that need a GPU.
Options after -- go to `python -m benchmarks gpu`. The output of each step is written to
FOLDER/STEP.log, the rows of the benchmarks to FOLDER/rows.json. After a step that fails the others
still run; FOLDER/summary.log shows the result of each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from benchmarks.gpu.command import DATA
from benchmarks.gpu.compiling import PROCESSES
from benchmarks.race import ROOT
from xpnet.backends.cpu.threads import cores

PACKAGES = ("numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "numba", "safetensors", "tqdm",
            "threadpoolctl", "pytest", "pytest-xdist", "hypothesis", "pillow")
STEPS = ("machine", "compile", "training", "tests", "memcheck", "racecheck", "bench")
# Seconds for each step; "bench" gets the rest.
LIMITS = {"machine": 30, "compile": 120, "training": 90, "tests": 300, "memcheck": 90,
          "racecheck": 90}
# An error of a kernel spoils all the tests after it, so there is an end to them.
MOST_FAILURES = 40
# The files of the step "training". The ten thousand tests of the next step may need more time than
# there is.
TRAINING = tuple(f"tests/backends/cupy/test_gpu_{name}.py" for name in ("training", "products"))
# Tests whose time is over have this many seconds to report, after each interrupt: the first one may
# only end a `fit`.
PATIENCE, INTERRUPTS = 7.0, 3
FAILED = 124        # exit status of a step that ran out of time, as in timeout(1)


def commands(folder: Path, more: Sequence[str] = ()) -> dict[str, list[str]]:
    """The command of each step."""
    python = sys.executable
    sanitizer = ["compute-sanitizer", "--error-exitcode", "9"]
    small = [python, "-m", "benchmarks.gpu.small_run"]
    # In one process the tests take many minutes. pytest-benchmark warns if there are several, and
    # warnings are errors.
    tests = [python, "-m", "pytest", "-rs", "-m", "gpu", "-n", str(min(cores(), PROCESSES)),
             "-p", "no:benchmark", "-p", "no:cacheprovider", "--continue-on-collection-errors",
             "--durations=10", "--tb=short", f"--maxfail={MOST_FAILURES}"]
    return {
        "machine": ["nvidia-smi"], "compile": [python, "-m", "benchmarks.gpu.compiling"],
        "training": [*tests, *TRAINING],
        "tests": [*tests, *(f"--ignore={file}" for file in TRAINING)],
        "memcheck": [*sanitizer, "--tool", "memcheck", *small],
        "racecheck": [*sanitizer, "--tool", "racecheck", *small],
        "bench": [python, "-m", "benchmarks", "gpu", "--json", str(folder / "rows.json"), *more],
    }


def _obey_interrupts() -> None:
    """In a new process: a shell makes programs in the background ignore Ctrl-C, which they would
    inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(command: Sequence[str], log: Path, limit: float) -> int:
    """Run a command with its output in a file, and return its exit status.

    After `limit` seconds all its processes are killed; pytest is interrupted before, so that it
    reports the failures so far.
    """
    path = os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"XPNET_REQUIRE_GPU": "1", "PYTHONUNBUFFERED": "1",
                                "PYTHONPATH": path}
    if DATA.is_dir():
        environment.setdefault("XPNET_HOME", str(DATA))
    with log.open("w", encoding="utf-8") as out:
        try:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT,
                                       env=environment, start_new_session=True,
                                       preexec_fn=_obey_interrupts)
        except OSError as error:
            out.write(f"{command[0]} cannot be run: {error}\n")
            return 127
        try:
            return process.wait(max(limit, 0.0))
        except subprocess.TimeoutExpired:
            for _ in range(INTERRUPTS if "pytest" in command else 0):
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
            out.write(f"ended after {limit:.0f} s\n")
            return FAILED
        finally:
            # It was started in a process group of its own, which may have survived it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for the logs and the rows")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, metavar="STEP",
                        help=f"some of {', '.join(STEPS)} (default: all)")
    parser.add_argument("--limit", type=float, default=3600.0,
                        help="seconds for all steps (default: 3600)")
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:cut])
    options.folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.limit
    todo = commands(options.folder.absolute(), given[cut + 1:])
    lines = [", ".join(versions())]
    for step in options.steps:
        start, log = time.monotonic(), options.folder / f"{step}.log"
        if todo[step][0] == "compute-sanitizer" and shutil.which("compute-sanitizer") is None:
            lines.append(f"{step}: left out, compute-sanitizer is not installed")
            status = 0
        else:
            status = run(todo[step], log, min(end - start, LIMITS.get(step, end - start)))
            lines.append(f"{step}: {'passed' if status == 0 else f'exit status {status}'}, "
                         f"{time.monotonic() - start:.0f} s")
        print(lines[-1], flush=True)
        if status:
            print(*log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:], sep="\n",
                  flush=True)
        (options.folder / "summary.log").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(any("exit status" in line for line in lines))


def versions() -> list[str]:
    """The versions of Python and of the packages that xpnet, its tests and its benchmarks use, with
    "no" before missing ones."""
    found = [f"Python {sys.version.split()[0]}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return found


if __name__ == "__main__":
    sys.exit(main())
