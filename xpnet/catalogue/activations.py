"""The catalogue: activations."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.layers import Activation, ReLU, ScaledTanh, Sigmoid, Softmax, Tanh

FEATURES = ((5,),)

ITEMS: list[Item] = [
    Item(Activation, lambda: Activation("tanh"), FEATURES, keras="Activation", common=True),
    Item(ReLU, ReLU, FEATURES, pytorch="ReLU", keras="ReLU", numpynet="Relu"),
    Item(Sigmoid, Sigmoid, FEATURES, pytorch="Sigmoid", keras="sigmoid", numpynet="Logistic"),
    Item(Tanh, Tanh, FEATURES, pytorch="Tanh", keras="tanh", numpynet="Tanh"),
    Item(ScaledTanh, ScaledTanh, FEATURES),
    Item(Softmax, Softmax, FEATURES, pytorch="Softmax", keras="Softmax", numpynet="Softmax_layer"),
]
