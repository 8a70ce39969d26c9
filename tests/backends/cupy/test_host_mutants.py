"""The tests of the CUDA path's host code fail if there is a mistake in it.

Launches, streams, captures and transfers are Python code that these tests run without a GPU. Each
mistake of support/host_mutants.py is one that an emulation might let through; a test must notice
it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from check_runs import Outcome, outcomes
from host_mutants import MUTANTS
from processes import ROOT, run_script
from tiers import first, full

IN_FIRST_TIER = "an array from the host in a graph",
Outcomes = dict[str, Outcome]


def run(*command_lines: list[str]) -> list[Outcome]:
    """host_mutants.py in processes of its own, with every parameter of the tests."""
    return outcomes(command_lines, "host_mutants", **{"XPNET_TESTS": "all"})


@pytest.fixture(scope="module")
def noticed(everything: bool, folder: Path) -> Outcomes:
    """The outcome of each mistake's test."""
    names = list(MUTANTS) if everything else IN_FIRST_TIER
    return dict(zip(names, run(*(["--mistake", name, MUTANTS[name].test] for name in names)),
                    strict=True))


def test_the_mistakes_are_where_the_table_says():
    """In the first tier, so that a change of the code does not leave the table behind."""
    for name, mutant in MUTANTS.items():
        compile(mutant.text(), mutant.file, "exec")
        spec = find_spec(mutant.module)
        assert spec and spec.origin and Path(spec.origin).samefile(ROOT / mutant.file), name


@pytest.mark.parametrize("name", first(MUTANTS, *IN_FIRST_TIER))
def test_a_mistake_is_noticed(name: str, noticed: Outcomes):
    result = noticed[name]
    assert result.status == pytest.ExitCode.TESTS_FAILED, (
        f"status {result.status}\n{result.output[-3000:]}\n{result.error[-3000:]}")
    assert MUTANTS[name].output in result.output


def test_a_run_that_waits_for_ever_is_ended(tmp_path: Path):
    run_script(f"""
import os, signal, time
from pathlib import Path
from types import SimpleNamespace

import check_runs

check_runs.LONGEST = 1
waiting, folder = SimpleNamespace(main=lambda arguments: time.sleep(60)), Path({str(tmp_path)!r})
check_runs.begin(waiting, (), folder / "output", folder / "error")
assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGALRM
""")


@full
def test_without_a_mistake_the_same_tests_pass(folder: Path):
    tests = sorted({mutant.test for mutant in MUTANTS.values()})
    for result in run(tests[::2], tests[1::2]):
        assert result.status == 0, result.output[-3000:]
        assert "skipped" not in result.output.splitlines()[-1]
