"""The catalogue: normalisation."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.folding import fold_batch_norm
from xpnet.layers import (
    BatchNorm1d,
    BatchNorm2d,
    ContrastNorm2d,
    DivisiveNorm2d,
    GroupNorm,
    InstanceNorm2d,
    L1Norm,
    L2Norm,
    LayerNorm,
    LocalResponseNorm,
    LpNormalize,
    Rescale,
    RMSNorm,
    SubtractiveNorm2d,
    Whitening,
)
from xpnet.population import population_statistics

MAPS = ((4, 7, 6),)

ITEMS: list[Item] = [
    Item(BatchNorm2d, lambda: BatchNorm2d(activation="relu"), MAPS,
         pytorch="BatchNorm2d", keras="BatchNormalization", numpynet="BatchNorm_layer"),
    Item(BatchNorm1d, BatchNorm1d, ((5,),), pytorch="BatchNorm1d", keras="BatchNormalization",
         numpynet="BatchNorm_layer"),
    Item(population_statistics, pytorch="swa_utils.update_bn"),
    Item(fold_batch_norm, pytorch="fuse_conv_bn_eval"),
    Item(LayerNorm, LayerNorm, MAPS, pytorch="LayerNorm", keras="LayerNormalization"),
    Item(RMSNorm, RMSNorm, MAPS, pytorch="RMSNorm", keras="RMSNormalization"),
    Item(GroupNorm, lambda: GroupNorm(2), MAPS, pytorch="GroupNorm", keras="GroupNormalization"),
    Item(InstanceNorm2d, lambda: InstanceNorm2d(affine=True), MAPS, pytorch="InstanceNorm2d",
         keras="GroupNormalization"),
    Item(LocalResponseNorm, lambda: LocalResponseNorm(3, alpha=0.5, k=2), MAPS,
         pytorch="LocalResponseNorm"),
    Item(SubtractiveNorm2d, lambda: SubtractiveNorm2d(5), MAPS),
    Item(DivisiveNorm2d, lambda: DivisiveNorm2d(5), MAPS),
    Item(ContrastNorm2d, lambda: ContrastNorm2d(5), MAPS),
    Item(Whitening, lambda: Whitening("pca", components=5), MAPS),
    Item(LpNormalize, lambda: LpNormalize(3, axis=-1), MAPS, pytorch="functional.normalize"),
    Item(L1Norm, lambda: L1Norm(axis=None), MAPS, pytorch="functional.normalize",
         numpynet="L1Norm_layer"),
    Item(L2Norm, L2Norm, MAPS, pytorch="functional.normalize", keras="UnitNormalization",
         numpynet="L2Norm_layer"),
    Item(Rescale, lambda: Rescale(0.5, 0.25), MAPS, keras="Rescaling", common=True),
]
