"""The catalogue: normalisation."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.layers import BatchNorm2d, ContrastNorm2d, DivisiveNorm2d, LocalResponseNorm, Rescale, SubtractiveNorm2d

MAPS = ((4, 7, 6),)

ITEMS: list[Item] = [
    Item(BatchNorm2d, lambda: BatchNorm2d(activation="tanh"), MAPS,
         pytorch="BatchNorm2d", keras="BatchNormalization", numpynet="BatchNorm_layer"),
    Item(LocalResponseNorm, lambda: LocalResponseNorm(3, alpha=0.5, k=2), MAPS, pytorch="LocalResponseNorm"),
    Item(SubtractiveNorm2d, lambda: SubtractiveNorm2d(5), MAPS),
    Item(DivisiveNorm2d, lambda: DivisiveNorm2d(5), MAPS),
    Item(ContrastNorm2d, lambda: ContrastNorm2d(5), MAPS),
    Item(Rescale, lambda: Rescale(0.5, 0.25), MAPS, keras="Rescaling", common=True),
]
