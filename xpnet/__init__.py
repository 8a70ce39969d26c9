"""xpnet: convolutional networks on plain arrays, on NumPy and on CuPy.

    import xpnet as xn
    net = xn.Sequential([xn.Conv2d(8, 3), xn.ReLU(), xn.Flatten(), xn.Linear(10)],
                        input_shape=(1, 28, 28))
    net.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(1e-3))
"""

from typing import TYPE_CHECKING, Any

from xpnet import augment, functional, layers, losses, metrics, optim, schedules
from xpnet.augment import *
from xpnet.backends import Backend, BackendError, Window, available, get_backend
from xpnet.backends.cpu.threads import get_num_threads, set_num_threads
from xpnet.ensemble import Ensemble
from xpnet.graph import Input
from xpnet.inspect.memory import OutOfMemory
from xpnet.layer import PREDICT, SAMPLE, TRAIN, Layer
from xpnet.layers import *
from xpnet.layers.shape import split
from xpnet.losses import *
from xpnet.network import Network, Sequential, load
from xpnet.optim import *
from xpnet.schedules import *
from xpnet.training import (
    Callback,
    Checkpoint,
    ChunkPredictor,
    CSVLog,
    EarlyStopping,
    ExponentialMovingAverage,
    GradientNorms,
    History,
    JSONLog,
    Run,
    RunningStatistics,
    StopOnNaN,
    TensorBoard,
    Timing,
    TrainStep,
)

if TYPE_CHECKING:
    from xpnet import data as data
    from xpnet import explain as explain
    from xpnet import explore as explore
    from xpnet import models as models
    from xpnet import testing as testing
    from xpnet import vision as vision
    from xpnet import viz as viz

__version__ = "0.1.0"

__all__ = [
    "PREDICT", "SAMPLE", "TRAIN", "Backend", "BackendError", "CSVLog", "Callback", "Checkpoint",
    "ChunkPredictor", "EarlyStopping", "Ensemble", "ExponentialMovingAverage", "GradientNorms",
    "History", "Input", "JSONLog", "Layer", "Network", "OutOfMemory", "Run", "RunningStatistics",
    "Sequential",
    "StopOnNaN", "TensorBoard", "Timing", "TrainStep", "Window", "available", "functional",
    "get_backend", "get_num_threads", "load", "metrics", "set_num_threads", "split",
]
__all__ += augment.__all__ + layers.__all__ + losses.__all__ + optim.__all__ + schedules.__all__
# imported when they are used: xn.data
LAZY = "data", "explain", "explore", "models", "testing", "vision", "viz"


def __getattr__(name: str) -> Any:
    """Import a module of LAZY; for other names raise AttributeError with the name of xpnet that is
    meant: Dense of Keras is Linear."""
    from importlib import import_module
    from importlib.util import find_spec
    if name in LAZY:
        return import_module(f"xpnet.{name}")
    if name.startswith("_"):
        raise AttributeError(f"xpnet has no {name}")
    if find_spec(f"xpnet.{name}"):      # Python itself looks these up, too
        raise AttributeError(f"xpnet has no {name} before it is imported: import xpnet.{name}")
    from xpnet.catalogue import explain
    raise AttributeError(explain(name, __all__))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *LAZY})
