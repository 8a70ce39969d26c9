"""Shrinkage: what a penalty on |x|^p makes of a number."""

from __future__ import annotations

from typing import Any

from xpnet.layer import Array

NEWTON_STEPS = 6  # they reach the root to the last digits, even next to the jump and for a p near 1


class Shrinkage:
    """The exact minimum over x of beta / 2 (x - v)^2 + |x|^p, for one element at a time and 0 < p
    <= 1.

    p = 1 is soft thresholding: sign(v) max(|v| - 1 / beta, 0). For p < 1, x is 0 up to |v| = jump,
    and beyond it the larger root of x - |v| + (p / beta) x^(p-1) = 0, which is convex in x:
    Newton's steps from x = |v| come down to it. At the jump 0 and the root cost the same, which
    gives x = least = (2 (1 - p) / beta)^(1 / (2 - p)), and from that |v|.
    """

    def __init__(self, xp: Any, p: float, beta: float) -> None:
        self.xp, self.p, self.beta = xp, p, beta
        self.least = (2 * (1 - p) / beta) ** (1 / (2 - p))
        self.jump = 1 / beta if p == 1 else self.least + p / beta * self.least ** (p - 1)

    def __call__(self, v: Array) -> Array:
        xp, size = self.xp, self.xp.abs(v)
        if self.p == 1:
            return xp.sign(v) * xp.maximum(size - self.jump, 0)
        target = xp.maximum(size, self.jump)        # below the jump it does not matter
        x = target
        for _ in range(NEWTON_STEPS):
            force = self._force(x)
            x = x - (x - target + force * x) / (1 - (1 - self.p) * force)
        return (size >= self.jump) * xp.sign(v) * x

    def slope(self, x: Array) -> Array:
        """dx/dv at the result x: 0 where x is 0, else from the equation that x solves."""
        if self.p == 1:
            return (x != 0).astype(x.dtype)
        return (x != 0) / (
            1 - (1 - self.p) * self._force(self.xp.maximum(self.xp.abs(x), self.least)))

    def _force(self, x: Array) -> Array:
        return self.p / self.beta * x ** (self.p - 2)
