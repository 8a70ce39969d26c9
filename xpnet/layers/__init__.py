"""Layers, one file per family."""

from xpnet.layers.activation import Activation, ReLU, ScaledTanh, Sigmoid, Softmax, Tanh
from xpnet.layers.convolution import Conv2d, TableConv2d, TrueConv2d
from xpnet.layers.dropout import Dropout
from xpnet.layers.linear import RBF, Linear
from xpnet.layers.local_normalization import ContrastNorm2d, DivisiveNorm2d, LocalResponseNorm, SubtractiveNorm2d
from xpnet.layers.merge import Add, Concat
from xpnet.layers.normalization import BatchNorm2d
from xpnet.layers.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from xpnet.layers.rescale import Rescale
from xpnet.layers.separable import DepthwiseConv2d, SeparableConv2d
from xpnet.layers.shape import Flatten
from xpnet.layers.subsampling import Subsampling2d

__all__ = [
    "Activation", "Add", "AvgPool2d", "BatchNorm2d", "Concat", "ContrastNorm2d", "Conv2d", "DepthwiseConv2d", "DivisiveNorm2d",
    "Dropout", "Flatten", "GlobalAvgPool2d", "Linear", "LocalResponseNorm", "MaxPool2d", "RBF", "ReLU", "Rescale", "ScaledTanh",
    "SeparableConv2d", "Sigmoid", "Softmax", "Subsampling2d", "SubtractiveNorm2d", "TableConv2d", "Tanh", "TrueConv2d",
]
