"""The tests of the CUDA path's host code fail if there is a mistake in it.

Launches, streams, captures and transfers are Python code that these tests run without a GPU. Each
mistake of support/host_mutants.py is one that an emulation might let through; a test must notice
it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from host_mutants import MUTANTS
from processes import ROOT, SUPPORT
from tiers import first, full

IN_FIRST_TIER = "an array from the host in a graph",
Outcomes = dict[str, subprocess.CompletedProcess[str]]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """host_mutants.py in a process of its own, with every parameter of the tests."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(SUPPORT))),
                                "XPNET_TESTS": "all"}
    return subprocess.run([sys.executable, str(SUPPORT / "host_mutants.py"), *arguments], cwd=ROOT,
                          env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def outcomes(everything: bool, folder: Path) -> Outcomes:
    """The outcome of each mistake's test, two at a time."""
    names = list(MUTANTS) if everything else IN_FIRST_TIER
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(lambda name: run("--mistake", name, MUTANTS[name].test),
                                        names)))


def test_the_mistakes_are_where_the_table_says():
    """In the first tier, so that a change of the code does not leave the table behind."""
    for name, mutant in MUTANTS.items():
        compile(mutant.text(), mutant.file, "exec")
        spec = find_spec(mutant.module)
        assert spec and spec.origin and Path(spec.origin).samefile(ROOT / mutant.file), name


@pytest.mark.parametrize("name", first(MUTANTS, *IN_FIRST_TIER))
def test_a_mistake_is_noticed(name: str, outcomes: Outcomes):
    result = outcomes[name]
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, (
        f"status {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
    assert MUTANTS[name].output in result.stdout


@full
def test_without_a_mistake_the_same_tests_pass(folder: Path):
    tests = sorted({mutant.test for mutant in MUTANTS.values()})
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(lambda half: run(*half), (tests[::2], tests[1::2])):
            assert result.returncode == 0, result.stdout[-3000:]
            assert "skipped" not in result.stdout.splitlines()[-1]
