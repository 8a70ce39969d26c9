"""The catalogue: activations."""

from __future__ import annotations

import numpy as np

from xpnet import layers
from xpnet.catalogue.item import Item
from xpnet.layers import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    Abs,
    Activation,
    Arctan,
    ClippedReLU,
    CReLU,
    Elliot,
    Gain,
    Gaussian,
    Hardshrink,
    HardSigmoid,
    HardSwish,
    Hardtanh,
    Identity,
    LeakyReLU,
    Lhtan,
    Loggy,
    LogSigmoid,
    LogSoftmax,
    Maxout,
    Mish,
    Plse,
    PReLU,
    Ramp,
    Relie,
    ReLU,
    ReLU6,
    RReLU,
    ScaledTanh,
    Sigmoid,
    SiLU,
    SmoothAbs,
    Softmax,
    Softplus,
    Softshrink,
    Softsign,
    Stair,
    Step,
    Swish,
    SymmElliot,
    Tanh,
    Tanhshrink,
    ThresholdedReLU,
)

FEATURES = ((5,),)
EVEN = ((6,),)


def spaced(rng: np.random.Generator, N: int) -> tuple[np.ndarray]:
    """Numbers on both sides of 0 and of every other kink, none of which is near one."""
    return (np.linspace(-6.37, 6.61, 5 * N).reshape(5, N),)


def far_apart(rng: np.random.Generator, N: int) -> tuple[np.ndarray]:
    """No two numbers of a sample are nearly equal."""
    return (rng.permuted(np.linspace(-3, 3, 6 * N)).reshape(6, N),)


NAMED: list[Item] = [
    Item(Activation, lambda: Activation("tanh"), FEATURES, keras="Activation", common=True),
    Item(Identity, Identity, FEATURES, pytorch="Identity", keras="linear", numpynet="Linear", common=True),
    Item(Sigmoid, Sigmoid, FEATURES, pytorch="Sigmoid", keras="sigmoid", numpynet="Logistic"),
    Item(Loggy, Loggy, FEATURES, numpynet="Loggy"),
    Item(LogSigmoid, LogSigmoid, FEATURES, pytorch="LogSigmoid", keras="log_sigmoid"),
    Item(Tanh, Tanh, FEATURES, pytorch="Tanh", keras="tanh", numpynet="Tanh"),
    Item(ScaledTanh, ScaledTanh, FEATURES),
    Item(Softsign, Softsign, FEATURES, spaced, pytorch="Softsign", keras="softsign", numpynet="SoftSign"),
    Item(Elliot, Elliot, FEATURES, spaced, numpynet="Elliot"),
    Item(SymmElliot, SymmElliot, FEATURES, spaced, numpynet="SymmElliot"),
    Item(Arctan, Arctan, FEATURES, pytorch="torch.arctan", keras="ops.arctan"),
    Item(ReLU, ReLU, FEATURES, pytorch="ReLU", keras="ReLU", numpynet="Relu"),
    Item(LeakyReLU, LeakyReLU, FEATURES, spaced, pytorch="LeakyReLU", keras="LeakyReLU", numpynet="Leaky"),
    Item(PReLU, PReLU, FEATURES, spaced, pytorch="PReLU", keras="PReLU", curve=True),
    Item(RReLU, RReLU, FEATURES, spaced, pytorch="RReLU"),
    Item(CReLU, CReLU, FEATURES, spaced),
    Item(ThresholdedReLU, ThresholdedReLU, FEATURES, spaced, pytorch="Threshold", keras="threshold"),
    Item(Softshrink, Softshrink, FEATURES, spaced, pytorch="Softshrink", keras="soft_shrink"),
    Item(Hardshrink, Hardshrink, FEATURES, spaced, pytorch="Hardshrink", keras="hard_shrink"),
    Item(Step, Step, FEATURES, spaced),
    Item(Relie, Relie, FEATURES, spaced, numpynet="Relie"),
    Item(Ramp, Ramp, FEATURES, spaced, numpynet="Ramp"),
    Item(ReLU6, ReLU6, FEATURES, spaced, pytorch="ReLU6", keras="relu6"),
    Item(ClippedReLU, lambda: ClippedReLU(2.5), FEATURES, spaced, keras="ReLU (max_value)"),
    Item(Abs, Abs, FEATURES, spaced, pytorch="torch.abs", keras="ops.abs"),
    Item(SmoothAbs, SmoothAbs, FEATURES, spaced),
    Item(Hardtanh, Hardtanh, FEATURES, spaced, pytorch="Hardtanh", keras="hard_tanh", numpynet="Hardtan"),
    Item(Lhtan, Lhtan, FEATURES, spaced, numpynet="Lhtan"),
    Item(Plse, Plse, FEATURES, spaced, numpynet="Plse"),
    Item(Stair, Stair, FEATURES, spaced, numpynet="Stair"),
    Item(HardSigmoid, HardSigmoid, FEATURES, spaced, pytorch="Hardsigmoid", keras="hard_sigmoid"),
    Item(HardSwish, HardSwish, FEATURES, spaced, pytorch="Hardswish", keras="hard_swish"),
    Item(ELU, ELU, FEATURES, spaced, pytorch="ELU", keras="ELU", numpynet="Elu"),
    Item(SELU, SELU, FEATURES, spaced, pytorch="SELU", keras="selu", numpynet="Selu"),
    Item(CELU, CELU, FEATURES, spaced, pytorch="CELU", keras="celu"),
    Item(Softplus, Softplus, FEATURES, pytorch="Softplus", keras="softplus", numpynet="SoftPlus"),
    Item(SiLU, SiLU, FEATURES, spaced, pytorch="SiLU", keras="silu"),
    Item(Swish, Swish, FEATURES, spaced, keras="swish"),
    Item(GELU, GELU, FEATURES, spaced, pytorch="GELU", keras="gelu"),
    Item(Mish, Mish, FEATURES, spaced, pytorch="Mish", keras="mish"),
    Item(Tanhshrink, Tanhshrink, FEATURES, pytorch="Tanhshrink", keras="tanh_shrink"),
    Item(Gaussian, Gaussian, FEATURES),
    Item(GLU, GLU, EVEN, pytorch="GLU", keras="glu"),
    Item(Maxout, Maxout, EVEN, far_apart),
    Item(Gain, Gain, FEATURES),
    Item(Softmax, Softmax, FEATURES, pytorch="Softmax", keras="Softmax", numpynet="Softmax_layer"),
    Item(LogSoftmax, LogSoftmax, FEATURES, pytorch="LogSoftmax", keras="log_softmax"),
]

# An activation that has no name elsewhere needs no line above.
OTHERS = [cls for cls in vars(layers).values() if isinstance(cls, type) and issubclass(cls, Activation)
          and cls not in [item.what for item in NAMED]]
ITEMS: list[Item] = NAMED + [Item(cls, cls, FEATURES, spaced) for cls in OTHERS]
