"""The `xpnet` command: one file for each command, and one for what several of them share."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from xpnet.cli.networks import FileError
from xpnet.cli.options import parser
from xpnet.parallel import end_all, launched

# What users can correct. Other errors are mistakes of xpnet, and have a traceback.
KNOWN = ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    An error that users can correct is printed to stderr in one line, with status 2; one in a Python
    file of theirs has a traceback in addition.
    """
    options = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            status: int = options.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("xpnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:         # the program that reads the output has ended: xpnet ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except FileError as error:
        error.print_traceback()
        end_all(2, f"xpnet: {error}")
    except KNOWN as error:
        end_all(2, f"xpnet: {error}")
    except Exception:
        if not launched():
            raise
        end_all(1, traceback.format_exc())      # the other processes would wait for this one
        return 1
    return 2


def _show(message: Warning | str, category: type[Warning], filename: str, lineno: int,
          file: Any = None, line: str | None = None) -> None:
    """A warning in one line, above a progress bar if there is one."""
    from tqdm import tqdm
    tqdm.write(f"xpnet: {message}", sys.stderr)
