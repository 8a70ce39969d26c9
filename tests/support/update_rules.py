"""The update rules of the papers, element by element in Python.

Each function returns the weights after steps with these gradients. `decayed` says which weights
decay.
"""

from __future__ import annotations

import math


def sgd(w: list[float], gradients: list[list[float]], decayed: list[bool], lr: float,
        momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> list[float]:
    """Sutskever et al. 2013, with the learning rate applied to the velocity last."""
    v = [0.0] * len(w)
    for gradient in gradients:
        for i, g in enumerate(gradient):
            g += weight_decay * w[i] if decayed[i] else 0.0
            v[i] = momentum * v[i] + g
            w[i] -= lr * (g + momentum * v[i] if nesterov else v[i])
    return w


def adam(w: list[float], gradients: list[list[float]], decayed: list[bool], lr: float = 1e-3,
         betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
         decoupled: bool = False) -> list[float]:
    """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2, if decoupled."""
    m, v = [0.0] * len(w), [0.0] * len(w)
    for t, gradient in enumerate(gradients, start=1):
        for i, g in enumerate(gradient):
            shrink = weight_decay * w[i] if decayed[i] else 0.0
            if not decoupled:
                g += shrink
            m[i] = betas[0] * m[i] + (1 - betas[0]) * g
            v[i] = betas[1] * v[i] + (1 - betas[1]) * g * g
            m_hat, v_hat = m[i] / (1 - betas[0] ** t), v[i] / (1 - betas[1] ** t)
            w[i] -= lr * (m_hat / (math.sqrt(v_hat) + eps) + (shrink if decoupled else 0.0))
    return w


def adagrad(w: list[float], gradients: list[list[float]], decayed: list[bool], lr: float = 0.01,
            lr_decay: float = 0.0, weight_decay: float = 0.0,
            initial_accumulator_value: float = 0.0, eps: float = 1e-10) -> list[float]:
    """Duchi et al. 2011, figure 1, with a diagonal matrix."""
    s = [initial_accumulator_value] * len(w)
    for t, gradient in enumerate(gradients):
        for i, g in enumerate(gradient):
            g += weight_decay * w[i] if decayed[i] else 0.0
            s[i] += g**2
            w[i] -= lr / (1 + t * lr_decay) * g / (eps + math.sqrt(s[i]))
    return w


def adadelta(w: list[float], gradients: list[list[float]], decayed: list[bool], lr: float = 1.0,
             rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0) -> list[float]:
    """Zeiler 2012, algorithm 1: RMS[x] is the root of the running mean of x^2, plus eps in it."""
    squares, changes = [0.0] * len(w), [0.0] * len(w)
    for gradient in gradients:
        for i, g in enumerate(gradient):
            g += weight_decay * w[i] if decayed[i] else 0.0
            squares[i] = rho * squares[i] + (1 - rho) * g**2
            change = -math.sqrt(changes[i] + eps) / math.sqrt(squares[i] + eps) * g
            changes[i] = rho * changes[i] + (1 - rho) * change**2
            w[i] += lr * change
    return w


def rmsprop(w: list[float], gradients: list[list[float]], decayed: list[bool], lr: float = 0.01,
            alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
            momentum: float = 0.0, centered: bool = False) -> list[float]:
    """Tieleman and Hinton 2012, and Graves 2013, eq. 38 to 41, with eps outside of the root."""
    squares, means, moves = ([0.0] * len(w) for _ in range(3))
    for gradient in gradients:
        for i, g in enumerate(gradient):
            g += weight_decay * w[i] if decayed[i] else 0.0
            squares[i] = alpha * squares[i] + (1 - alpha) * g**2
            means[i] = alpha * means[i] + (1 - alpha) * g if centered else 0.0
            moves[i] = momentum * moves[i] - lr * g / (math.sqrt(squares[i] - means[i] ** 2) + eps)
            w[i] += moves[i]
    return w


def adamax(w: list[float], gradients: list[list[float]], decayed: list[bool], lr: float = 2e-3,
           betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0
           ) -> list[float]:
    """Kingma and Ba 2015, algorithm 2, eps being added to the size of the gradient."""
    m, u = [0.0] * len(w), [0.0] * len(w)
    for t, gradient in enumerate(gradients, start=1):
        for i, g in enumerate(gradient):
            g += weight_decay * w[i] if decayed[i] else 0.0
            m[i] = betas[0] * m[i] + (1 - betas[0]) * g
            u[i] = max(betas[1] * u[i], abs(g) + eps)
            w[i] -= lr / (1 - betas[0] ** t) * m[i] / u[i]
    return w


def amsgrad(w: list[float], gradients: list[list[float]], decayed: list[bool], lr: float = 1e-3,
            betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0
            ) -> list[float]:
    """Reddi et al. 2018, algorithm 2, with Adam's corrections of the bias."""
    m, v, top = ([0.0] * len(w) for _ in range(3))
    for t, gradient in enumerate(gradients, start=1):
        for i, g in enumerate(gradient):
            g += weight_decay * w[i] if decayed[i] else 0.0
            m[i] = betas[0] * m[i] + (1 - betas[0]) * g
            v[i] = betas[1] * v[i] + (1 - betas[1]) * g * g
            top[i] = max(top[i], v[i])
            w[i] -= (lr
                     * m[i] / (1 - betas[0] ** t) / (math.sqrt(top[i] / (1 - betas[1] ** t)) + eps))
    return w


def nadam(w: list[float], gradients: list[list[float]], decayed: list[bool], lr: float = 2e-3,
          betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
          momentum_decay: float = 4e-3) -> list[float]:
    """Dozat 2016, algorithm 2, with beta1 in the running mean of the gradient."""
    m, v = [0.0] * len(w), [0.0] * len(w)
    momenta = [betas[0] * (1 - 0.96 ** (t * momentum_decay) / 2) for t in range(len(gradients) + 2)]
    for t, gradient in enumerate(gradients, start=1):
        now, then = math.prod(momenta[1:t + 1]), math.prod(momenta[1:t + 2])
        for i, g in enumerate(gradient):
            g += weight_decay * w[i] if decayed[i] else 0.0
            m[i] = betas[0] * m[i] + (1 - betas[0]) * g
            v[i] = betas[1] * v[i] + (1 - betas[1]) * g * g
            m_hat = momenta[t + 1] * m[i] / (1 - then) + (1 - momenta[t]) * g / (1 - now)
            w[i] -= lr * m_hat / (math.sqrt(v[i] / (1 - betas[1] ** t)) + eps)
    return w


def rprop(w: list[float], gradients: list[list[float]], decayed: list[bool], lr: float = 0.01,
          etas: tuple[float, float] = (0.5, 1.2), step_sizes: tuple[float, float] = (1e-6, 50.0),
          weight_decay: float = 0.0) -> list[float]:
    """Riedmiller and Braun 1993, without taking steps back."""
    steps, before = [lr] * len(w), [0.0] * len(w)
    for gradient in gradients:
        for i, g in enumerate(gradient):
            g += weight_decay * w[i] if decayed[i] else 0.0
            if g * before[i] > 0:
                steps[i] = min(steps[i] * etas[1], step_sizes[1])
            elif g * before[i] < 0:
                steps[i] = max(steps[i] * etas[0], step_sizes[0])
                g = 0.0
            w[i] -= math.copysign(steps[i], g) if g else 0.0
            before[i] = g
    return w


def lion(w: list[float], gradients: list[list[float]], decayed: list[bool], lr: float = 1e-4,
         betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0) -> list[float]:
    """Chen et al. 2023, algorithm 2."""
    m = [0.0] * len(w)
    for gradient in gradients:
        for i, g in enumerate(gradient):
            c = betas[0] * m[i] + (1 - betas[0]) * g
            w[i] -= lr * (math.copysign(1.0, c) + (weight_decay * w[i] if decayed[i] else 0.0))
            m[i] = betas[1] * m[i] + (1 - betas[1]) * g
    return w
