"""Reading and writing networks."""

from xpnet.io.safetensors import load, load_weights, save

__all__ = ["load", "load_weights", "save"]
