"""The catalogue: activations."""

from __future__ import annotations

from functools import partial

import numpy as np

from xpnet import layers as L
from xpnet.catalogue.item import Item

FEATURES = ((5,),)
EVEN = ((6,),)


def spaced(rng: np.random.Generator, N: int) -> tuple[np.ndarray]:
    """Numbers on both sides of 0 and of every other kink, none of which is near one."""
    return (np.linspace(-6.37, 6.61, 5 * N).reshape(5, N),)


def far_apart(rng: np.random.Generator, N: int) -> tuple[np.ndarray]:
    """No two numbers of a sample are nearly equal."""
    return (rng.permuted(np.linspace(-3, 3, 6 * N)).reshape(6, N),)


NAMED: list[Item] = [
    Item(partial(L.Activation, "tanh"), FEATURES, keras="Activation", common=True),
    Item(L.Identity, FEATURES, pytorch="Identity", keras="linear", numpynet="Linear", common=True),
    Item(L.Sigmoid, FEATURES, pytorch="Sigmoid", keras="sigmoid", numpynet="Logistic"),
    Item(L.Loggy, FEATURES, numpynet="Loggy"),
    Item(L.LogSigmoid, FEATURES, pytorch="LogSigmoid", keras="log_sigmoid"),
    Item(L.Tanh, FEATURES, pytorch="Tanh", keras="tanh", numpynet="Tanh"),
    Item(L.ScaledTanh, FEATURES),
    Item(L.Softsign, FEATURES, spaced, pytorch="Softsign", keras="softsign", numpynet="SoftSign"),
    Item(L.Elliot, FEATURES, spaced, numpynet="Elliot"),
    Item(L.SymmElliot, FEATURES, spaced, numpynet="SymmElliot"),
    Item(L.Arctan, FEATURES, pytorch="torch.arctan", keras="ops.arctan"),
    Item(L.ReLU, FEATURES, pytorch="ReLU", keras="ReLU", numpynet="Relu"),
    Item(L.LeakyReLU, FEATURES, spaced, pytorch="LeakyReLU", keras="LeakyReLU", numpynet="Leaky"),
    Item(L.PReLU, FEATURES, spaced, pytorch="PReLU", keras="PReLU", curve=True),
    Item(L.RReLU, FEATURES, spaced, pytorch="RReLU"),
    Item(L.CReLU, FEATURES, spaced),
    Item(L.ThresholdedReLU, FEATURES, spaced, pytorch="Threshold", keras="threshold"),
    Item(L.Softshrink, FEATURES, spaced, pytorch="Softshrink", keras="soft_shrink"),
    Item(L.Hardshrink, FEATURES, spaced, pytorch="Hardshrink", keras="hard_shrink"),
    Item(L.Step, FEATURES, spaced),
    Item(L.Relie, FEATURES, spaced, numpynet="Relie"),
    Item(L.Ramp, FEATURES, spaced, numpynet="Ramp"),
    Item(L.ReLU6, FEATURES, spaced, pytorch="ReLU6", keras="relu6"),
    Item(partial(L.ClippedReLU, 2.5), FEATURES, spaced, keras="ReLU (max_value)"),
    Item(L.Abs, FEATURES, spaced, pytorch="torch.abs", keras="ops.abs"),
    Item(L.SmoothAbs, FEATURES, spaced),
    Item(L.Hardtanh, FEATURES, spaced, pytorch="Hardtanh", keras="hard_tanh", numpynet="Hardtan"),
    Item(L.Lhtan, FEATURES, spaced, numpynet="Lhtan"),
    Item(L.Plse, FEATURES, spaced, numpynet="Plse"),
    Item(L.Stair, FEATURES, spaced, numpynet="Stair"),
    Item(L.HardSigmoid, FEATURES, spaced, pytorch="Hardsigmoid", keras="hard_sigmoid"),
    Item(L.HardSwish, FEATURES, spaced, pytorch="Hardswish", keras="hard_swish"),
    Item(L.ELU, FEATURES, spaced, pytorch="ELU", keras="ELU", numpynet="Elu"),
    Item(L.SELU, FEATURES, spaced, pytorch="SELU", keras="selu", numpynet="Selu"),
    Item(L.CELU, FEATURES, spaced, pytorch="CELU", keras="celu"),
    Item(L.Softplus, FEATURES, pytorch="Softplus", keras="softplus", numpynet="SoftPlus"),
    Item(L.SiLU, FEATURES, spaced, pytorch="SiLU", keras="silu"),
    Item(L.Swish, FEATURES, spaced, keras="swish"),
    Item(L.GELU, FEATURES, spaced, pytorch="GELU", keras="gelu"),
    Item(L.Mish, FEATURES, spaced, pytorch="Mish", keras="mish"),
    Item(L.Tanhshrink, FEATURES, pytorch="Tanhshrink", keras="tanh_shrink"),
    Item(L.Gaussian, FEATURES),
    Item(L.GLU, EVEN, pytorch="GLU", keras="glu"),
    Item(L.Maxout, EVEN, far_apart),
    Item(L.Gain, FEATURES),
    Item(partial(L.Shift, (4, 1)), ((4, 5),)),
    Item(L.Softmax, FEATURES, pytorch="Softmax", keras="Softmax", numpynet="Softmax_layer"),
    Item(L.LogSoftmax, FEATURES, pytorch="LogSoftmax", keras="log_softmax"),
]

# An activation that has no name elsewhere needs no line above.
OTHERS = [cls for cls in vars(L).values()
          if isinstance(cls, type) and issubclass(cls, L.Activation)
          and cls not in [item.what for item in NAMED]]
ITEMS: list[Item] = NAMED + [Item(cls, FEATURES, spaced) for cls in OTHERS]
