"""Every public call with hostile arguments: it works, or raises one of the library's errors.

One argument at a time is replaced by each of HOSTILE. An accepted argument must work: the network
computes, and the layer can be rebuilt from its configuration. A refused one raises an error of the
form `Who: expected X. Received: Y.` By default a tenth of the combinations is tried, in the
second tier a quarter, always the same; XPNET_FUZZ=all tries them all.
"""

from __future__ import annotations

import math
import os
import re
import types
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from fuzz_calls import CALLS, FILES, Call, signature
from model_cases import LARGE
from tiers import first

import xpnet as xn
from xpnet.backends import BackendError

FORM = re.compile(r"[^\n]+: expected [^\n]+ Received: [^\n]+")
LONGEST = 1500  # characters of an error; the names of all activations are about 500
REFUSALS = ValueError, TypeError, IndexError, BackendError, FileNotFoundError

HOSTILE: dict[str, Any] = {
    "None": None, "True": True, "False": False, "'no'": "no", "''": "", "[]": [], "{}": {},
    "()": (), "set()": set(), "object()": object(), "np.array([])": np.array([]),
    "np.array([1, 2])": np.array([1, 2]), "np.ones((2, 2))": np.ones((2, 2)), "nan": np.nan,
    "inf": math.inf, "-inf": -math.inf, "-1": -1, "0": 0, "2": 2, "2**70": 2**70,
    "10**400": 10**400, "-0.5": -0.5, "0.5": 0.5, "2.0": 2.0, "b'x'": b"x",
    "a lambda": lambda *args: None, "a class": Exception, "a module": types,
    "[[1], [2, 3]]": [[1], [2, 3]], "[[]]": [[]], "[None]": [None], "'3'": "3", "1j": 1j,
    "np.complex64(1)": np.complex64(1), "np.array(3.0)": np.array(3.0), "np.array(3)": np.array(3),
    "np.ma.masked": np.ma.masked, "a masked array": np.ma.array([1.0, 2.0], mask=[True, False]),
    "np.float16(0.5)": np.float16(0.5), "np.int8(2)": np.int8(2), "np.str_('no')": np.str_("no"),
    "'x' * 10**5": "x" * 10**5, "a million": np.arange(1_000_000),
    "list of 10**5": list(range(10**5)), "[1, 'a']": [1, "a"], "(1, True)": (1, True),
    "[nan]": [np.nan], "a date": np.datetime64("2020-01-01"), "['a', 'b']": ["a", "b"],
    "range(2)": range(2)}


@pytest.fixture
def fraction(everything: bool) -> int:
    return 1 if os.environ.get("XPNET_FUZZ") == "all" else 4 if everything else 10


def drawn(fraction: int, label: str, argument: str, value: str) -> bool:
    """Whether the combination is tried: one in `fraction`, always the same ones."""
    return zlib.crc32(f"{label} {argument} {value}".encode()) % fraction == 0


def failure(call: Call, argument: str, value: Any) -> str | None:
    """What is wrong with the call, or None."""
    is_flag = isinstance(call.good()[argument], bool)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        try:
            call.use(call(**{argument: value}))
            return ("accepted, though it is neither True nor False"
                    if is_flag and type(value) is not bool else None)
        except REFUSALS as error:
            text = str(error)
            if FORM.fullmatch(text) and len(text) <= LONGEST:
                return None
            return f"{type(error).__name__}: {text[:300]}"
        except ImportError as error:    # of an extra that is not installed: parallel=True
            return None if 'pip install "xpnet[' in str(error) else str(error)[:300]
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:300]}"


# Each figure takes some milliseconds.
PICTURES = {label for label in CALLS if label.startswith("viz.")}


@pytest.mark.parametrize("label", first(CALLS, *(CALLS.keys() - {*LARGE} - PICTURES)))
def test_hostile_arguments(label, fraction, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if label in PICTURES:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed; it draws figures")
    call = CALLS[label]
    if label not in FILES:
        call.use(call())  # the good arguments work
    wrong = [f"{argument}={name}: {why}" for argument in call.good()
             for name, value in HOSTILE.items()
             if drawn(fraction, label, argument, name) and (why := failure(call, argument, value))]
    assert not wrong, f"{label}: {len(wrong)} bad refusals\n" + "\n".join(wrong)


def test_every_public_name_is_called():
    """What xpnet exports is in the table, apart from base classes, types, constants and modules."""
    others = {"Augmentation", "PREDICT", "SAMPLE", "TRAIN", "Backend", "BackendError", "Callback",
              "History", "Layer", "OutOfMemory", "Window", "available", "get_num_threads",
              "functional", "metrics", "Loss", "Optimizer", "Run", "Schedule"}
    assert set(xn.__all__) - others <= set(CALLS)
    assert set(xn.functional.__all__) | set(xn.metrics.__all__) <= set(CALLS)
    assert {f"explain.{name}" for name in xn.explain.__all__} <= set(CALLS)
    assert {f"viz.{name}" for name in xn.viz.__all__ if name[0].islower()} <= set(CALLS)
    assert "explore.Explorer" in CALLS
    assert {f"vision.{name}" for name in xn.vision.__all__ if name[0].islower()} <= set(CALLS)


def test_every_argument_is_tried():
    for label, call in CALLS.items():
        owner, _, method = label.rpartition(".")
        function = getattr(xn.Network, method) if owner == "Network" else call.function
        if getattr(function, "__name__", "<lambda>") not in (
            "<lambda>",
            "call",
        ):  # these have no parameters of their own
            assert set(signature(function)) - {"self"} <= set(call.good()), label
