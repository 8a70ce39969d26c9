"""Layers, one file per family."""

from xpnet.layers.activation import Activation, ReLU, ScaledTanh, Sigmoid, Softmax, Tanh
from xpnet.layers.adaptive_pooling import AdaptiveAvgPool2d, AdaptiveMaxPool2d, GlobalMaxPool2d
from xpnet.layers.convolution import Conv2d, TableConv2d, TrueConv2d
from xpnet.layers.dropout import Dropout
from xpnet.layers.gaussian_pooling import GaussianPool2d
from xpnet.layers.linear import RBF, Linear
from xpnet.layers.local_normalization import ContrastNorm2d, DivisiveNorm2d, LocalResponseNorm, SubtractiveNorm2d
from xpnet.layers.locally_connected import LocallyConnected2d
from xpnet.layers.lp import L1Norm, L2Norm, LpNormalize, LpPool2d
from xpnet.layers.merge import Add, Concat
from xpnet.layers.normalization import BatchNorm2d
from xpnet.layers.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from xpnet.layers.rescale import Rescale
from xpnet.layers.separable import DepthwiseConv2d, SeparableConv2d
from xpnet.layers.shape import Flatten
from xpnet.layers.subsampling import SkipSampling2d, Subsampling2d
from xpnet.layers.transposed import ConvTranspose2d
from xpnet.layers.unpooling import MaxUnpool2d
from xpnet.layers.whitening import Whitening

__all__ = [
    "Activation", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "Add", "AvgPool2d", "BatchNorm2d", "Concat", "ContrastNorm2d",
    "Conv2d", "ConvTranspose2d", "DepthwiseConv2d", "DivisiveNorm2d", "Dropout", "Flatten", "GaussianPool2d", "GlobalAvgPool2d",
    "GlobalMaxPool2d", "L1Norm", "L2Norm", "Linear", "LocalResponseNorm", "LocallyConnected2d", "LpNormalize", "LpPool2d",
    "MaxPool2d", "MaxUnpool2d", "RBF", "ReLU", "Rescale", "ScaledTanh", "SeparableConv2d", "Sigmoid", "SkipSampling2d",
    "Softmax", "Subsampling2d", "SubtractiveNorm2d", "TableConv2d", "Tanh", "TrueConv2d", "Whitening",
]
