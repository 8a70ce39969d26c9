"""The process that compiles the CPU kernels computes the same bits as those that load them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import run_script
from tiers import full

pytest.importorskip("numba", reason="Numba is not installed")


@full
def test_compiled_and_loaded_kernels_give_the_same_bits(tmp_path: Path):
    """The process that compiles trains the networks in one order, the process that loads in the
    opposite order.

    All networks together use every kernel.
    """
    said, hashes = [], []
    for order in ("", "backwards"):
        file = tmp_path / f"{order}.json"
        script = f"import every_kernel; every_kernel.main({str(file)!r}, {order!r})"
        said.append(run_script(script, timeout=1200,
                               NUMBA_CACHE_DIR=str(tmp_path / "cache"), XPNET_NUM_THREADS="2"))
        hashes.append(json.loads(file.read_text()))
    assert "compiling" in said[0] and said[1] == ""
    assert hashes[0] == hashes[1]
