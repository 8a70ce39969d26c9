"""Python processes of their own, for what an environment variable decides before the first import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def run_script(script: str, **environment: str) -> str:
    """What a program writes to standard error; it may import from the tree and from the tests, and has to succeed."""
    paths = [str(TESTS.parent), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=TESTS.parent, timeout=300, capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr
