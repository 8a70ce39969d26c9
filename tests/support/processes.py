"""Python processes of their own, for what an environment variable decides before the first
import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]

# The C library of Linux then gives freed memory back to the system at once, and whoever still uses
# it is stopped. A kernel may go on using an array of which only the address was taken: it is freed
# where its name stands for the last time.
STRICT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "128"}


def run_script(script: str, *, timeout: float = 300, **environment: str) -> str:
    """What a program writes to standard error; it can import xpnet, the tests and their helpers,
    and must succeed."""
    paths = [str(ROOT), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, timeout=timeout,
                          capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment)
    assert done.returncode == 0, f"it ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stderr
