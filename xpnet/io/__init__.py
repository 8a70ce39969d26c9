"""Reading and writing networks.

`xn.io.load_darknet` and `xn.io.save_darknet` read and write Darknet's files; see io/darknet.
`xn.io.load_onnx` makes a network of an ONNX file; see io/onnx.
"""

from importlib import import_module
from typing import Any

# Functions, and the modules that are imported when they are used
LAZY = {"load_darknet": "darknet", "save_darknet": "darknet", "load_onnx": "onnx.load"}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(f"xpnet.io.{LAZY[name]}"), name)
    raise AttributeError(f"xpnet.io has no {name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *LAZY})
