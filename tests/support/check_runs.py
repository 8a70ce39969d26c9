"""Many runs of kernel_checks.py or host_mutants.py, each in a fork of one process that has imported
what they need.

    python tests/support/check_runs.py MODULE < RUNS > OUTCOMES

Imports take longer than most checks, and with AddressSanitizer more than twice as long. RUNS is a
JSON list of command lines for the function `main` of MODULE; OUTCOMES has an `Outcome` for each.
Two run at a time.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from processes import ROOT, SUPPORT

AT_A_TIME = 2
LONGEST = 1800          # seconds of a run, which a mistake may make wait for ever


class Outcome(NamedTuple):
    """How a run ended; the status is negative if a signal ended it."""

    status: int
    output: str
    error: str


def outcomes(runs: Sequence[Sequence[str]], module: str = "kernel_checks", **environment: str
             ) -> list[Outcome]:
    """The outcome of each command line."""
    done = subprocess.run([sys.executable, str(SUPPORT / "check_runs.py"), module], check=True,
                          input=json.dumps(runs), stdout=subprocess.PIPE, text=True, cwd=ROOT,
                          env=os.environ | {"PYTHONPATH": str(ROOT)} | environment)
    return [Outcome(*outcome) for outcome in json.loads(done.stdout)]


def begin(module: Any, arguments: Sequence[str], output: Path, error: Path) -> int:
    """The number of a new process, which runs the module and writes into these files."""
    number = os.fork()
    if number != 0:
        return number
    status = 1
    signal.alarm(LONGEST)               # ends the process
    try:
        for file, place in ((output, 1), (error, 2)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), place)
        status = module.main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)                # what the parent does at its end is not done here


def main() -> None:
    module = importlib.import_module(sys.argv[1])
    runs, status = json.load(sys.stdin), dict[int, int]()
    with tempfile.TemporaryDirectory() as name:
        def files(run: int) -> tuple[Path, Path]:
            return Path(name, f"{run}.out"), Path(name, f"{run}.err")

        running, left = dict[int, int](), list(enumerate(runs))
        while left or running:
            while left and len(running) < AT_A_TIME:
                run, arguments = left.pop(0)
                running[begin(module, arguments, *files(run))] = run
            number, ended = os.wait()
            status[running.pop(number)] = os.waitstatus_to_exitcode(ended)
        print(json.dumps([(status[run], *(file.read_text(encoding="utf-8", errors="replace")
                                          for file in files(run))) for run in range(len(runs))]))


if __name__ == "__main__":
    main()
