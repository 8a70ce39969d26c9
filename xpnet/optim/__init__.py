"""Optimizers on flat buffers. The update rules themselves are backend kernels: see backends/optimizer_rules.py."""

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

__all__ = ["AMSGrad", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "NAdam", "Optimizer", "RMSprop", "Regularized",
           "Rprop", "SGD"]
