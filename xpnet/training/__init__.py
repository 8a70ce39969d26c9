"""Training: a step, the loop over batches and epochs, callbacks, and the record of it."""

from xpnet.training.callbacks import Callback, Run
from xpnet.training.history import History
from xpnet.training.loop import fit
from xpnet.training.prediction import evaluate, predict
from xpnet.training.step import TrainStep

__all__ = ["Callback", "History", "Run", "TrainStep", "evaluate", "fit", "predict"]
