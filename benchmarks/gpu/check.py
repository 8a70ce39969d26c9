"""The first minutes on a GPU: what is there, the kernels, the tests that need it,
compute-sanitizer, the benchmarks.

    python -m benchmarks.gpu.check FOLDER [--steps STEP ...] [--limit SECONDS] [-- OPTION ...]

Steps are machine, compile, tests, memcheck, racecheck, bench; all unless told. What follows -- goes
to `python -m benchmarks gpu`. Each step's output is FOLDER/STEP.log, the benchmarks' rows are
FOLDER/rows.json. A step that fails stops no other; FOLDER/summary.log says how each ended.
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
from importlib import metadata
from pathlib import Path

from benchmarks.gpu.command import DATA
from benchmarks.race import ROOT

PACKAGES = ("numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "numba", "safetensors", "tqdm",
            "threadpoolctl", "pytest", "hypothesis", "pillow")
STEPS = ("machine", "compile", "tests", "memcheck", "racecheck", "bench")
# seconds; the last takes the rest
LIMITS = {"machine": 30, "compile": 120, "tests": 300, "memcheck": 90, "racecheck": 90}
FAILED = 124        # as of timeout(1): the time was over


def commands(folder: Path, more: Sequence[str] = ()) -> dict[str, list[str]]:
    """What each step runs."""
    python = sys.executable
    sanitizer = ["compute-sanitizer", "--error-exitcode", "9"]
    small = [python, "-m", "benchmarks.gpu.small_run"]
    return {
        "machine": ["nvidia-smi"], "compile": [python, "-m", "benchmarks.gpu.compiling"],
        "tests": [python, "-m", "pytest", "-rs", "-m", "gpu", "-p", "no:cacheprovider",
                  "--continue-on-collection-errors",
                  "--durations=10"],
        "memcheck": [*sanitizer, "--tool", "memcheck", *small],
        "racecheck": [*sanitizer, "--tool", "racecheck", *small],
        "bench": [python, "-m", "benchmarks", "gpu", "--json", str(folder / "rows.json"), *more],
    }


def run(command: Sequence[str], log: Path, limit: float) -> int:
    """The exit status of a command whose output goes to a file; its processes are ended after
    `limit` seconds."""
    environment = os.environ | {"XPNET_REQUIRE_GPU": "1", "PYTHONUNBUFFERED": "1",
                                "PYTHONPATH": os.pathsep.join(
                                    filter(None, (ROOT, os.environ.get("PYTHONPATH"))))}
    if DATA.is_dir():
        environment.setdefault("XPNET_HOME", str(DATA))
    with log.open("w", encoding="utf-8") as out:
        try:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT,
                                       env=environment, start_new_session=True)
        except OSError as error:
            out.write(f"{command[0]} cannot be run: {error}\n")
            return 127
        try:
            return process.wait(max(limit, 0.0))
        except subprocess.TimeoutExpired:
            out.write(f"ended after {limit:.0f} s\n")
            return FAILED
        finally:
            if process.poll() is None:
                # the group of its own that it was started in
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the logs and the rows go")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, metavar="STEP",
                        help=f"some of {', '.join(STEPS)}")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for all of them "
                                                                    "(default: an hour)")
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:cut])
    options.folder.mkdir(parents=True, exist_ok=True)
    end, todo = time.monotonic() + options.limit, commands(options.folder.absolute(),
                                                           given[cut + 1:])
    lines = [", ".join(versions())]
    for step in options.steps:
        start, log = time.monotonic(), options.folder / f"{step}.log"
        if todo[step][0] == "compute-sanitizer" and shutil.which("compute-sanitizer") is None:
            lines.append(f"{step}: left out, compute-sanitizer is not installed")
            status = 0
        else:
            status = run(todo[step], log, min(end - start, LIMITS.get(step, end - start)))
            lines.append(f"{step}: {'well' if status == 0 else f'exit status {status}'}, "
                         f"{time.monotonic() - start:.0f} s")
        print(lines[-1], flush=True)
        if status:
            print(*log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:], sep="\n",
                  flush=True)
        (options.folder / "summary.log").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(any("exit status" in line for line in lines))


def versions() -> list[str]:
    """Python and the packages that xpnet, its tests and its benchmarks use, or that they are
    missing."""
    found = [f"Python {sys.version.split()[0]}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return found


if __name__ == "__main__":
    sys.exit(main())
