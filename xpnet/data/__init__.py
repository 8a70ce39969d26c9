"""Data sets as plain arrays, batch first."""

from xpnet.data.datasets import Dataset, digits, mnist
from xpnet.data.idx import read_idx

__all__ = ["Dataset", "digits", "mnist", "read_idx"]
