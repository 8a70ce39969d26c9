"""Training: a step, the loop over batches and epochs, callbacks, and the record of it."""

from xpnet.history import History
from xpnet.training.averaging import ExponentialMovingAverage
from xpnet.training.callbacks import Callback, Run
from xpnet.training.checkpoint import Checkpoint
from xpnet.training.chunks import ChunkPredictor
from xpnet.training.finite import StopOnNaN
from xpnet.training.logs import CSVLog, JSONLog
from xpnet.training.loop import fit
from xpnet.training.measuring import GradientNorms, Timing
from xpnet.training.prediction import evaluate, predict
from xpnet.training.recording import RunningStatistics
from xpnet.training.step import TrainStep
from xpnet.training.stopping import EarlyStopping
from xpnet.training.tensorboard import TensorBoard

__all__ = [
    "CSVLog", "Callback", "Checkpoint", "ChunkPredictor", "EarlyStopping",
    "ExponentialMovingAverage", "GradientNorms", "History", "JSONLog", "Run", "RunningStatistics",
    "StopOnNaN", "TensorBoard", "Timing", "TrainStep", "evaluate", "fit", "predict",
]
