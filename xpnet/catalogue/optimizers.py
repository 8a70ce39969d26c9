"""The catalogue: optimizers and schedules."""

from __future__ import annotations

from typing import Any

from xpnet.catalogue.item import Item
from xpnet.optim import OPTIMIZERS
from xpnet.schedules import (
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseTimeDecay,
    MultiStep,
    OneCycle,
    PolynomialDecay,
    ReduceOnPlateau,
    StepDecay,
    WarmUp,
)

# names of the optimizers in other libraries
ELSEWHERE: dict[str, dict[str, Any]] = {
    "sgd": {"pytorch": "SGD", "keras": "SGD", "numpynet": "SGD, Momentum, NesterovMomentum"},
    "lion": {"keras": "Lion"},
    "adagrad": {"pytorch": "Adagrad", "keras": "Adagrad", "numpynet": "Adagrad"},
    "adadelta": {"pytorch": "Adadelta", "keras": "Adadelta", "numpynet": "Adadelta"},
    "rmsprop": {"pytorch": "RMSprop", "keras": "RMSprop", "numpynet": "RMSprop"},
    "adam": {"pytorch": "Adam", "keras": "Adam", "numpynet": "Adam"},
    "adamw": {"pytorch": "AdamW", "keras": "AdamW"},
    "amsgrad": {"pytorch": "Adam(amsgrad=True)", "keras": "Adam(amsgrad=True)"},
    "nadam": {"pytorch": "NAdam", "keras": "Nadam"},
    "adamax": {"pytorch": "Adamax", "keras": "Adamax", "numpynet": "Adamax"},
    "rprop": {"pytorch": "Rprop"},
}

ITEMS: list[Item] = [
    *(Item(cls, **ELSEWHERE.get(name, {})) for name, cls in OPTIMIZERS.items()),
    Item(Constant, common=True),
    Item(StepDecay, pytorch="StepLR", keras="schedules.PiecewiseConstantDecay"),
    Item(MultiStep, pytorch="MultiStepLR", keras="schedules.PiecewiseConstantDecay"),
    Item(ExponentialDecay, pytorch="ExponentialLR", keras="schedules.ExponentialDecay"),
    Item(InverseTimeDecay, keras="schedules.InverseTimeDecay"),
    Item(PolynomialDecay, pytorch="PolynomialLR", keras="schedules.PolynomialDecay"),
    Item(CosineDecay, pytorch="CosineAnnealingLR, CosineAnnealingWarmRestarts",
         keras="schedules.CosineDecayRestarts"),
    Item(OneCycle, pytorch="OneCycleLR"),
    Item(WarmUp, pytorch="LinearLR"),
    Item(ReduceOnPlateau, pytorch="ReduceLROnPlateau", keras="callbacks.ReduceLROnPlateau"),
]
