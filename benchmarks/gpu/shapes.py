"""The matrix products and convolutions that are timed."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.convolutions import Convolution


@dataclass(frozen=True)
class Product:
    """W (M, K) times x (K, P), and the two products of its backward pass: W^T dy (K, P), and dy x^T
    (M, K)."""

    M: int
    K: int
    P: int

    @property
    def name(self) -> str:
        """M x K x P, e.g. "256x64x200704"."""
        return f"{self.M}x{self.K}x{self.P}"

    def operations(self, batch: int = 1) -> int:
        return 2 * self.M * self.K * self.P

    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shapes of W, x and dy."""
        return (self.M, self.K), (self.K, self.P), (self.M, self.P)


# (what, batch), the largest networks first, because measuring ends when the time is over. The batch
# of a product is part of P.
SHAPES: tuple[tuple[Product | Convolution, int], ...] = (
    # resnet50
    (Convolution(64, 64, 3, 56, "half"), 64), (Convolution(128, 128, 3, 28, "half"), 64),
    (Convolution(256, 256, 3, 14, "half"), 64), (Convolution(512, 512, 3, 7, "half"), 64),
    (Convolution(128, 128, 3, 56, "half", stride=2), 64),
    (Convolution(3, 64, 7, 224, 3, stride=2), 64),
    (Convolution(64, 256, 1, 56), 64), (Convolution(1024, 256, 1, 14), 64),
    (Convolution(256, 512, 1, 56, stride=2), 64),
    (Product(4096, 4096, 4096), 1), (Product(256, 64, 200704), 1), (Product(512, 2048, 3136), 1),
    (Product(1000, 2048, 64), 1),
    # resnet18
    (Convolution(64, 64, 3, 32, "half"), 512), (Convolution(128, 128, 3, 16, "half"), 512),
    (Convolution(256, 256, 3, 8, "half"), 512), (Convolution(512, 512, 3, 4, "half"), 512),
    (Convolution(64, 128, 3, 32, "half", stride=2), 512),
    # numpy_cnn, bilici, lenet5
    (Convolution(8, 8, 5, 24), 128), (Convolution(8, 32, 5, 14, "half"), 128),
    (Convolution(6, 16, 5, 14), 128), (Convolution(16, 120, 5, 5), 128),
    (Convolution(1, 8, 5, 28), 128),
    (Product(600, 1568, 128), 1), (Product(128, 800, 32), 1),
    # VGG-16
    (Convolution(128, 128, 3, 112, "half"), 64), (Convolution(512, 512, 3, 28, "half"), 64),
)
