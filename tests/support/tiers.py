"""Two tiers of tests: `make test` runs the first, `make test-all` runs everything.

The first tier checks each thing once. `make test-all` adds the tests that are marked `full`, more
backends for tests of layers, and more examples for tests that draw their own. A test is marked
`full` only if another test of the same thing is not.

`make test-rest` runs what is left of everything after the first tier has passed. It leaves out the
tests that do the same in both tiers. A test that is not marked `full` is one of them if it cannot
know the tier: hypothesis does not draw its examples, and it uses neither of the fixtures `number`
and `everything`, directly or through another fixture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings

TIER = os.environ.get("XPNET_TESTS", "first")
EVERYTHING = TIER != "first"            # only conftest.py may read it
full = pytest.mark.full
Number = Callable[[int], int]


def number_of(everything: bool) -> Number:
    """The function that says how many examples a test draws, of those that it draws when everything
    runs."""
    return lambda most: most if everything else max(5, most // 5)


def examples(everything: int) -> settings:
    """Decorator for a property-based test: how many examples it draws."""
    return settings(max_examples=number_of(EVERYTHING)(everything))


def first(cases: Iterable[Any], *names: Any) -> list[Any]:
    """The cases for `parametrize`: those in `names` run in the first tier, the others are
    `full`."""
    cases = list(cases)
    assert all(name in cases for name in names), f"expected some of {cases}. Received: {names}"
    return [case if case in names else pytest.param(case, marks=full) for case in cases]


def only_in_full(*params: Any) -> list[Any]:
    """These parameters when everything runs, otherwise none."""
    return [pytest.param(param, marks=full) for param in params] if EVERYTHING else []


def runs(item: pytest.Item) -> bool:
    """Whether the test runs in this tier."""
    if item.get_closest_marker("full"):
        return EVERYTHING
    return TIER != "rest" or (
        "everything" in item.fixturenames                   # type: ignore[attr-defined]
        or getattr(item.obj, "is_hypothesis_test", False))  # type: ignore[attr-defined]
