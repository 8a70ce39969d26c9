"""Data sets: samples with labels, read a batch at a time, and where they come from."""

from xpnet.data.dataset import Dataset
from xpnet.data.datasets import digits, mnist
from xpnet.data.folder import image_folder
from xpnet.data.idx import read_idx
from xpnet.data.images import read_image

__all__ = ["Dataset", "digits", "image_folder", "mnist", "read_idx", "read_image"]
