"""An optimizer of each class, for several tests."""

from __future__ import annotations

import xpnet as xn

# Settings in which the step count, the weight decay and every slot matter.
OPTIMIZERS = {
    "SGD": lambda: xn.SGD(0.1, momentum=0.9, weight_decay=0.1),
    "Adam": lambda: xn.Adam(0.1, weight_decay=0.1),
    "AdamW": lambda: xn.AdamW(0.1, weight_decay=0.1),
    "AMSGrad": lambda: xn.AMSGrad(0.1, weight_decay=0.1),
    "NAdam": lambda: xn.NAdam(0.1, weight_decay=0.1),
    "Adamax": lambda: xn.Adamax(0.1, weight_decay=0.1),
    "Adagrad": lambda: xn.Adagrad(0.1, lr_decay=0.5, weight_decay=0.1),
    "Adadelta": lambda: xn.Adadelta(weight_decay=0.1),
    "RMSprop": lambda: xn.RMSprop(0.1, momentum=0.9, centered=True, weight_decay=0.1, eps=0.1),
    "Rprop": lambda: xn.Rprop(0.1, weight_decay=0.1),
    "Lion": lambda: xn.Lion(0.1, weight_decay=0.1),
    "Regularized": lambda: xn.Regularized(xn.Adam(0.1, weight_decay=0.1), l1=0.1, clip_value=0.5),
}
