"""Reading and writing networks."""

from xpnet.io.safetensors import load_weights, save

__all__ = ["load_weights", "save"]
