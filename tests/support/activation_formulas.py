"""The activations in mpmath, from the formulas in the docstrings, and their kinks."""

from __future__ import annotations

from mpmath import mp, mpf


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def pieces(x, *parts):
    """The value of the first part (condition, value) whose condition is true."""
    return next(value for condition, value in parts if condition)


def stair(x):
    n = mp.floor(x)
    return mp.floor(x / 2) if n % 2 == 0 else x - n + mp.floor(x / 2)


def gelu(x):
    """mpmath's erfc fails for large arguments, where it is 0 or 2 to hundreds of digits."""
    return x * (mp.erfc(-x / mp.sqrt(2)) / 2 if abs(x) < 1000 else mpf(x > 0))


def mish(x):
    return x * mp.tanh(mp.log1p(mp.exp(x)))


FORMULAS = {
    "relu": lambda x: max(x, 0),
    "sigmoid": sigmoid,
    "logistic": sigmoid,
    "tanh": mp.tanh,
    "scaled_tanh": lambda x: mpf(1.7159) * mp.tanh(2 * x / 3),
    "linear": lambda x: x,
    "loggy": lambda x: 2 / (1 + mp.exp(-x)) - 1,
    "elu": lambda x, alpha: x if x > 0 else alpha * mp.expm1(x),
    "selu": lambda x: mpf(1.0507009873554805) * (x if x > 0
                                                 else mpf(1.6732632423543772) * mp.expm1(x)),
    "celu": lambda x, alpha: max(x, 0) + min(0, alpha * mp.expm1(x / alpha)),
    "relie": lambda x: x if x > 0 else x / 100,
    "ramp": lambda x: x + x / 10 if x > 0 else x / 10,
    "leaky_relu": lambda x, slope: x if x > 0 else slope * x,
    "abs": abs,
    "plse": lambda x: pieces(x, (x < -4, (x + 4) / 100), (x > 4, (x - 4) / 100 + 1),
                             (True, x / 8 + mpf(0.5))),
    "stair": stair,
    "hardtanh": lambda x, low, high: min(max(x, low), high),
    "lhtan": lambda x: pieces(x, (x < 0, x / 1000), (x > 1, (x - 1) / 1000 + 1), (True, x)),
    "relu6": lambda x, limit: min(max(x, 0), limit),
    "hard_sigmoid": lambda x, alpha, beta: min(max(alpha * x + beta, 0), 1),
    "hard_swish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "softplus": lambda x, k: mp.log1p(mp.exp(k * x)) / k,
    "log_sigmoid": lambda x: mp.log(sigmoid(x)),
    "smooth_abs": lambda x, k: 2 / k * mp.log1p(mp.exp(k * x)) - x - 2 / k * mp.log(2),
    "softsign": lambda x: x / (1 + abs(x)),
    "symmelliot": lambda x, S: S * x / (1 + abs(S * x)),
    "elliot": lambda x, S: S * x / (1 + abs(S * x)) / 2 + mpf(0.5),
    "arctan": mp.atan,
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x, beta: x * sigmoid(beta * x),
    "gelu": gelu,
    "gelu_tanh": lambda x: x * sigmoid(2 * mp.sqrt(2 / mp.pi) * (x + mpf("0.044715") * x**3)),
    "mish": mish,
    "softshrink": lambda x, t: mp.sign(x) * max(abs(x) - t, 0),
    "hardshrink": lambda x, t: x if abs(x) > t else 0,
    "thresholded_relu": lambda x, t: x if x > t else 0,
    "tanhshrink": lambda x: x - mp.tanh(x),
    "step": lambda x: mpf(1 if x > 0 else 0),
    "gaussian": lambda x: mp.exp(-x * x),
}

# Constants other than the defaults, for each activation that has any.
OTHERS = {"elu": (2.0,), "celu": (0.5,), "leaky_relu": (0.1,), "hard_sigmoid": (0.2, 0.4),
          "softplus": (5.0,), "smooth_abs": (3.0,),
          "symmelliot": (2.0,), "elliot": (0.5,), "swish": (1.7,), "softshrink": (0.8,),
          "hardshrink": (0.8,),
          "thresholded_relu": (0.3,), "hardtanh": (-0.5, 2.0), "relu6": (2.5,)}

# Where the derivative jumps, and its value there in PyTorch, or in darknet if PyTorch does not have
# the activation.
KINKS = {"relu": {0: 0}, "relie": {0: 0.01}, "ramp": {0: 0.1}, "leaky_relu": {0: 0.01},
         "abs": {0: 0}, "plse": {-4: 0.125, 4: 0.125}, "stair": {-2: 0, -1: 0, 0: 0, 1: 0, 2: 0},
         "hardtanh": {-1: 0, 1: 0}, "lhtan": {0: 0.001, 1: 0.001}, "relu6": {0: 0, 6: 0},
         "hard_sigmoid": {-3: 0, 3: 0}, "hard_swish": {-3: 0, 3: 1},
         "selu": {0: 1.0507009873554805 * 1.6732632423543772}, "elu": {0: 1}, "celu": {0: 1},
         "softsign": {0: 1}, "symmelliot": {0: 1}, "elliot": {0: 0.5},
         "softshrink": {-0.5: 0, 0.5: 0}, "hardshrink": {-0.5: 0, 0.5: 0},
         "thresholded_relu": {1: 0}, "step": {0: 0}}

# f and f' at infinity and at -infinity.
LIMITS = {"relu": ((mp.inf, 1), (0, 0)), "sigmoid": ((1, 0), (0, 0)), "logistic": ((1, 0), (0, 0)),
          "tanh": ((1, 0), (-1, 0)), "scaled_tanh": ((1.7159, 0), (-1.7159, 0)),
          "linear": ((mp.inf, 1), (-mp.inf, 1)), "loggy": ((1, 0), (-1, 0)),
          "elu": ((mp.inf, 1), (-1, 0)),
          "selu": ((mp.inf, 1.0507009873554805), (-1.7580993408473766, 0)),
          "celu": ((mp.inf, 1), (-1, 0)), "relie": ((mp.inf, 1), (-mp.inf, 0.01)),
          "ramp": ((mp.inf, 1.1), (-mp.inf, 0.1)), "leaky_relu": ((mp.inf, 1), (-mp.inf, 0.01)),
          "abs": ((mp.inf, 1), (mp.inf, -1)), "plse": ((mp.inf, 0.01), (-mp.inf, 0.01)),
          "stair": ((mp.inf, 0), (-mp.inf, 0)), "hardtanh": ((1, 0), (-1, 0)),
          "lhtan": ((mp.inf, 0.001), (-mp.inf, 0.001)), "relu6": ((6, 0), (0, 0)),
          "hard_sigmoid": ((1, 0), (0, 0)), "hard_swish": ((mp.inf, 1), (0, 0)),
          "softplus": ((mp.inf, 1), (0, 0)), "log_sigmoid": ((0, 0), (-mp.inf, 1)),
          "smooth_abs": ((mp.inf, 1), (mp.inf, -1)), "softsign": ((1, 0), (-1, 0)),
          "symmelliot": ((1, 0), (-1, 0)), "elliot": ((1, 0), (0, 0)),
          "arctan": ((1.5707963267948966, 0), (-1.5707963267948966, 0)),
          "silu": ((mp.inf, 1), (0, 0)), "swish": ((mp.inf, 1), (0, 0)),
          "gelu": ((mp.inf, 1), (0, 0)), "gelu_tanh": ((mp.inf, 1), (0, 0)),
          "mish": ((mp.inf, 1), (0, 0)), "softshrink": ((mp.inf, 1), (-mp.inf, 1)),
          "hardshrink": ((mp.inf, 1), (-mp.inf, 1)), "thresholded_relu": ((mp.inf, 1), (0, 0)),
          "tanhshrink": ((mp.inf, 1), (-mp.inf, 1)), "step": ((1, 0), (0, 0)),
          "gaussian": ((0, 0), (0, 0))}
