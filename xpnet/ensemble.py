"""Ensembles: several networks that predict together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from xpnet.backends import get_backend
from xpnet.checks import expect_function, expect_integer, expect_seed, real_array, shown
from xpnet.initializers import generator
from xpnet.network import Network
from xpnet.optim import Optimizer
from xpnet.schedules import Schedule
from xpnet.training.datasets import is_dataset
from xpnet.training.goals import Goal, known_goals
from xpnet.training.prediction import values_of
from xpnet.training.totals import OutputTotals


class Ensemble:
    """Networks that predict together: y = 1/n sum over i of y_i, and for classes
    p = 1/n sum over i of softmax(z_i).

    The mean of the probabilities never has a larger cross entropy than the networks have on
    average, because -log is convex.

    Args:
        nets: networks whose inputs and whose single output have the same shapes.

    Raises:
        ValueError: there is no network, or the shapes or the names of classes differ.
        TypeError: one of them is no Network.

    Source: Hansen and Salamon 1990; Breiman 1996 (bagging).
    """

    def __init__(self, nets: Iterable[Network]) -> None:
        if isinstance(nets, str | bytes | np.ndarray | Mapping) or not isinstance(nets, Iterable):
            raise TypeError(f"Ensemble: expected a list of networks. Received: {shown(nets)}.")
        self.nets = list(nets)
        for net in self.nets:
            if not isinstance(net, Network):
                raise TypeError(f"Ensemble: expected networks. Received: {shown(net)}.")
            if len(net.outs) != 1:
                raise ValueError("Ensemble: expected networks with one output. Received: "
                                 f"{net!r} with {len(net.outs)}.")
            if net.outs.nodes[0].lengths is not None:
                raise ValueError("Ensemble: expected networks whose output has no lengths. "
                                 f"Received: {net!r}, whose outputs differ in their steps.")
        shapes = {tuple(node.shape for node in (*net.in_nodes, *net.outs.nodes))
                  for net in self.nets}
        if len(shapes) != 1:
            received = " and ".join(map(str, sorted(shapes, key=str)[:4])) or "none"
            raise ValueError("Ensemble: expected networks of equal input and output shapes. "
                             f"Received: {received}.")
        names = {net.classes: None for net in self.nets if net.classes is not None}
        if len(names) > 1:
            raise ValueError("Ensemble: expected networks with the same names of classes, in the "
                             f"same order. Received: {' and '.join(map(shown, [*names][:2]))}.")

    @classmethod
    def bagged(cls, build: Callable[[int], Network], n: int, x: Any, y: Any, *, loss: Any,
               optimizer: str | Optimizer, epochs: int = 1, batch_size: int = 32,
               schedule: str | Schedule = "constant", seed: int = 0, verbose: bool = False
               ) -> Ensemble:
        """Train n networks, each on a bootstrap sample: N samples that are drawn from the N with
        replacement.

        Network i is build(seed + i), and its samples follow from this seed, too.

        Args:
            build: a function of a seed that returns a new network.
            n: the number of networks.
            x: samples (N, ...), batch-first.
            y: targets (N, ...).
            loss, optimizer, epochs, batch_size, schedule, verbose: see Network.fit.
            seed: of the first network.

        Source: Breiman 1996, section 1.
        """
        who = "bagged"
        build = expect_function(who, "build", build, "a seed")
        n, seed = expect_integer(who, "n", n, 1, 2**20), expect_seed(who, seed)
        expect_seed(who, seed + n - 1)
        x, y = (real_array(a, f"{who}: {name}") for a, name in ((x, "x"), (y, "y")))
        if not x.ndim or not y.ndim or not len(x) or len(x) != len(y):
            raise ValueError(f"{who}: expected as many targets as samples. Received: x of shape "
                             f"{x.shape}, y of shape {y.shape}.")
        nets = []
        for number in range(seed, seed + n):
            net = build(number)
            if not isinstance(net, Network):
                raise TypeError(f"{who}: expected build to return a Network. Received: "
                                f"{shown(net)}.")
            drawn = generator(number, "bootstrap").integers(len(x), size=len(x))
            net.fit(x[drawn], y[drawn], loss=loss, optimizer=optimizer, epochs=epochs,
                    batch_size=batch_size, schedule=schedule, verbose=verbose)
            nets.append(net)
        return cls(nets)

    def predict(self, x: Any, *, batch_size: int = 256) -> np.ndarray:
        """The mean of the networks' outputs (N, ...)."""
        return self._mean(x, batch_size).astype(self.nets[0].dtype)

    def predict_proba(self, x: Any, *, loss: Any = None, batch_size: int = 256) -> np.ndarray:
        """The mean of the networks' probabilities (N, ...), float64.

        Args:
            x: batch-first samples.
            loss: says whether outputs are logits; the loss of each network's last fit by default.
            batch_size: samples of a forward pass.

        Raises:
            ValueError: as Network.predict_proba.
        """
        ps = [net.predict_proba(x, loss=loss, batch_size=batch_size) for net in self.nets]
        return np.asarray(np.mean(ps, axis=0, dtype=np.float64))

    def evaluate(self, x: Any, y: Any = None, *, loss: Any = None, batch_size: int = 256,
                 metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None
                 ) -> dict[str, Any]:
        """{"loss": ..., "accuracy": ...}, the accuracy for classes.

        If the loss includes softmax or sigmoid, it is that of the mean of the probabilities, and
        metrics are given these; otherwise both use the mean of the outputs.

        Args:
            x, y, batch_size: see Network.evaluate.
            loss: that of each network's last fit by default.
            metrics: names, and functions of (N, ...) predictions and targets.
        """
        who = "evaluate"
        goals = self._goals(loss, who)
        found = goals[0].loss
        z = (self._logits(goals, x, batch_size, who) if found.takes_logits
             else self._mean(x, batch_size))
        if y is None and is_dataset(x):
            y = x.targets
        target = found.targets(y, z.shape[1:], z.dtype)
        if len(target) != len(z):
            raise ValueError(f"{who}: expected as many targets as samples. Received: {len(z)} "
                             f"samples, {len(target)} targets.")
        if metrics is not None and not (isinstance(metrics, Mapping)
                                        and all(map(callable, metrics.values()))):
            raise TypeError(f"{who}: expected metrics to be a dict of names and functions. "
                            f"Received: {shown(metrics)}.")
        last, targets = (np.ascontiguousarray(np.moveaxis(a, 0, -1)) for a in (z, target))
        backend = get_backend("numpy")
        totals = OutputTotals(backend, found)
        totals.add(found.checked(backend, last, targets)[0], last, targets)
        figures: dict[str, Any] = dict(totals.result())
        if metrics:
            shares = (self.predict_proba(x, loss=loss, batch_size=batch_size)
                      if found.takes_logits else z)
            figures |= {name: metric(shares, target) for name, metric in metrics.items()}
        return figures

    def _mean(self, x: Any, batch_size: int) -> np.ndarray:
        """The mean of the outputs in float64."""
        ys = [net.predict(x, batch_size=batch_size) for net in self.nets]
        return np.asarray(np.mean(ys, axis=0, dtype=np.float64))

    def _goals(self, loss: Any, who: str) -> list[Goal]:
        goals = [known_goals(net, loss, None, who)[0] for net in self.nets]
        if len({repr(goal.loss) for goal in goals}) > 1:
            raise ValueError(f"{who}: expected networks that were trained with the same loss. "
                             f"Received: {goals[0].loss.who} and others.")
        return goals

    def _logits(self, goals: list[Goal], x: Any, batch_size: int, who: str) -> np.ndarray:
        """Logits (N, ...) whose softmax or sigmoid is the mean of the networks' probabilities, in
        float64. Sums of logarithms keep probabilities that would underflow."""
        zs = np.stack([values_of(net, x, [goal.node], batch_size, who)[0].astype(np.float64)
                       for net, goal in zip(self.nets, goals, strict=True)])        # (n, N, ...)
        if goals[0].loss.takes_logits == "softmax":
            log_p = zs - np.logaddexp.reduce(zs, axis=2, keepdims=True)
            return np.logaddexp.reduce(log_p, axis=0) - np.log(len(zs))
        log_p, log_q = -np.logaddexp(0, -zs), -np.logaddexp(0, zs)      # of sigmoid(z), 1 - p
        return np.logaddexp.reduce(log_p, axis=0) - np.logaddexp.reduce(log_q, axis=0)

    def __len__(self) -> int:
        return len(self.nets)

    def __repr__(self) -> str:
        return f"<Ensemble of {len(self.nets)} networks>"
