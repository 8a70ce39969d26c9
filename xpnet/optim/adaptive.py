"""Optimizers that scale the step of each weight by its previous gradients.

weight_decay * w is added to g (for weights, not biases), except in AdamW.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from xpnet.checks import is_number, wrong
from xpnet.optim.base import Optimizer


class Adagrad(Optimizer):
    """Adagrad: s += g^2, w -= lr g / (sqrt(s) + eps) (Duchi et al. 2011, figure 1, the diagonal
    update).

    The paper calls eps delta. (Keras computes sqrt(s + eps), and s starts at 0.1.)

    Args:
        lr_decay: the learning rate of step t is lr / (1 + (t - 1) lr_decay).
        initial_accumulator_value: the initial value of s.
    """

    rule = "adagrad"

    def __init__(self, lr: float = 0.01, lr_decay: float = 0.0, weight_decay: float = 0.0,
                 initial_accumulator_value: float = 0.0, eps: float = 1e-10) -> None:
        self.lr, self.lr_decay, self.weight_decay, self.eps = lr, lr_decay, weight_decay, eps
        self.initial_accumulator_value = initial_accumulator_value
        self._check(lr=0.0, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0)
        self._check_eps()
        self.first = self.initial_accumulator_value

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        return lr / (1 + (step - 1) * self.lr_decay), self.eps, self.weight_decay


class Adadelta(Optimizer):
    """Adadelta: w -= lr d, d = sqrt(u + eps) / sqrt(v + eps) g, with running means v of g^2 and u
    of d^2.

    v already includes this g; u does not yet include this d. Zeiler 2012, algorithm 1, which has no
    lr and uses rho = 0.95.

    Args:
        rho: the decay factor of both running means.
    """

    rule = "adadelta"

    def __init__(self, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6,
                 weight_decay: float = 0.0) -> None:
        self.lr, self.rho, self.eps, self.weight_decay = lr, rho, eps, weight_decay
        self._check(lr=0.0, weight_decay=0.0)
        self._check(rho=0.0, below=1)
        self._check_eps()

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        return lr, self.rho, self.eps, self.weight_decay


class RMSprop(Optimizer):
    """RMSprop: v = alpha v + (1 - alpha) g^2, w -= lr g / (sqrt(v) + eps) (Tieleman and Hinton
    2012, lecture 6.5).

    The lecture uses alpha = 0.9 and no eps.

    Args:
        momentum: if above 0, velocity = momentum velocity + g / (sqrt(v) + eps) and w -= lr
            velocity.
        centered: whether to divide by the standard deviation: max(v - mean^2, 0) replaces v under
            the root, with a running mean of g. Graves 2013, eq. 38 to 41, and Keras add eps = 1e-4
            under the root; if the variance can be 0, choose an eps of that size.
    """

    rule = "rmsprop"

    def __init__(self, lr: float = 0.01, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False) -> None:
        self.lr, self.alpha, self.eps, self.weight_decay = lr, alpha, eps, weight_decay
        self.momentum, self.centered = momentum, centered
        self._check(lr=0.0, weight_decay=0.0, momentum=0.0)
        self._check(alpha=0.0, below=1)
        self._check_eps()
        self._check_flag("centered")
        self.unused = () if self.centered else ("mean",)
        self.unused += () if self.momentum else ("velocity",)

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        return lr, self.alpha, self.eps, self.weight_decay, self.momentum


class Adam(Optimizer):
    """Adam: w -= lr m_hat / (sqrt(v_hat) + eps), running means m of g and v of g^2 without their
    bias towards 0.

    m_hat = m / (1 - beta1^t) and v_hat = v / (1 - beta2^t) in step t. Kingma and Ba 2015, algorithm
    1.

    Args:
        betas: (beta1, beta2), the decay factors of m and v.
    """

    rule = "adam"

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0) -> None:
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self._check(lr=0.0, weight_decay=0.0)
        self._check_eps()
        self.betas = self._check_betas(betas)

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        b1, b2 = self.betas
        return lr, b1, b2, self.eps, self.weight_decay, 1 - b1**step, 1 - b2**step


class AdamW(Adam):
    """Adam with decoupled weight decay: w -= lr weight_decay w, in addition to Adam's step
    (Loshchilov and Hutter 2019, algorithm 2)."""

    rule = "adamw"

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.01) -> None:
        super().__init__(lr, betas, eps, weight_decay)


class AMSGrad(Adam):
    """AMSGrad: Adam's step with the largest v so far instead of v: w -= lr m_hat / (sqrt(max v / (1
    - beta2^t)) + eps).

    So the learning rate of a weight never increases; without this, Adam can fail to converge. Reddi
    et al. 2018, algorithm 2. The paper does not correct the bias of the means; this class does, as
    PyTorch's Adam with amsgrad=True.
    """

    rule = "amsgrad"


class NAdam(Adam):
    """Adam with Nesterov momentum: w -= lr ((1 - mu_t) g / (1 - p_t) + mu_(t+1) m / (1 - p_(t+1)))
    / (sqrt(v_hat) + eps).

    mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2) is the momentum of step t, and p_t is the product
    of mu_1 to mu_t. m and v are Adam's means: m uses beta1, as in PyTorch, and not mu_t as in Dozat
    2016, algorithm 2.
    """

    rule = "nadam"

    def __init__(self, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0, momentum_decay: float = 4e-3
                 ) -> None:
        super().__init__(lr, betas, eps, weight_decay)
        self.momentum_decay = momentum_decay
        self._check(momentum_decay=0.0)
        # p_0, p_1, ... up to the last one that was needed, or up to the first that is 0
        self._products = array("d", [1.0])

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        products = self._products
        while len(products) <= step and products[-1]:
            products.append(products[-1] * self._momentum(len(products)))
        product = products[step] if step < len(products) else 0.0
        now, ahead = self._momentum(step), self._momentum(step + 1)
        return (lr * (1 - now) / (1 - product), lr * ahead / (1 - product * ahead), *self.betas,
                self.eps, self.weight_decay, 1 - self.betas[1] ** step)

    def _momentum(self, step: int) -> float:
        return float(self.betas[0] * (1 - 0.5 * 0.96 ** (step * self.momentum_decay)))


class Adamax(Adam):
    """Adamax: w -= lr / (1 - beta1^t) m / u, a running mean m of g, u = max(beta2 u, |g| + eps) the
    largest recent g.

    Kingma and Ba 2015, algorithm 2, which has no eps: a weight whose gradient was always 0 would
    give 0 / 0. (Keras adds eps to u instead.)
    """

    rule = "adamax"

    def __init__(self, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0) -> None:
        super().__init__(lr, betas, eps, weight_decay)

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        return super().hyper(step, lr)[:-1]


class Rprop(Optimizer):
    """Rprop: w -= sign(g) s, with a step size s for each weight that grows while g keeps its sign
    and shrinks if it changes.

    After a change of sign the weight is not changed for one step. Riedmiller and Braun 1993 also
    undo the step that led to the change; this is the variant of Igel and Huesken 2003 that does
    not. It needs the gradients of the whole training set: those of small batches change their signs
    at random.

    Args:
        lr: the initial value of s. A learning rate schedule has no other effect.
        etas: the factors by which s shrinks and grows.
        step_sizes: the bounds of s.
    """

    rule = "rprop"

    def __init__(self, lr: float = 0.01, etas: tuple[float, float] = (0.5, 1.2),
                 step_sizes: tuple[float, float] = (1e-6, 50.0), weight_decay: float = 0.0) -> None:
        self.lr, self.weight_decay = lr, weight_decay
        self._check(lr=0.0, weight_decay=0.0)
        self.etas = self._pair("etas", "0 < etas[0] < 1 < etas[1]", etas,
                               lambda less, more: 0 < less < 1 < more)
        self.step_sizes = self._pair("step_sizes", "0 < step_sizes[0] <= step_sizes[1]", step_sizes,
                                     lambda a, b: 0 < a <= b)

    def _pair(self, name: str, expected: str, value: tuple[float, float],
              right: Callable[[float, float], bool]) -> tuple[float, float]:
        numbers = (isinstance(value, tuple | list) and len(value) == 2
                   and all(is_number(v) for v in value))
        if not numbers or not right(*value):
            raise wrong(self.who, expected, name, value)
        return float(value[0]), float(value[1])

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        return lr, *self.etas, *self.step_sizes, self.weight_decay
