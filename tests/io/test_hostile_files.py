"""Damaged and hostile files: each is read or refused with one line, within 2 s and the memory of
four such files and 64 MB, and networks in memory keep their bits. tests/support/hostile_files.py
does more of it by hand."""

from __future__ import annotations

import importlib.util
import signal
from collections import Counter

import numpy as np
import pytest
from damage import bytes_changed
from hostile_files import CASES, Case, damaged, outcome
from nets import small
from tiers import first

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer of this system")
NEEDED = {"onnx": "onnx", "keras": "h5py", "images": "PIL"}


@pytest.mark.parametrize("kind", first(CASES, "onnx", "cfg", "weights", "torch",
                                       "torch-safetensors", "keras"))
def test_damaged_files_are_read_or_refused(kind, everything, tmp_path):
    package = NEEDED.get(kind)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    seconds = 5 if everything else 0.7          # of processor time
    endings: Counter[str] = Counter()
    cases = [*CASES[kind](tmp_path)]
    for case in cases:
        assert outcome(case, case.good) == ("read", None)
    for content, ending, wrong in damaged(cases, np.random.default_rng(0), seconds=seconds):
        assert wrong is None, f"{wrong}\n{content[:2000]!r}"
        endings[ending] += 1
    assert endings.total() - endings["read"] > 10, endings


def test_the_check_finds_what_it_is_for(monkeypatch):
    """A foreign error, an error of two lines, a warning, an endless loop, much memory, and a
    network that has changed."""
    net, kept = small(), []
    monkeypatch.setattr("hostile_files.SECONDS", 0.2)

    def case(read):
        return Case(b"good", lambda content: None, read, bytes_changed, net)

    def raises(error):
        def read():
            raise error
        return read

    def endless():
        while True:
            pass

    def changes():
        net.arrays["linear1.b"].data[:] += 1
        raise ValueError("load: expected a file. Received: another.")

    def found(read):
        (_, _, wrong), = damaged([case(read)], np.random.default_rng(0), count=1)
        return wrong

    assert found(raises(ValueError("load: expected a file. Received: another."))) is None
    assert "KeyError" in found(raises(KeyError("a")))
    assert "ValueError" in found(raises(ValueError("expected\n: expected Received: ")))
    assert "RuntimeWarning" in found(lambda: np.float32(1e38) * np.float32(10))
    assert "SlowError" in found(endless)
    assert "MB of memory" in found(lambda: kept.append(bytearray(70 << 20)))
    assert found(changes) == "the network in memory has changed"
