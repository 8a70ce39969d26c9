"""Sparse coding of images by convolution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from xpnet.backends import Backend, Window
from xpnet.backends.window import Pair
from xpnet.checks import finite_array, items, wrong
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.standalone import expect_arrays

__all__ = ["DeconvolutionalNetwork2d"]

SAMPLE = (0, 1, 2)      # the axes of one image, or of its feature maps
NEWTON_STEPS = 6        # enough for all digits of the root, even next to the jump and for p near 1


class CodingStep(NamedTuple):
    """One step of learning. The costs are means over the images; `augmented` contains z, x and
    beta."""

    epoch: int
    what: str                   # "z", "x" or "filters"
    beta: float | None          # None for filters
    augmented: float | None
    cost: float                 # C of the feature maps and filters after the step


class DeconvolutionalNetwork2d(Layer):
    """Deconvolutional network: C(y) = lam / 2 sum over c of || sum over k of g_kc z_k * f_kc - y_c
    ||^2 + sum of |z_k|^p (Zeiler et al. 2010).

    Images y (C, H, W, N), feature maps z (maps, H + KH - 1, W + KW - 1, N), filters f (maps, C, KH,
    KW). * is the convolution at the positions where the whole filter is on the feature maps, so
    that each element of z_k adds a copy of f_k to the image.

    With auxiliary maps x the cost becomes lam / 2 || sum of z * f - y ||^2 + beta / 2 || z - x ||^2
    + sum of |x|^p, which is lowered in turn for each of `betas`:
      z: (lam F^T F + beta) z = lam F^T y + beta x, by `iterations` conjugate gradients (Hestenes
      and Stiefel 1952);
      x: Shrinkage, exactly for each element; Krishnan and Fergus 2009 look it up in a table.
    forward(y) = infer(y) begins with x = 0 and returns x, most of which is exactly 0 if p <= 1. The
    input gradient is that of these steps: the shrinkage passes it where x is not 0, and the adjoint
    of a solution of the system is a solution of the same system. It is as exact as the conjugate
    gradients have converged.

    At one beta no step raises the augmented cost: the conjugate gradients begin with z = x, where
    it equals C. C itself can rise, so an image keeps its feature maps if new ones cost more; in the
    source the last ones count. The filters of each feature map have norm 1. A step of the filters
    that raises C is not made, and the next one is half as long.

    The filters are state, not parameters: an optimizer does not change them, and `learn` finds them
    without labels.

    Args:
        maps: number of feature maps.
        connectivity: g, `maps` rows of C zeros and ones, which say which feature map contributes to
            which channel; by default all of them.
        p: above 0. The smaller it is, the fewer elements are used; above 1 none is exactly 0.
        lam: weight of the reconstruction.
        betas: numbers that do not fall; larger ones pull z and x together.
        iterations: conjugate-gradient steps for each beta.

    Raises:
        ValueError: connectivity does not have `maps` rows of zeros and ones with a one in each, or
            its rows do not have the channels of the input; or betas fall.
    """

    kind = "deconv"
    window: Window
    sees_all = True                     # each iteration enlarges the receptive field

    def __init__(self, maps: int, kernel_size: Pair, *,
                 connectivity: Sequence[Sequence[int]] | None = None, p: float = 1.0,
                 lam: float = 1.0, betas: Sequence[float] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
                 iterations: int = 5, name: str | None = None) -> None:
        super().__init__(name=name)
        self.maps = self.expect_integer("maps", maps)
        self.kernel_size = kernel_size
        self.window = Window.make(kernel_size, padding="full", who=self.who)
        self.connectivity = None if connectivity is None else self._binary(connectivity)
        self.p, self.lam = self.expect_positive("p", p), self.expect_positive("lam", lam)
        numbers = items(betas)
        if not numbers:
            raise wrong(self.who, "betas to be a list of numbers", "betas", betas)
        self.betas = [self.expect_positive("each of betas", beta) for beta in numbers]
        if self.betas != sorted(self.betas):
            raise wrong(self.who, "betas that do not fall", "betas", betas)
        self.iterations = self.expect_integer("iterations", iterations)

    def _binary(self, connectivity: Sequence[Sequence[int]]) -> list[list[int]]:
        try:
            g = np.array(connectivity)
        except (TypeError, ValueError):             # rows of different lengths
            g = np.zeros(0)
        if (g.ndim != 2 or g.dtype.kind not in "buif" or len(g) != self.maps
                or not np.isin(g, (0, 1)).all() or not g.any(axis=1).all()):
            raise wrong(self.who, f"connectivity to have {self.maps} rows of zeros and ones, at "
                                  "least a one in each",
                        "connectivity", connectivity)
        return g.astype(int).tolist()

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        if self.connectivity is not None and len(self.connectivity[0]) != C:
            raise ValueError(f"{self.who}: expected {C} columns of connectivity, one for each "
                             f"channel. Received: {len(self.connectivity[0])}.")
        def init(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> np.ndarray:
            filters: np.ndarray = unit(np, self._g() * rng.standard_normal(shape))
            return filters

        self.filters = self.state("filters", (self.maps, C, *self.window.kernel), init)
        return self.maps, *self.window.output_size(H, W)

    def _g(self) -> np.ndarray:
        """The connectivity as factors, (maps, C, 1, 1)."""
        g = (np.ones((self.maps, self.in_shapes[0][0])) if self.connectivity is None
             else np.array(self.connectivity, np.float64))
        return g[:, :, None, None]

    def bind(self, backend: Backend, seed: int, counters: Array) -> None:
        super().bind(backend, seed, counters)
        self._connected = backend.asarray(self._g(), self.buffers.dtype)
        shrinkage = Shrinkage if self.p <= 1 else SmoothShrinkage
        self._shrinkages = [shrinkage(backend.xp, self.p, beta) for beta in self.betas]

    # --- the model --------------------------------------------------------------------------------

    def reconstruct(self, maps: Array) -> Array:
        """The images (C, H, W, N) for feature maps (maps, H + KH - 1, W + KW - 1, N)."""
        expect_arrays(self, (maps,), (self.out_shape,))
        return self._paint(maps, self.filters.data)

    def cost(self, images: Array, maps: Array) -> Array:
        """C of each image, (N,)."""
        expect_arrays(self, (images, maps), (*self.in_shapes, self.out_shape))
        return self._cost(images, maps)

    def _paint(self, z: Array, f: Array) -> Array:
        """F z = sum over k of z_k * f_k: the convolution is the adjoint of the sliding product."""
        return self.backend.conv2d_dx(z, f, (*self.in_shapes[0], z.shape[3]), self.window)

    def _project(self, y: Array) -> Array:
        """F^T y: the sliding product of each filter with the image."""
        return self.backend.conv2d(y, self.filters.data, self.window)

    def _misfit(self, y: Array, z: Array, f: Array) -> Array:
        residual = self._paint(z, f) - y
        return 0.5 * self.lam * dot(residual, residual)

    def _penalty(self, x: Array) -> Array:
        return (self.xp.abs(x) ** self.p).sum(axis=SAMPLE)

    def _cost(self, y: Array, z: Array) -> Array:
        return self._misfit(y, z, self.filters.data) + self._penalty(z)

    def _augmented(self, y: Array, z: Array, x: Array, beta: float) -> Array:
        misfit, gap = self._misfit(y, z, self.filters.data), z - x
        return misfit + 0.5 * beta * dot(gap, gap) + self._penalty(x)

    # --- feature maps for given filters -----------------------------------------------------------

    def infer(self, images: Array, maps: Array | None = None) -> Array:
        """Feature maps of batch-last images on the backend, starting from `maps`, by default from
        0."""
        x = self._nothing(images) if maps is None else maps
        expect_arrays(self, (images, x), (*self.in_shapes, self.out_shape))
        for step in self._alternate(images, x):
            x = step.x
        return x

    def _nothing(self, y: Array) -> Array:
        return self.backend.zeros((*self.out_shape, y.shape[3]), y.dtype)

    def _alternate(self, y: Array, x: Array) -> Iterator[_Alternation]:
        pull, cost = self.lam * self._project(y), self._cost(y, x)
        for shrink in self._shrinkages:
            z = self._solve(pull + shrink.beta * x, shrink.beta, x)
            new = shrink(z)
            new_cost = self._cost(y, new)
            worse = new_cost > cost                     # (N,); False for a NaN
            kept, kept_cost = self.xp.where(worse, x, new), self.xp.where(worse, cost, new_cost)
            yield _Alternation(shrink, x, cost, z, new, worse, kept, kept_cost)
            x, cost = kept, kept_cost

    def _solve(self, b: Array, beta: float, z: Array) -> Array:
        """(lam F^T F + beta)^-1 b for each image, by conjugate gradients from z."""
        def system(d: Array) -> Array:
            return self.lam * self._project(self._paint(d, self.filters.data)) + beta * d

        residual = b - system(z)
        direction, square = residual, dot(residual, residual)
        for _ in range(self.iterations):
            image = system(direction)
            step = ratio(square, dot(direction, image))  # (N,)
            z = z + step * direction
            residual = residual - step * image
            square, last = dot(residual, residual), square
            direction = residual + ratio(square, last) * direction
        return z

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if not self.keeps(mode) or not self.needs_dx:
            self.remember(mode)
            return self.infer(x)
        kept = []
        for step in self._alternate(x, self._nothing(x)):
            kept.append((step.shrink.beta, step.shrink.slope(step.new), step.worse))
        self.remember(mode, kept)
        return step.x

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        kept = self.recall()
        if not self.needs_dx:
            return None
        nothing = self.backend.zeros(dy.shape, dy.dtype)
        dx, dpull = dy, nothing
        for beta, slope, worse in reversed(kept[0]):
            db = self._solve(dx * slope * ~worse, beta, nothing)
            dx, dpull = dx * worse + beta * db, dpull + db
        return self.lam * self._paint(dpull, self.filters.data)

    def multiply_adds(self) -> int:
        convolutions = 2 + len(self.betas) * (2 * self.iterations + 3)
        return convolutions * math.prod(self.out_shape) * self.in_shapes[0][0] * self.window.taps

    # --- filters ----------------------------------------------------------------------------------

    def learn(self, images: Any, epochs: int = 10, *, filter_steps: int = 2) -> list[CodingStep]:
        """Find filters for batch-first images (S, C, H, W), and return the costs after each step.

        Each epoch computes the feature maps, starting from the last ones, and then moves the
        filters. All images are on the backend at once, with their feature maps.

        Args:
            filter_steps: steps of the filters in each epoch.

        Raises:
            ValueError: the layer is not in a network, or the images do not have the shape of its
                input.
        """
        if not self.built:
            raise ValueError(f"{self.who}: expected to be in a network before learn, so that its "
                             "input shape is known. Received: a layer that is in none.")
        images = finite_array(images, self.who, self.buffers.dtype)
        if images.shape[1:] != self.in_shapes[0] or not len(images):
            raise ValueError(f"{self.who}: expected images of shape (S, "
                             f"{', '.join(map(str, self.in_shapes[0]))}). "
                             f"Received: shape {images.shape}.")
        epochs = self.expect_integer("epochs", epochs)
        filter_steps = self.expect_integer("filter_steps", filter_steps)
        found: list[CodingStep] = []
        with self.backend.stream():
            y = self.backend.gather_batch(images, None, self.buffers.dtype)
            x, length = self._nothing(y), self.backend.asarray(np.ones(1), self.buffers.dtype)
            for epoch in range(1, epochs + 1):
                # costs stay on the backend until the epoch ends
                notes: list[tuple[str, float | None, Array | None, Array]] = []
                for step in self._alternate(y, x):
                    beta = step.shrink.beta
                    notes += [("z", beta, self._augmented(y, step.z, step.before, beta),
                               step.before_cost),
                              ("x", beta, self._augmented(y, step.z, step.new, beta), step.cost)]
                    x = step.x
                for _ in range(filter_steps):
                    length = self._move_filters(y, x, length)
                    notes.append(("filters", None, None, self._cost(y, x)))
                found += [CodingStep(epoch, what, beta, None if augmented is None
                                     else self._mean(augmented), self._mean(cost))
                          for what, beta, augmented, cost in notes]
        return found

    def _mean(self, costs: Array) -> float:
        return float(self.backend.to_numpy(costs.mean()))

    def filter_gradient(self, images: Array, maps: Array) -> Array:
        """dC / df for given feature maps, summed over the images: (maps, C, KH, KW), 0 where there
        is no connection."""
        residual = self._paint(maps, self.filters.data) - images
        return self.lam * self.backend.conv2d_dW(residual, maps, self.window) * self._connected

    def _move_filters(self, y: Array, x: Array, length: Array) -> Array:
        """Take a gradient step on the sphere of filters of norm 1, unless it raises C; return the
        next length.

        The gradient of each feature map is divided by the curvature of C in its direction, so that
        a rare filter moves as far as one that is used everywhere. Along a line C is a parabola.
        Normalising adds to its curvature if C would fall with a longer filter. The minimum of this
        sum is at the length 1.
        """
        f, axes = self.filters.data, (1, 2, 3)
        gradient = self.filter_gradient(y, x)
        outward = (gradient * f).sum(axis=axes, keepdims=True)  # (maps, 1, 1, 1)
        gradient, bend = gradient - outward * f, self.xp.maximum(-outward, 0)
        downhill = ratio(gradient, self.lam * (x * x).sum(axis=axes).reshape(-1, 1, 1, 1) + bend)
        painted = self._paint(x, downhill)
        curvature = self.lam * (painted * painted).sum() + (bend * downhill * downhill).sum()
        lowest = ratio((gradient * downhill).sum(), curvature)
        new = unit(self.xp, f - length * lowest * downhill)
        worse = self._misfit(y, x, new).sum() > self._misfit(y, x, f).sum()
        f[...] = self.xp.where(worse, f, new)
        return self.xp.where(worse, 0.5 * length, self.xp.minimum(2 * length, 1))


class _Alternation(NamedTuple):
    """A step at one beta: the feature maps before it, z, its shrunk version, and what is kept, with
    the cost of each image."""

    shrink: Shrinkage | SmoothShrinkage
    before: Array
    before_cost: Array
    z: Array
    new: Array
    worse: Array
    x: Array
    cost: Array


def dot(a: Array, b: Array) -> Array:
    """Inner product of each sample, (N,)."""
    return (a * b).sum(axis=SAMPLE)


def ratio(a: Array, b: Array) -> Array:
    """a / b, with 0 / 0 = 0."""
    return a / (b + (b == 0))


def unit(xp: Any, filters: Array) -> Array:
    """Each of filters (maps, C, KH, KW) scaled to norm 1, or 0 where it is 0."""
    return ratio(filters, xp.sqrt((filters * filters).sum(axis=(1, 2, 3), keepdims=True)))


class Shrinkage:
    """The exact minimum over x of beta / 2 (x - v)^2 + |x|^p, for each element, 0 < p <= 1.

    p = 1 is soft thresholding: sign(v) max(|v| - 1 / beta, 0). For p < 1, x is 0 up to |v| = jump,
    and beyond it the larger root of x - |v| + (p / beta) x^(p-1) = 0, a convex function of x:
    Newton's steps from x = |v| descend to the root. At the jump, 0 and the root cost the same. This
    gives x = least = (2 (1 - p) / beta)^(1 / (2 - p)), and from it |v|.
    """

    def __init__(self, xp: Any, p: float, beta: float) -> None:
        self.xp, self.p, self.beta = xp, p, beta
        self.least = (2 * (1 - p) / beta) ** (1 / (2 - p))
        self.jump = 1 / beta if p == 1 else self.least + p / beta * self.least ** (p - 1)

    def __call__(self, v: Array) -> Array:
        xp, size = self.xp, self.xp.abs(v)
        if self.p == 1:
            return xp.sign(v) * xp.maximum(size - self.jump, 0)
        target = xp.maximum(size, self.jump)        # below the jump the result is 0
        x = target
        for _ in range(NEWTON_STEPS):
            force = self._force(x)
            x = x - (x - target + force * x) / (1 - (1 - self.p) * force)
        return (size >= self.jump) * xp.sign(v) * x

    def slope(self, x: Array) -> Array:
        """dx/dv at the result x: 0 where x is 0, else from the equation that x solves."""
        if self.p == 1:
            return (x != 0).astype(x.dtype)
        force = self._force(self.xp.maximum(self.xp.abs(x), self.least))
        return (x != 0) / (1 - (1 - self.p) * force)

    def _force(self, x: Array) -> Array:
        return self.p / self.beta * x ** (self.p - 2)


class SmoothShrinkage:
    """The exact minimum over x of beta / 2 (x - v)^2 + |x|^p, for each element, p > 1.

    |x|^p has the slope 0 at 0, so no element becomes 0. With c = p / beta, the minimum for v > 0 is
    the root of x + c x^(p-1) = v. For p < 2 the unknown is t = x^(p-1), so that the equation is
    convex for all p: a t^r + b t = v with r >= 1. Newton's steps

        t <- (a (r-1) t^r + v) / (a r t^(r-1) + b)

    descend to the root from min(v / b, (v / a)^(1/r)). It takes a few more of them if r is large.
    """

    def __init__(self, xp: Any, p: float, beta: float) -> None:
        self.xp, self.p, self.beta, c = xp, p, beta, p / beta
        self.a, self.b, self.r = (1.0, c, 1 / (p - 1)) if p < 2 else (c, 1.0, p - 1)
        self.steps = NEWTON_STEPS + math.ceil(1.5 * math.log10(self.r))

    def __call__(self, v: Array) -> Array:
        size, a, b, r = self.xp.abs(v), self.a, self.b, self.r
        t = self.xp.minimum(size / b, (size / a) ** (1 / r))
        for _ in range(self.steps):
            power = a * t ** (r - 1)
            t = ((r - 1) * power * t + size) / (r * power + b)
        return self.xp.sign(v) * (t ** r if self.p < 2 else t)

    def slope(self, x: Array) -> Array:
        """dx/dv at the result x: 1 / (1 + c (p-1) |x|^(p-2)), without a division by 0 at x = 0."""
        size, bend = self.xp.abs(x), self.p / self.beta * (self.p - 1)
        if self.p < 2:
            power = size ** (2 - self.p)
            return power / (power + bend)
        return 1 / (1 + bend * size ** (self.p - 2))
