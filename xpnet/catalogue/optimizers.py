"""The catalogue: optimizers and schedules."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AMSGrad,
    Lion,
    NAdam,
    RMSprop,
    Rprop,
)
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

ITEMS: list[Item] = [
    Item(SGD, pytorch="SGD", keras="SGD", numpynet="SGD, Momentum, NesterovMomentum"),
    Item(Rprop, pytorch="Rprop"),
    Item(Adagrad, pytorch="Adagrad", keras="Adagrad", numpynet="Adagrad"),
    Item(Adadelta, pytorch="Adadelta", keras="Adadelta", numpynet="Adadelta"),
    Item(RMSprop, pytorch="RMSprop", keras="RMSprop", numpynet="RMSprop"),
    Item(Adam, pytorch="Adam", keras="Adam", numpynet="Adam"),
    Item(AdamW, pytorch="AdamW", keras="AdamW"),
    Item(AMSGrad, pytorch="Adam(amsgrad=True)", keras="Adam(amsgrad=True)"),
    Item(NAdam, pytorch="NAdam", keras="Nadam"),
    Item(Adamax, pytorch="Adamax", keras="Adamax", numpynet="Adamax"),
    Item(Lion, keras="Lion"),
    Item(Constant, common=True),
    Item(StepDecay, pytorch="StepLR", keras="schedules.PiecewiseConstantDecay"),
    Item(MultiStep, pytorch="MultiStepLR", keras="schedules.PiecewiseConstantDecay"),
    Item(ExponentialDecay, pytorch="ExponentialLR", keras="schedules.ExponentialDecay"),
    Item(InverseTimeDecay, keras="schedules.InverseTimeDecay"),
    Item(PolynomialDecay, pytorch="PolynomialLR", keras="schedules.PolynomialDecay"),
    Item(CosineDecay, pytorch="CosineAnnealingLR, CosineAnnealingWarmRestarts", keras="schedules.CosineDecayRestarts"),
    Item(OneCycle, pytorch="OneCycleLR"),
    Item(WarmUp, pytorch="LinearLR"),
    Item(ReduceOnPlateau, pytorch="ReduceLROnPlateau", keras="callbacks.ReduceLROnPlateau"),
]
