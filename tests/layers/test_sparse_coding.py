"""The deconvolutional network against loops and dense matrices; its costs during learning;
errors."""

import itertools
import json
import math

import numpy as np
import pytest
from oracles import assert_close

import xpnet as xn
from tests.layers.test_shrinkage import shrunk
from tests.project.test_examples import run
from xpnet import TRAIN
from xpnet.testing import check_gradients

FLOATS = ("float32", "float64")
SHAPE, KERNEL, MAPS = (2, 4, 3), (3, 2), 3
OUT = (MAPS, 6, 4)


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def layer_for(backend, shape=SHAPE, dtype="float64", maps=MAPS, kernel=KERNEL, **settings):
    return xn.DeconvolutionalNetwork2d(maps, kernel, **settings).initialize(
        shape, backend=backend, dtype=dtype, seed=1)


def filters_of(layer):
    return layer.backend.to_numpy(layer.filters.data).astype(np.float64)


# --- the model ------------------------------------------------------------------------------------

def painted(z, f):
    """Each element of z_k adds a copy of f_k to the image, whose first pixel is under the last row
    and column of the first copy."""
    (K, C, KH, KW), (_, H, W, N) = f.shape, z.shape
    y = np.zeros((C, H - KH + 1, W - KW + 1, N))
    for k, h, w, c, i, j in itertools.product(range(K), range(H), range(W), range(C), range(KH),
                                              range(KW)):
        row, column = h - (KH - 1) + i, w - (KW - 1) + j
        if 0 <= row < y.shape[1] and 0 <= column < y.shape[2]:
            y[c, row, column] += f[k, c, i, j] * z[k, h, w]
    return y


def matrix(f, out=OUT):
    """F (C*H*W, maps*...): the image of each element of the feature maps."""
    size = math.prod(out)
    return painted(np.eye(size).reshape(*out, size), f).reshape(-1, size)


def total_cost(y, z, f, lam, p):
    residual = painted(z, f) - y
    return np.array([lam / 2 * sum(float(r) ** 2 for r in residual[..., n].flat)
                     + sum(abs(float(v)) ** p for v in z[..., n].flat) for n in range(y.shape[-1])])


@pytest.mark.parametrize("dtype", FLOATS)
def test_reconstruction_and_cost(backend, dtype):
    layer = layer_for(backend, dtype=dtype, lam=3.0, p=0.7)
    z, y = normal((*OUT, 2), dtype), normal((*SHAPE, 2), dtype, seed=1)
    f, maps = filters_of(layer), backend.asarray(z)
    assert layer.out_shape == OUT and f.shape == (MAPS, 2, *KERNEL)
    assert_close(backend.to_numpy(layer.reconstruct(maps)), painted(z.astype(np.float64), f))
    assert_close(backend.to_numpy(layer.cost(backend.asarray(y), maps)),
                 total_cost(y, z, f, 3.0, 0.7))


def test_filters_of_norm_1_only_where_they_are_connected(backend):
    layer = layer_for(backend, connectivity=np.array([[1, 0], [1, 1], [0, 1]], bool))
    assert layer.connectivity == [[1, 0], [1, 1], [0, 1]]
    f = filters_of(layer)
    np.testing.assert_allclose((f ** 2).sum(axis=(1, 2, 3)), 1)
    assert (f[0, 1] == 0).all() and (f[2, 0] == 0).all() and (f[1] != 0).all()


# --- inference ------------------------------------------------------------------------------------

def inferred(y, f, lam, p, betas, x=None):
    """The algorithm on dense matrices, one image at a time; the system is solved by elimination."""
    F, found = matrix(f), []
    for n in range(y.shape[-1]):
        target, best = y[..., n].ravel(), np.zeros(F.shape[1]) if x is None else x[..., n].ravel()

        def cost(z):
            return lam / 2 * ((F @ z - target) ** 2).sum() + (np.abs(z) ** p).sum()      # noqa: B023 - called at once

        for beta in betas:
            z = np.linalg.solve(lam * F.T @ F + beta * np.eye(F.shape[1]),
                                lam * F.T @ target + beta * best)
            new = np.array([shrunk(v, p, beta) for v in z])
            best = new if cost(new) <= cost(best) else best
        found.append(best.reshape(OUT))
    return np.stack(found, axis=-1)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_linear_system(backend, dtype):
    layer = layer_for(backend, dtype=dtype, lam=2.0, iterations=60)
    F, b, start = (matrix(filters_of(layer)), normal((*OUT, 2), dtype),
                   normal((*OUT, 2), dtype, seed=1))
    z = backend.to_numpy(layer._solve(backend.asarray(b), 1.5, backend.asarray(start)))
    expected = np.linalg.solve(2.0 * F.T @ F + 1.5 * np.eye(F.shape[1]),
                               b.reshape(-1, 2).astype(np.float64)).reshape(b.shape)
    assert_close(z, expected, scale=10)


@pytest.mark.parametrize("p", [1.0, 0.8, 1.5, 3.0])
def test_inference_is_the_algorithm_on_dense_matrices(backend, p):
    settings = dict(lam=4.0, p=p, betas=[1.0, 4.0, 4.0, 16.0, 64.0])
    layer, y = layer_for(backend, iterations=60, **settings), 2 * normal((*SHAPE, 2))
    x = layer.infer(backend.asarray(y))
    expected = inferred(y, filters_of(layer), **settings)
    assert_close(backend.to_numpy(x), expected, scale=1000)
    # some, but not all; or all
    assert 0.05 < np.mean(expected != 0) < 0.9 if p <= 1 else (expected != 0).all()
    np.testing.assert_array_equal(backend.to_numpy(layer.forward(backend.asarray(y))),
                                  backend.to_numpy(x))
    # Starting from given feature maps; the first betas are too small to keep them.
    again = layer.infer(backend.asarray(y), x)
    assert_close(backend.to_numpy(again), inferred(y, filters_of(layer), x=expected, **settings),
                 scale=1000)
    assert (backend.to_numpy(layer.cost(backend.asarray(y), again))
            <= backend.to_numpy(layer.cost(backend.asarray(y), x))).all()


def test_the_convex_cost_comes_near_its_minimum(backend):
    """p = 1, against 20,000 steps of proximal gradient descent on the dense problem."""
    lam, y = 3.0, 2 * normal((*SHAPE, 1))
    layer = layer_for(backend, lam=lam,
                      betas=np.repeat([4.0, 16.0, 64.0, 256.0, 1024.0], 40).tolist(), iterations=10)
    F, target = matrix(filters_of(layer)), y.ravel()
    x, step = np.zeros(F.shape[1]), 1 / (lam * np.linalg.norm(F, 2) ** 2)
    for _ in range(20000):
        v = x - step * lam * F.T @ (F @ x - target)
        x = np.sign(v) * np.maximum(np.abs(v) - step, 0)
    least = total_cost(y, x.reshape(*OUT, 1), filters_of(layer), lam, 1.0)
    reached = backend.to_numpy(layer.cost(backend.asarray(y), layer.infer(backend.asarray(y))))
    assert least * (1 - 1e-9) <= reached <= 1.01 * least


@pytest.mark.parametrize("settings", [dict(), dict(p=0.8, betas=[8, 32]), dict(p=1.5),
                                      dict(p=3.0), dict(connectivity=[[1, 0], [1, 1], [0, 1]])],
                         ids=str)
def test_gradients(backend, settings):
    settings = dict(lam=4.0, betas=[2, 8, 32], iterations=30) | settings
    check_gradients(xn.DeconvolutionalNetwork2d(MAPS, KERNEL, **settings), SHAPE, backend=backend)


def test_gradient_with_refused_steps(backend):
    """Every combination of accepted and refused steps, with costs that are given instead of
    computed."""
    # for each image, the steps that are refused
    patterns = np.array(list(itertools.product((False, True), repeat=3)))

    class Given(xn.DeconvolutionalNetwork2d):
        def _alternate(self, y, x):
            made = np.cumsum(~patterns.T, axis=0)  # the number of steps
            self.given = iter([np.zeros(8), *np.where(patterns.T, 1.0 - made, -made)])
            yield from super()._alternate(y, x)

        def _cost(self, y, z):
            return self.backend.asarray(next(self.given))

    settings = dict(lam=4.0, betas=[2, 8, 32], iterations=30)
    y = 2 * normal((*SHAPE, 8), seed=4)
    layer = Given(MAPS, KERNEL, **settings).initialize(SHAPE, backend=backend, dtype="float64")
    steps = list(layer._alternate(backend.asarray(y), layer._nothing(backend.asarray(y))))
    np.testing.assert_array_equal(np.transpose([backend.to_numpy(step.worse) for step in steps]),
                                  patterns)
    check_gradients(Given(MAPS, KERNEL, **settings), SHAPE, inputs=(y,), backend=backend)


# --- learning -------------------------------------------------------------------------------------

def test_filter_gradient(backend):
    layer = layer_for(backend, lam=3.0, connectivity=[[1, 0], [1, 1], [0, 1]])
    y, z = normal((*SHAPE, 2)), normal((*OUT, 2), seed=1)
    gradient = backend.to_numpy(layer.filter_gradient(backend.asarray(y), backend.asarray(z)))
    f, h = filters_of(layer), 1e-6
    for at in np.ndindex(f.shape):
        costs = []
        for sign in (1, -1):
            moved = f.copy()
            moved[at] += sign * h
            costs.append(total_cost(y, z, moved, 3.0, 1.0).sum())
        numeric = (costs[0] - costs[1]) / (2 * h)
        assert gradient[at] == (pytest.approx(numeric, rel=1e-6, abs=1e-6)
                                if layer.connectivity[at[0]][at[1]] else 0)


@pytest.mark.parametrize("p", [1.0, 0.8, 1.5])
@pytest.mark.parametrize("dtype", FLOATS)
def test_costs_fall_during_learning(backend, p, dtype):
    """At one beta the augmented cost, which begins at C; C from step to step; filters keep their
    norm and connections."""
    layer = layer_for(backend, dtype=dtype, lam=4.0, p=p, betas=[2, 8, 32],
                      connectivity=[[1, 0], [1, 1], [0, 1]])
    y = normal((6, *SHAPE), dtype)
    before = filters_of(layer)
    steps = layer.learn(y, 4, filter_steps=3)
    assert [(s.epoch, s.what, s.beta) for s in steps[9:18]] == [
        (2, "z", 2.0), (2, "x", 2.0), (2, "z", 8.0), (2, "x", 8.0), (2, "z", 32.0), (2, "x", 32.0),
        *[(2, "filters", None)] * 3]
    rounding = 1 + 100 * np.finfo(dtype).eps
    costs = [total_cost(np.moveaxis(y, 0, -1), np.zeros((*OUT, 6)), before, 4.0, p).mean(),
             *(s.cost for s in steps)]
    assert all(after <= rounding * cost for cost, after in itertools.pairwise(costs))
    assert costs[-1] < (0.75 if p <= 1 else 0.85) * costs[9]        # by more than rounding errors
    for z, x in zip(steps, steps[1:]):
        if z.what == "z":
            assert x.augmented <= rounding * z.augmented <= rounding ** 2 * z.cost
    after = filters_of(layer)
    np.testing.assert_allclose((after ** 2).sum(axis=(1, 2, 3)), 1, rtol=1e-5)
    assert (after[0, 1] == 0).all() and not np.allclose(before, after)


def test_a_step_that_is_too_long_is_refused(backend):
    layer = layer_for(backend, lam=4.0)
    y, x = backend.asarray(normal((*SHAPE, 3))), backend.asarray(normal((*OUT, 3), seed=1))
    for _ in range(3):
        layer._move_filters(y, x, backend.asarray(np.ones(1)))
    before, cost = filters_of(layer), backend.to_numpy(layer.cost(y, x)).sum()
    length = layer._move_filters(y, x, backend.asarray(np.full(1, 64.0)))
    assert backend.to_numpy(length)[0] == 32 and (filters_of(layer) == before).all()
    length = layer._move_filters(y, x, backend.asarray(np.full(1, 0.25)))
    assert backend.to_numpy(length)[0] == 0.5 and backend.to_numpy(layer.cost(y, x)).sum() < cost


def test_filter_steps_have_the_best_length(backend):
    layer = layer_for(backend, lam=4.0)
    y = backend.asarray(2 * normal((*SHAPE, 6)))
    x = layer.infer(y)
    for _ in range(2):                                      # until C is nearly a parabola
        layer._move_filters(y, x, backend.asarray(np.ones(1)))
    before, costs = layer.filters.data.copy(), {}
    for length in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0):
        layer.filters.data[...] = before
        layer._move_filters(y, x, backend.asarray(np.full(1, length)))
        costs[length] = backend.to_numpy(layer.cost(y, x)).sum()
    assert min(costs, key=costs.get) == 1


def test_images_of_sparse_maps_are_coded_well(backend):
    """Learned filters code the images about as cheaply as the filters that generated them."""
    truth = layer_for(backend, (1, 10, 10), maps=2, kernel=3, lam=30.0,
                      betas=[4, 8, 16, 32, 64, 128])
    rng = np.random.default_rng(3)
    maps = rng.standard_normal((*truth.out_shape, 12)) * (rng.random((*truth.out_shape, 12)) < 0.04)
    y = truth.reconstruct(backend.asarray(maps))
    learner = xn.DeconvolutionalNetwork2d(**truth.config() | {"name": "learner"}).initialize(
        (1, 10, 10), backend=backend, dtype="float64", seed=5)
    cheap, dear = (backend.to_numpy(layer.cost(y, layer.infer(y))).mean()
                   for layer in (truth, learner))
    steps = learner.learn(np.moveaxis(backend.to_numpy(y), -1, 0), 25, filter_steps=3)
    assert steps[-1].cost < 1.15 * cheap < 0.8 * dear


def test_images_of_zeros(backend):
    """No division by zero: feature maps are zero, filters are unchanged."""
    layer = layer_for(backend)
    before = filters_of(layer)
    assert layer.learn(np.zeros((2, *SHAPE)), 1)[-1].cost == 0
    np.testing.assert_allclose(filters_of(layer), before, rtol=1e-14)
    assert (backend.to_numpy(layer.infer(backend.asarray(np.zeros((*SHAPE, 2))))) == 0).all()


# --- in a network ---------------------------------------------------------------------------------

def test_in_a_network(tmp_path):
    """An optimizer does not change the filters; learned filters are saved."""
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((20, *SHAPE)).astype(np.float32), rng.integers(0, 2, 20)
    net = xn.Sequential([xn.DeconvolutionalNetwork2d(MAPS, KERNEL, betas=[2, 8], iterations=3),
                         xn.Flatten(), xn.Linear(2)],
                        input_shape=SHAPE, backend="numpy")
    net.layers[0].learn(x, 2)
    learned = filters_of(net.layers[0])
    net.fit(x, labels, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=1, verbose=False)
    assert (filters_of(net.layers[0]) == learned).all()
    net.save(tmp_path / "net.safetensors")
    again = xn.load(tmp_path / "net.safetensors", backend="numpy")
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    assert (json.loads(json.dumps(net.layers[0].config())) == again.layers[0].config()
            | {"kernel_size": list(KERNEL)})


def test_the_input_gradient_is_computed_only_if_it_is_needed(backend):
    layer = layer_for(backend)
    layer.needs_dx = False
    layer.forward(backend.asarray(normal((*SHAPE, 1))), mode=TRAIN)
    assert layer.kept == () and layer.backward(backend.asarray(normal((*OUT, 1)))) is None


def test_multiply_adds():
    layer = xn.DeconvolutionalNetwork2d(5, 3, betas=[1, 2], iterations=4).initialize((2, 6, 7))
    one = 5 * 8 * 9 * 2 * 9                                 # a convolution
    assert layer.multiply_adds() == (2 + 2 * (2 + 2 * 4 + 1)) * one


def test_the_example(tmp_path):
    for module in ("sklearn", "PIL", "matplotlib"):
        pytest.importorskip(module)
    out = run("sparse_coding.py", tmp_path, "--epochs", "2", "--patches", "3", "--maps", "4",
              "--output", "filters.png")
    costs = [[float(line.split()[-1]) for line in part.splitlines()[1:]
              if line.strip()[:1].isdigit()]
             for part in out.split("p = ")[1:]]
    # two epochs of 6 betas, z and x, and 2 filter steps
    assert [len(column) for column in costs] == [28, 28]
    assert all(later <= earlier for column in costs
               for earlier, later in itertools.pairwise(column))
    assert (tmp_path / "filters.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("settings, expected", [
    (dict(maps=0), "maps to be an int, 1 or larger"), (dict(p=0), "p to be a number above 0"),
    (dict(p=-1), "p to be a number above 0"), (dict(lam=0), "lam to be a number above 0"),
    (dict(lam="x"), "lam to be a number"), (dict(betas=[]), "betas to be a list of numbers"),
    (dict(betas="12"), "betas to be a list of numbers"),
    (dict(betas=[1, 0]), "each of betas to be a number above 0"),
    (dict(betas=[2, 1]), "betas that do not fall"),
    (dict(iterations=0), "iterations to be an int, 1 or larger"),
    (dict(connectivity=[[1, 1]]), "connectivity to have 3 rows of zeros and ones"),
    (dict(connectivity=[[1, 0], [0, 0], [1, 1]]),
     "connectivity to have 3 rows of zeros and ones, at least a one in each"),
    (dict(connectivity=[[1, 0], [1, 2], [1, 1]]), "connectivity to have 3 rows of zeros and ones"),
    (dict(connectivity=[[1, 0], [1], [1, 1]]), "connectivity to have 3 rows of zeros and ones"),
    (dict(connectivity="110"), "connectivity to have 3 rows of zeros and ones")], ids=str)
def test_constructor_errors(settings, expected):
    with pytest.raises(ValueError, match=rf"DeconvolutionalNetwork2d 'd': expected {expected}"):
        xn.DeconvolutionalNetwork2d(**{"maps": 3, "kernel_size": 3, "name": "d", **settings})


def test_errors():
    who = "DeconvolutionalNetwork2d 'd': expected"
    with pytest.raises(ValueError,
                       match=f"{who} 2 columns of connectivity, one for each channel. Received: 3"):
        xn.DeconvolutionalNetwork2d(1, 3, connectivity=[[1, 1, 1]], name="d").initialize((2, 5, 5))
    with pytest.raises(ValueError, match=f"{who} to be in a network before learn"):
        xn.DeconvolutionalNetwork2d(1, 3, name="d").learn(np.zeros((1, 2, 5, 5)))
    layer = xn.DeconvolutionalNetwork2d(1, 3, name="d").initialize((2, 5, 5))
    for wrong in (np.zeros((1, 2, 5, 4)), np.zeros((2, 5, 5)), np.zeros((0, 2, 5, 5))):
        with pytest.raises(ValueError,
                           match=rf"{who} images of shape \(S, 2, 5, 5\)\. Received: shape"):
            layer.learn(wrong)
    with pytest.raises(ValueError, match=f"{who} epochs to be an int"):
        layer.learn(np.zeros((1, 2, 5, 5)), 0)
    batch, maps = np.zeros((2, 5, 5, 3), np.float32), np.zeros((1, 7, 7, 3), np.float32)
    for call in (lambda: layer.infer(maps), lambda: layer.infer(batch, batch),
                 lambda: layer.reconstruct(batch), lambda: layer.cost(maps, batch)):
        with pytest.raises(ValueError, match=f"{who} batch-last arrays"):
            call()
