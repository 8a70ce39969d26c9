"""Array backends: layers compute through these objects. This package does not import layers."""

from xpnet.backends.base import Backend
from xpnet.backends.errors import BackendError
from xpnet.backends.registry import available, get_backend, register
from xpnet.backends.window import Window

__all__ = ["Backend", "BackendError", "Window", "available", "get_backend", "register"]
