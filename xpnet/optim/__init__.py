"""Optimizers on flat buffers. Their formulas are in xpnet/backends/rules.py."""

from xpnet.optim.adaptive import (
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AMSGrad,
    NAdam,
    RMSprop,
    Rprop,
)
from xpnet.optim.base import Optimizer
from xpnet.optim.momentum import SGD, Lion
from xpnet.optim.names import OPTIMIZERS as OPTIMIZERS
from xpnet.optim.names import get_optimizer as get_optimizer
from xpnet.optim.regularized import Regularized

__all__ = ["AMSGrad", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "NAdam",
           "Optimizer", "RMSprop", "Regularized", "Rprop", "SGD"]
