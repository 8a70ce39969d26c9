"""Registered backends: found by their names."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import xpnet as xn
from xpnet.backends import Backend, BackendError, available, get_backend, register, registry
from xpnet.backends.numpy.backend import NumpyBackend


class Mine(NumpyBackend):
    """A user's backend."""


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_registered", {})
    yield


def test_a_registered_backend_is_found_by_its_name():
    register("mine", Mine)
    backend = get_backend("mine")
    assert type(backend) is Mine and backend.name == "mine" and get_backend("mine") is not backend
    assert available() == [*[name for name in available() if name != "mine"], "mine"]
    assert xn.Sequential([xn.Linear(3)], input_shape=(4,), backend="mine").backend.name == "mine"


def test_a_network_on_it_is_copied_and_pickled_by_name():
    register("mine", Mine)
    net = xn.Sequential([xn.Linear(3)], input_shape=(4,), backend="mine")
    x = np.ones((2, 4), np.float32)
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert type(other.backend) is Mine
        np.testing.assert_array_equal(other.predict(x), net.predict(x))


def test_a_backend_that_cannot_be_used_here_is_not_available():
    def factory() -> Backend:
        raise BackendError("mine: there is no device", "Buy one")
    register("mine", factory)
    assert "mine" not in available()
    with pytest.raises(BackendError, match="mine: there is no device. Buy one."):
        get_backend("mine")


def test_a_factory_must_return_a_backend():
    register("mine", lambda: 3)     # type: ignore[arg-type, return-value]
    with pytest.raises(
            TypeError,
            match="get_backend: expected the factory of 'mine' to return a Backend. Received: 3."):
        get_backend("mine")


@pytest.mark.parametrize("name", ["", "a:b", 3, None])
def test_invalid_names_are_refused(name: Any):
    with pytest.raises(ValueError, match="register: expected name to be a string"):
        register(name, Mine)


@pytest.mark.parametrize("name", ["auto", "numpy", "numba", "cupy", "mine"])
def test_a_name_that_is_taken_is_refused(name: str):
    register("mine", Mine)
    with pytest.raises(
            ValueError,
            match=f"register: expected a name that is not taken. Received: name='{name}'"):
        register(name, NumpyBackend)


def test_a_factory_must_be_callable():
    with pytest.raises(TypeError,
                       match="register: expected factory to be a function that returns a Backend"):
        register("mine", Mine())    # type: ignore[arg-type]


def test_the_error_for_an_unknown_name_lists_the_registered_ones():
    register("mine", Mine)
    with pytest.raises(ValueError, match="get_backend: expected \"auto\", .*, or 'mine', perhaps "
                                         "'mine'. Received: 'mne'."):
        get_backend("mne")
