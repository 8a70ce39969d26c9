"""The CPU backend against base.py: every public method, over one table of odd sizes."""

import pytest
from parity_cases import CASES, Case, agree, different_signatures, missing_methods, run

from xpnet.backends import Backend
from xpnet.backends.numpy_backend import NumpyBackend


@pytest.fixture(scope="module")
def backend():
    return NumpyBackend()


def test_the_table_covers_every_public_method():
    assert missing_methods() == set()


def test_overrides_keep_the_parameters_and_defaults_of_the_contract():
    assert different_signatures(NumpyBackend) == set()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_method_agrees_with_base(case: Case, backend: NumpyBackend):
    with_base = run(case, Backend())
    agree(case, run(case, backend), with_base)
