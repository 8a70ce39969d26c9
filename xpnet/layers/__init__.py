"""Layers, one file per family. Each file lists its public names in `__all__`."""

from xpnet.layers import (
    activations,
    attention,
    convolution,
    dropout,
    embedding,
    fusion,
    gates,
    landmarks,
    linear,
    local_normalization,
    merge,
    normalization,
    pooling,
    preprocessing,
    rectifiers,
    recurrent,
    resize,
    rnn,
    shape,
    signals,
    softmax,
    sparse_coding,
    subsampling,
)
from xpnet.layers.activations import *
from xpnet.layers.attention import *
from xpnet.layers.convolution import *
from xpnet.layers.dropout import *
from xpnet.layers.embedding import *
from xpnet.layers.fusion import *
from xpnet.layers.gates import *
from xpnet.layers.landmarks import *
from xpnet.layers.linear import *
from xpnet.layers.local_normalization import *
from xpnet.layers.merge import *
from xpnet.layers.normalization import *
from xpnet.layers.pooling import *
from xpnet.layers.preprocessing import *
from xpnet.layers.rectifiers import *
from xpnet.layers.recurrent import *
from xpnet.layers.resize import *
from xpnet.layers.rnn import *
from xpnet.layers.shape import *
from xpnet.layers.signals import *
from xpnet.layers.softmax import *
from xpnet.layers.sparse_coding import *
from xpnet.layers.subsampling import *

__all__: list[str] = []
__all__ += activations.__all__
__all__ += attention.__all__
__all__ += convolution.__all__
__all__ += dropout.__all__
__all__ += embedding.__all__
__all__ += fusion.__all__
__all__ += gates.__all__
__all__ += landmarks.__all__
__all__ += linear.__all__
__all__ += local_normalization.__all__
__all__ += merge.__all__
__all__ += normalization.__all__
__all__ += pooling.__all__
__all__ += preprocessing.__all__
__all__ += rectifiers.__all__
__all__ += recurrent.__all__
__all__ += resize.__all__
__all__ += rnn.__all__
__all__ += shape.__all__
__all__ += signals.__all__
__all__ += softmax.__all__
__all__ += sparse_coding.__all__
__all__ += subsampling.__all__
