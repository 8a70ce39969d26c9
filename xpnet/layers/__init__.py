"""Layers, one file per family."""

from xpnet.layers.activations import (
    CELU,
    ELU,
    GELU,
    SELU,
    Activation,
    Arctan,
    Elliot,
    Gaussian,
    Identity,
    Loggy,
    LogSigmoid,
    Mish,
    ScaledTanh,
    Sigmoid,
    SiLU,
    SmoothAbs,
    Softplus,
    Softsign,
    SymmElliot,
    Tanh,
    Tanhshrink,
)
from xpnet.layers.convolution import (
    Conv2d,
    ConvTranspose2d,
    DepthwiseConv2d,
    SeparableConv2d,
    TableConv2d,
    TrueConv2d,
)
from xpnet.layers.dropout import AlphaDropout, DropConnect, Dropout, Dropout2d, GaussianDropout
from xpnet.layers.gates import GLU, CReLU, Gain, Maxout, PReLU, RReLU, Swish
from xpnet.layers.linear import RBF, Linear, LocallyConnected2d
from xpnet.layers.local_normalization import (
    ContrastNorm2d,
    DivisiveNorm2d,
    L1Norm,
    L2Norm,
    LocalResponseNorm,
    LpNormalize,
    SubtractiveNorm2d,
)
from xpnet.layers.merge import Add, Average, Concat, Maximum, Minimum, Multiply, Subtract
from xpnet.layers.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    RMSNorm,
)
from xpnet.layers.pooling import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    MaxPool2d,
    MaxUnpool2d,
)
from xpnet.layers.preprocessing import Rescale, Whitening
from xpnet.layers.rectifiers import (
    Abs,
    ClippedReLU,
    Hardshrink,
    HardSigmoid,
    HardSwish,
    Hardtanh,
    LeakyReLU,
    Lhtan,
    Plse,
    Ramp,
    Relie,
    ReLU,
    ReLU6,
    Softshrink,
    Stair,
    Step,
    ThresholdedReLU,
)
from xpnet.layers.resize import (
    CircularPad2d,
    ConstantPad2d,
    Crop2d,
    ReflectionPad2d,
    ReplicationPad2d,
    Upsample2d,
    ZeroPad2d,
)
from xpnet.layers.shape import (
    ChannelShuffle,
    Flatten,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Reshape,
)
from xpnet.layers.softmax import LogSoftmax, Softmax
from xpnet.layers.sparse_coding import DeconvolutionalNetwork2d
from xpnet.layers.subsampling import (
    GaussianPool2d,
    LpPool2d,
    SkipSampling2d,
    StochasticPool2d,
    Subsampling2d,
)

__all__ = [
    "Abs", "Activation", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "Add", "AlphaDropout", "Arctan",
    "Average", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "CELU", "CReLU", "ChannelShuffle",
    "CircularPad2d", "ClippedReLU", "Concat", "ConstantPad2d", "ContrastNorm2d", "Conv2d",
    "ConvTranspose2d", "Crop2d", "DeconvolutionalNetwork2d", "DepthwiseConv2d", "DivisiveNorm2d",
    "DropConnect", "Dropout", "Dropout2d", "ELU", "Elliot", "Flatten", "GELU", "GLU", "Gain",
    "Gaussian", "GaussianDropout", "GaussianPool2d", "GlobalAvgPool2d", "GlobalMaxPool2d",
    "GroupNorm", "HardSigmoid", "HardSwish", "Hardshrink", "Hardtanh", "Identity", "InstanceNorm2d",
    "L1Norm", "L2Norm", "LayerNorm", "LeakyReLU", "Lhtan", "Linear", "LocalResponseNorm",
    "LocallyConnected2d", "LogSigmoid", "LogSoftmax", "Loggy", "LpNormalize", "LpPool2d",
    "MaxPool2d", "MaxUnpool2d", "Maximum", "Maxout", "Minimum", "Mish", "Multiply", "PReLU",
    "Permute", "PixelShuffle", "PixelUnshuffle", "Plse", "RBF", "RMSNorm", "RReLU", "Ramp", "ReLU",
    "ReLU6", "ReflectionPad2d", "Relie", "ReplicationPad2d", "Rescale", "Reshape", "SELU",
    "ScaledTanh", "SeparableConv2d", "SiLU", "Sigmoid", "SkipSampling2d", "SmoothAbs", "Softmax",
    "Softplus", "Softshrink", "Softsign", "Stair", "Step", "StochasticPool2d", "Subsampling2d",
    "Subtract", "SubtractiveNorm2d", "Swish", "SymmElliot", "TableConv2d", "Tanh", "Tanhshrink",
    "ThresholdedReLU", "TrueConv2d", "Upsample2d", "Whitening", "ZeroPad2d",
]
