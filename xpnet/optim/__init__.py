"""Optimizers on flat buffers. The update rules themselves are backend kernels: see backends/optimizer_rules.py."""

from xpnet.optim.adaptive import Adadelta, Adagrad, Adam, Adamax, AdamW, RMSprop
from xpnet.optim.base import Optimizer
from xpnet.optim.momentum import SGD, Lion
from xpnet.optim.regularized import Regularized

__all__ = ["Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "Optimizer", "RMSprop", "Regularized", "SGD"]
