"""Separate Python processes, for settings that an environment variable decides before the first
import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]

# With this setting, the C library of Linux gives freed memory back to the system at once, so that a
# later access crashes. It finds kernels that use the address of an array after the array was freed.
STRICT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "128"}


def run_script(script: str, *, timeout: float = 300, **environment: str) -> str:
    """Run a program, which must succeed, and return its standard error. It can import xpnet, the
    tests and their helpers."""
    paths = [str(ROOT), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, timeout=timeout,
                          capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stderr
