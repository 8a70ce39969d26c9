"""Data sets: samples with labels, read a batch at a time, and where they come from."""

from xpnet.data.cifar import cifar10, cifar100
from xpnet.data.dataset import Dataset
from xpnet.data.folder import image_folder
from xpnet.data.idx import read_idx
from xpnet.data.images import read_image
from xpnet.data.letters import emnist
from xpnet.data.shapes import shapes, stick_figures
from xpnet.data.standard import digits, fashion_mnist, mnist
from xpnet.data.table import csv_images

__all__ = ["Dataset", "cifar10", "cifar100", "csv_images", "digits", "emnist", "fashion_mnist",
           "image_folder", "mnist", "read_idx", "read_image", "shapes", "stick_figures"]
