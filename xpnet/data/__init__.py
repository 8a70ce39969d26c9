"""Data sets: samples with labels, read a batch at a time, and where they come from."""

from xpnet.data.dataset import Dataset
from xpnet.data.datasets import digits, mnist
from xpnet.data.idx import read_idx

__all__ = ["Dataset", "digits", "mnist", "read_idx"]
