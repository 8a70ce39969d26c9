"""Data sets as plain arrays, batch first."""

from .dataset import Dataset
from .digits import digits
from .idx import read_idx
from .mnist import mnist

__all__ = ["Dataset", "digits", "mnist", "read_idx"]
