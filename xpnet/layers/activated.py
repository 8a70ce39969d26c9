"""What the layers share that end with an activation."""

from __future__ import annotations

from xpnet.backends import activations
from xpnet.layer import Array, Layer


class Activated(Layer):
    """Base class of the layers with `activation=`: Y = f(Z) for the Z that the layer computes.

    The kernels that make Z take f along where they can (`fused`); any other f is a pass of its own, `activated`.
    """

    def __init__(self, activation: str | None, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.activation = activations.check(activation, self.who)

    @property
    def fused(self) -> str | None:
        """The activation that the kernel which makes Z applies."""
        return self.activation if self.activation in activations.FUSED else None

    def activated(self, z: Array, done: str | None = None) -> tuple[Array, Array]:
        """(Y, what activation_backward reads), given what the kernel made: Y already where it has `done` f, else Z."""
        if self.activation == done:
            return z, z
        y = self.backend.activate(z, self.activation)
        return y, z if activations.of_input(self.activation) else y
