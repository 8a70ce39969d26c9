"""The library if Numba is not installed, or not asked for."""

from __future__ import annotations

from processes import run_script


def test_without_numba_auto_is_numpy_and_notes_why():
    run_script("""
import sys
sys.modules["numba"] = sys.modules["cupy"] = None               # importing them fails
import numpy as np, pytest, xpnet as xn
from xpnet.backends import BackendError, available, get_backend

message = "numba: Numba is not installed. Install it: pip install 'xpnet.fast.'"
with pytest.raises(BackendError, match=message) as error:
    get_backend("numba")
assert error.value.remedy.startswith("Install it")
assert available() == ["numpy"]
chosen = get_backend("auto")
assert chosen.name == "numpy"
assert chosen.note == "no GPU: CuPy is not installed; Numba is not installed"
net = xn.Sequential([xn.Flatten(), xn.Linear(2)], input_shape=(1, 2, 2))
assert net.backend.name == "numpy"
assert net.predict(np.zeros((4, 1, 2, 2), np.float32)).shape == (4, 2)
""")


def test_numba_is_not_imported_before_it_is_asked_for():
    run_script("""
import sys, xpnet as xn
assert xn.get_backend("numpy").name == "numpy"
loaded = {"numba", "llvmlite", "xpnet.backends.numba.backend"} & set(sys.modules)
assert not loaded, loaded
""")
