"""Two tiers of tests: `make test` runs the first, `make test-all` runs everything.

The first tier checks each thing once. XPNET_TESTS=all adds the tests that are marked `full`, more
backends for tests of layers, and more examples for tests that draw their own. A test is marked
`full` only if another test of the same thing is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

EVERYTHING = os.environ.get("XPNET_TESTS") == "all"
full = pytest.mark.full


def number(everything: int) -> int:
    """The number of examples to draw, of those that are drawn when everything runs."""
    return everything if EVERYTHING else max(5, everything // 5)


def examples(everything: int) -> settings:
    """Decorator for a property-based test: how many examples it draws."""
    return settings(max_examples=number(everything))


def first(cases: Iterable[Any], *names: Any) -> list[Any]:
    """The cases for `parametrize`: those in `names` run in the first tier, the others are
    `full`."""
    cases = list(cases)
    assert all(name in cases for name in names), f"expected some of {cases}. Received: {names}"
    return [case if case in names else pytest.param(case, marks=full) for case in cases]


def only_in_full(*params: Any) -> list[Any]:
    """These parameters when everything runs, otherwise none."""
    return list(params) if EVERYTHING else []
