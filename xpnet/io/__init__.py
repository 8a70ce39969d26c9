"""Reading and writing networks.

`xn.io.load_darknet` and `xn.io.save_darknet` read and write Darknet's files; see io/darknet.
"""

from typing import Any

LAZY = "load_darknet", "save_darknet"       # imported when they are used


def __getattr__(name: str) -> Any:
    if name in LAZY:
        from xpnet.io import darknet
        return getattr(darknet, name)
    raise AttributeError(f"xpnet.io has no {name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *LAZY})
