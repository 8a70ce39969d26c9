"""Optimizers that follow the gradient or its running mean, with one learning rate for all
weights."""

from __future__ import annotations

from xpnet.optim.base import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent: v = momentum v + g, w -= lr v; with nesterov, w -= lr (g +
    momentum v).

    weight_decay * w is added to g (for weights, not biases). Sutskever et al. 2013, but lr is not
    part of v. Raises ValueError if nesterov is True and momentum is 0.
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.0, nesterov: bool = False,
                 weight_decay: float = 0.0) -> None:
        self.lr, self.momentum = lr, momentum
        self.nesterov, self.weight_decay = nesterov, weight_decay
        self._check(lr=0.0, momentum=0.0, weight_decay=0.0)
        self._check_flag("nesterov")
        if self.nesterov and not momentum:
            raise ValueError("SGD: expected a momentum above 0 with nesterov. Received: "
                             "momentum=0.")
        self.unused = () if self.momentum else ("v",)

    @property
    def rule(self) -> str:      # type: ignore[override]
        return "nesterov" if self.nesterov else "sgd"

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        return lr, self.momentum, self.weight_decay


class Lion(Optimizer):
    """Lion: w -= lr (sign(beta1 m + (1 - beta1) g) + weight_decay w), and then m = beta2 m + (1 -
    beta2) g.

    The sign changes every weight by lr, so lr should be three to ten times smaller than Adam's, and
    weight_decay larger by the same factor. Chen et al. 2023, algorithm 2.
    """

    rule = "lion"

    def __init__(self, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
                 weight_decay: float = 0.0) -> None:
        self.lr, self.weight_decay = lr, weight_decay
        self._check(lr=0.0, weight_decay=0.0)
        self.betas = self._check_betas(betas)

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        return lr, *self.betas, self.weight_decay
