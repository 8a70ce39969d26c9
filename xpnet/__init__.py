"""xpnet: convolutional networks on plain arrays, on NumPy and on CuPy.

    import xpnet as xn
    net = xn.Sequential([xn.Conv2d(8, 3), xn.ReLU(), xn.Flatten(), xn.Linear(10)], input_shape=(1, 28, 28))
    net.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(1e-3))
"""

from xpnet import functional
from xpnet.backends import Backend, BackendError, Window, available, get_backend
from xpnet.io import load
from xpnet.layer import PREDICT, SAMPLE, TRAIN, Layer
from xpnet.layers import (
                          RBF,
                          Activation,
                          Add,
                          AvgPool2d,
                          BatchNorm2d,
                          Concat,
                          Conv2d,
                          Dropout,
                          Flatten,
                          GlobalAvgPool2d,
                          Linear,
                          MaxPool2d,
                          ReLU,
                          Rescale,
                          ScaledTanh,
                          Sigmoid,
                          Softmax,
                          Subsampling2d,
                          TableConv2d,
                          Tanh,
)
from xpnet.losses import CrossEntropy, HalfSquaredError, Loss, MeanSquaredError
from xpnet.memory import OutOfMemory
from xpnet.network import Input, Network, Sequential
from xpnet.optim import SGD, Adam, AdamW, Optimizer
from xpnet.schedules import Constant, OneCycle, Schedule
from xpnet.step import TrainStep
from xpnet.training import History

__version__ = "0.1.0"

__all__ = [
    "PREDICT", "RBF", "SAMPLE", "SGD", "TRAIN", "Activation", "Adam", "AdamW", "Add", "AvgPool2d", "Backend",
    "BackendError", "BatchNorm2d", "Concat", "Constant", "Conv2d", "CrossEntropy", "Dropout", "Flatten",
    "GlobalAvgPool2d", "HalfSquaredError", "History", "Input", "Layer", "Linear", "Loss", "MaxPool2d", "MeanSquaredError",
    "Network", "OneCycle", "Optimizer", "OutOfMemory", "ReLU", "Rescale", "ScaledTanh", "Schedule", "Sequential",
    "Sigmoid", "Softmax", "Subsampling2d", "TableConv2d", "Tanh", "TrainStep", "Window", "available", "functional",
    "get_backend", "load",
]
