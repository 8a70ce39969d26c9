"""Networks as scikit-learn estimators, for pipelines, cross-validation and grid search.

    from xpnet.sklearn import Classifier
    search = GridSearchCV(Classifier(epochs=5), {"lr": [1e-3, 1e-2]}, n_jobs=2)

The names X, `fit`, `classes_`, ... are scikit-learn's. It is in the extra `data`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import expect_function
from xpnet.layer import Layer
from xpnet.layers import Conv2d, Flatten, Linear, MaxPool2d
from xpnet.losses import Loss
from xpnet.network import Network, Sequential
from xpnet.optim import Optimizer, get_optimizer
from xpnet.schedules import Schedule
from xpnet.training import Callback

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise ImportError("xpnet.sklearn: expected scikit-learn 1.6 or newer. Received: "
                      f'{error}. Remedy: pip install "xpnet[data]"') from error

__all__ = ["Classifier", "Regressor"]

Build = Callable[[tuple[int, ...], int], Network | Iterable[Layer | Network]]
Own = TypeVar("Own", bound="Estimator")


def layers_for(input_shape: tuple[int, ...], outputs: int) -> list[Layer]:
    """The layers of the default network: one hidden layer of 64 units, and for images (C, H, W) a
    convolution and a pooling before it."""
    layers: list[Layer] = []
    if len(input_shape) == 3:
        layers.append(Conv2d(16, 3, padding="half", activation="relu"))
        layers += [MaxPool2d(2)] if min(input_shape[1:]) > 1 else []
    if len(input_shape) > 1:
        layers.append(Flatten())
    return [*layers, Linear(64, activation="relu"), Linear(outputs)]


class Estimator(BaseEstimator):
    """What Classifier and Regressor have in common: the settings, and a network that is trained
    anew by each `fit`."""

    def __init__(self, build: Build | None = None, *, loss: str | Loss = "cross_entropy",
                 optimizer: str | Optimizer = "adam", lr: float | None = None,
                 schedule: str | Schedule = "constant", epochs: int = 50, batch_size: int = 32,
                 callbacks: Sequence[Callback] = (), backend: str | Backend = "auto",
                 dtype: str = "float32", seed: int = 0, verbose: bool = False) -> None:
        self.build, self.loss, self.optimizer, self.lr = build, loss, optimizer, lr
        self.schedule, self.epochs, self.batch_size = schedule, epochs, batch_size
        self.callbacks, self.backend, self.dtype = callbacks, backend, dtype
        self.seed, self.verbose = seed, verbose

    def _train(self, X: np.ndarray, y: np.ndarray, outputs: int, sample_weight: Any) -> None:
        who = type(self).__name__
        build = layers_for if self.build is None else expect_function(
            who, "build", self.build, "the input shape and the number of outputs")
        if sample_weight is not None and not np.asarray(sample_weight).any():
            raise ValueError(f"{who}: expected a sample_weight above 0. Received: zeros alone.")
        built = build(X.shape[1:], outputs)
        net = built if isinstance(built, Network) else Sequential(
            built, input_shape=X.shape[1:], backend=self.backend, dtype=self.dtype, seed=self.seed)
        optimizer = get_optimizer(self.optimizer, who)
        if self.lr is not None:
            optimizer = copy.copy(optimizer)        # a setting of the estimator does not change
            optimizer.lr = self.lr
        self.history_ = net.fit(
            X, y, loss=self.loss, optimizer=optimizer, schedule=self.schedule, epochs=self.epochs,
            batch_size=self.batch_size, sample_weight=sample_weight, callbacks=self.callbacks,
            verbose=self.verbose)
        self.network_ = net

    def _checked(self, X: Any) -> np.ndarray:
        """X for a prediction; NotFittedError before `fit`, ValueError for other features."""
        check_is_fitted(self, "network_")
        return validate_data(self, X, reset=False, allow_nd=True)


class Classifier(ClassifierMixin, Estimator):
    """A scikit-learn classifier: a network whose largest output is the predicted class.

    X (N, D) or (N, C, H, W), as it is: put a scaler before it in a pipeline. y (N,) labels of any
    kind. `fit(X, y, sample_weight=None)` trains a new network from the same seed.

    Args:
        build: a function of (input shape of one sample, number of classes) that returns a list of
            layers, or a Network, which keeps its own backend, dtype and seed. By default one hidden
            layer of 64 units, for images after a convolution of 16 filters and a pooling.
        loss: a loss of labels. `predict_proba` needs one that includes the softmax, or a network
            that ends with Softmax.
        optimizer: an Optimizer or its name.
        lr: the learning rate; that of `optimizer` by default.
        schedule, epochs, batch_size, callbacks, verbose: see Network.fit.
        backend, dtype, seed: see Network.

    Attributes:
        classes_: (K,) the labels, sorted.
        n_features_in_: X.shape[1], which is the number of channels of images.
        network_: the trained Network.
        history_: the History of the training.

    Raises:
        ValueError: in `fit` and later: X or y are refused by scikit-learn or by the network.
        sklearn.exceptions.NotFittedError: a prediction before `fit`.
    """

    def fit(self: Own, X: Any, y: Any, sample_weight: Any = None) -> Own:
        """Train a new network. Returns itself."""
        X, y = validate_data(self, X, y, allow_nd=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        self._train(X, labels, len(self.classes_), sample_weight)
        with suppress(ValueError):          # labels that are no names, such as texts of many lines
            self.network_.classes = list(map(str, self.classes_))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The label of the largest output (N,), the first of equal ones."""
        X = self._checked(X)
        return self.classes_[self.network_.predict(X).argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities (N, K) of the classes, in the order of `classes_`."""
        X = self._checked(X)
        p: np.ndarray = self.network_.predict_proba(X, loss=self.loss)
        return p


class Regressor(RegressorMixin, MultiOutputMixin, Estimator):
    """A scikit-learn regressor: a network whose outputs are the predicted numbers.

    X (N, D) or (N, C, H, W), y (N,) or (N, K), as they are: put a scaler before it in a pipeline,
    and TransformedTargetRegressor around it. `fit(X, y, sample_weight=None)` trains a new network
    from the same seed.

    Args:
        build: a function of (input shape of one sample, number of targets), see Classifier.
        loss: a loss of numbers.
        optimizer, lr, schedule, epochs, batch_size, callbacks, backend, dtype, seed, verbose: see
            Classifier.

    Attributes:
        n_features_in_, network_, history_: see Classifier.

    Raises:
        ValueError: in `fit` and later: X or y are refused by scikit-learn or by the network.
        sklearn.exceptions.NotFittedError: a prediction before `fit`.
    """

    def __init__(self, build: Build | None = None, *, loss: str | Loss = "mean_squared_error",
                 optimizer: str | Optimizer = "adam", lr: float | None = None,
                 schedule: str | Schedule = "constant", epochs: int = 50, batch_size: int = 32,
                 callbacks: Sequence[Callback] = (), backend: str | Backend = "auto",
                 dtype: str = "float32", seed: int = 0, verbose: bool = False) -> None:
        super().__init__(build, loss=loss, optimizer=optimizer, lr=lr, schedule=schedule,
                         epochs=epochs, batch_size=batch_size, callbacks=callbacks,
                         backend=backend, dtype=dtype, seed=seed, verbose=verbose)

    def fit(self: Own, X: Any, y: Any, sample_weight: Any = None) -> Own:
        """Train a new network. Returns itself."""
        X, y = validate_data(self, X, y, allow_nd=True, multi_output=True, y_numeric=True)
        self._single = y.ndim == 1
        y = y.reshape(len(y), -1)
        self._train(X, y, y.shape[1], sample_weight)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The predicted numbers, (N,) or (N, K) as y was."""
        X = self._checked(X)
        y = self.network_.predict(X).astype(np.float64)
        return y[:, 0] if self._single else y
