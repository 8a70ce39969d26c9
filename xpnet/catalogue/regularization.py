"""The catalogue: regularisation."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.layers import AlphaDropout, DropConnect, Dropout, Dropout2d, GaussianDropout
from xpnet.optim import Regularized
from xpnet.sampling import predict_samples

MAPS = ((4, 7, 6),)

ITEMS: list[Item] = [
    Item(Dropout, lambda: Dropout(0.3), MAPS, pytorch="Dropout", keras="Dropout",
         numpynet="Dropout_layer"),
    Item(Dropout2d, lambda: Dropout2d(0.4), MAPS, pytorch="Dropout2d", keras="SpatialDropout2D"),
    Item(AlphaDropout, lambda: AlphaDropout(0.3), MAPS, pytorch="AlphaDropout",
         keras="AlphaDropout"),
    Item(GaussianDropout, lambda: GaussianDropout(0.3), MAPS, keras="GaussianDropout"),
    Item(Regularized, pytorch="clip_grad_norm_, clip_grad_value_, renorm",
         keras="L1, MaxNorm, clipnorm, clipvalue"),
    Item(predict_samples),
    Item(DropConnect, lambda: DropConnect(5, 0.4, activation="tanh"), ((7,),)),
]
