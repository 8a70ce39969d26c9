"""`make test` and `make test-rest` together check all that `make test-all` checks."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import tiers
from hypothesis import given
from hypothesis import strategies as st
from processes import ROOT, SUPPORT

TESTS = ROOT / "tests"
KNOWING = {TESTS / "conftest.py", SUPPORT / "tiers.py"}


def test_only_the_fixtures_tell_a_test_its_tier():
    """Otherwise `make test-rest` might leave out a test that does more when everything runs."""
    for path in {*TESTS.rglob("*.py")} - KNOWING:
        text = path.read_text(encoding="utf-8")
        assert "import tiers" not in text or path.samefile(__file__), path
        names = {name for line in re.findall(r"^from tiers import (.*)", text, re.MULTILINE)
                 for name in line.split(", ")}
        assert names <= {"Number", "number_of", "examples", "first", "full", "only_in_full"}, path
        assert "XPNET_TESTS" not in text.replace('"XPNET_TESTS": "all"', "") or path.samefile(
            __file__), path


@pytest.fixture
def runs_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    def runs_in(item=request.node) -> list[str]:
        """The tiers in which a test runs, by default the one that asks."""
        found = []
        for tier in ("first", "all", "rest"):
            monkeypatch.setattr(tiers, "TIER", tier)
            monkeypatch.setattr(tiers, "EVERYTHING", tier != "first")
            found += [tier] * tiers.runs(item)
        return found
    return runs_in


@pytest.fixture
def many(number: tiers.Number) -> int:
    return number(500)


@given(st.integers())
def drawn(number: int) -> None:
    assert number == number


def test_the_same_in_both_tiers(runs_in):
    assert runs_in() == ["first", "all"]


def test_with_the_number_of_examples_from_a_fixture(runs_in, many, everything):
    assert many == (500 if everything else 100)
    assert runs_in() == ["first", "all", "rest"]


def test_full(runs_in, request):
    request.node.add_marker(tiers.full)
    assert runs_in() == ["all", "rest"]


def test_examples_that_hypothesis_draws(runs_in):
    item = SimpleNamespace(obj=drawn, fixturenames=[], get_closest_marker=lambda name: None)
    assert runs_in(item) == ["first", "all", "rest"]
