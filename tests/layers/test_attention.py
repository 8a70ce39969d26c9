"""Attention against loops over samples, heads and steps; its gradients, masks and errors."""

import math

import numpy as np
import pytest
from gpu_cases import learned, pretended
from layer_cases import initialized
from nets import same
from oracles import assert_close
from tiers import first

import xpnet as xn
from xpnet.testing import check_gradients

every_float = pytest.mark.parametrize("dtype", ["float32", "float64"])
INPUTS = {"itself": ((6, 4),), "memory": ((6, 4), (5, 7)), "three": ((6, 3), (2, 5), (4, 5))}
every_input = pytest.mark.parametrize("shapes", INPUTS.values(), ids=INPUTS)


def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def attended(weights, heads, causal, x, keys, values):
    """Y (D, T, N), one number after another: each step of each head has a list of weights that sum
    to 1."""
    W = {name: a.astype(float) for name, a in weights.items()}
    (D, T, N), S = x.shape, keys.shape[1]
    d, joined = D // heads, np.zeros(x.shape)
    for n in range(N):
        q, k, v = (W[f"{name}.W"] @ a[..., n] + W.get(f"{name}.b", np.zeros(D))[:, None]
                   for name, a in (("query", x), ("key", keys), ("value", values)))
        for h in range(heads):
            rows = range(h * d, (h + 1) * d)
            for t in range(T):
                seen = range(t + 1 if causal else S)
                score = [sum(q[i, t] * k[i, s] for i in rows) / math.sqrt(d) for s in seen]
                share = [math.exp(b - max(score)) for b in score]
                for i in rows:
                    joined[i, t, n] = sum(a * v[i, s] for a, s in zip(share, seen)) / sum(share)
    y = np.einsum("ij,jtn->itn", W["output.W"], joined)
    return y + W.get("output.b", np.zeros(D))[:, None, None]


@every_float
@every_input
@pytest.mark.parametrize("heads, bias", [(1, True), (3, True), (6, False)])
def test_attention(backend, shapes, heads, bias, dtype):
    layer = initialized(xn.MultiHeadAttention(heads, bias=bias), *shapes, backend=backend,
                        dtype=dtype)
    xs = [normal(*shape, 2, dtype=dtype) for shape in shapes]
    y = backend.to_numpy(layer.forward(*map(backend.asarray, xs)))
    weights = {p.name: backend.to_numpy(p.data) for p in layer.parameters}
    assert len(weights) == (7 if bias else 4) and y.dtype == dtype
    keys, values = (xs[1], xs[-1]) if len(xs) > 1 else (xs[0], xs[0])
    assert_close(y, attended(weights, heads, False, xs[0], keys, values), scale=10)


@every_float
def test_causal_attention(backend, dtype):
    layer = initialized(xn.MultiHeadAttention(2, mask="causal"), (4, 5), backend=backend,
                        dtype=dtype)
    x = normal(4, 5, 3, dtype=dtype)
    y = backend.to_numpy(layer.forward(backend.asarray(x))).copy()
    weights = {p.name: backend.to_numpy(p.data) for p in layer.parameters}
    assert_close(y, attended(weights, 2, True, x, x, x), scale=10)
    x[:, 3:] = 100                              # no step reads a later one
    later = backend.to_numpy(layer.forward(backend.asarray(x)))
    np.testing.assert_array_equal(later[:, :3], y[:, :3])
    assert (later[:, 3:] != y[:, 3:]).any()


@every_input
@pytest.mark.parametrize("options", [{}, {"dropout": 0.4}, {"bias": False}], ids=str)
def test_gradients(backend, shapes, options):
    check_gradients(xn.MultiHeadAttention(2, **options), *shapes, backend=backend)


def test_gradients_with_a_mask(backend):
    check_gradients(xn.MultiHeadAttention(3, mask="causal"), (6, 4), backend=backend)
    check_gradients(xn.MultiHeadAttention(2, mask="causal", dropout=0.2), (4, 3), (2, 3),
                    backend=backend)


@pytest.mark.parametrize("mask", [None, "causal"])
@pytest.mark.parametrize("shapes", [((6, 5),), ((6, 5), (4, 5)), ((6, 5), (2, 5), (4, 5))], ids=len)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_of_the_keys(backend, mask, shapes, dtype):
    """Each sample as if its keys ended there. In self-attention Y is 0 beyond the end; a sample
    without keys gets the bias of the output."""
    lengths, alone = [5, 3, 1, 0], len(shapes) == 1
    layer = xn.MultiHeadAttention(3, mask=mask, lengths=True)
    initialized(layer, *shapes, (1,), backend=backend, dtype=dtype)
    weights = {p.name: backend.to_numpy(p.data) for p in layer.parameters}
    xs = [normal(*shape, 4, dtype=dtype) for shape in shapes]
    for x in xs[0 if alone else 1:]:
        for n, steps in enumerate(lengths):
            x[:, steps:, n] = 1e4               # beyond the end
    inputs = [*xs, np.array([lengths], dtype)]
    y = backend.to_numpy(layer.forward(*map(backend.asarray, inputs), mode=xn.TRAIN)).copy()
    for n, steps in enumerate(lengths):
        x, *others = (a[..., n:n + 1] for a in xs)
        keys, values = (a[:, :steps] for a in (others[0], others[-1])) if others else 2 * [
            x[:, :steps]]
        if alone:
            assert not y[:, steps:, n].any()
        if not steps and not alone:
            assert_close(y[..., n], np.tile(weights["output.b"][:, None], 5))
        elif mask and not alone:                # a later query reads all keys of its sample
            for t in range(5):
                last = min(t + 1, steps)
                right = attended(weights, 3, False, x[:, t:t + 1], keys[:, :last], values[:, :last])
                assert_close(y[:, t, n], right[:, 0, 0], scale=10)
        elif steps:
            queries = x[:, :steps] if alone else x
            right = attended(weights, 3, mask is not None, queries, keys, values)
            assert_close(y[:, :queries.shape[1], n], right[..., 0], scale=10)
    dy = normal(6, 5, 4, seed=1, dtype=dtype)
    gradients = [backend.to_numpy(dx) for dx in layer.backward(backend.asarray(dy))]
    assert [dx.shape for dx in gradients] == [a.shape for a in inputs]
    assert not gradients[-1].any()
    for dx in gradients[0 if alone else 1:-1]:
        for n, steps in enumerate(lengths):
            assert not dx[:, steps:, n].any()
            assert dx[:, :steps, n].any() or steps < 2      # one key has the weight 1


@pytest.mark.parametrize("options", [{}, {"mask": "causal"}, {"dropout": 0.4}], ids=str)
def test_gradients_with_padding(backend, options):
    lengths = np.array([[4, 2, 1, 0]])
    for shapes in INPUTS.values():
        S = shapes[-1][1]
        if "mask" in options and S != shapes[0][1]:
            continue
        inputs = *(normal(*shape, 4) for shape in shapes), np.minimum(lengths, S)
        check_gradients(xn.MultiHeadAttention(2, lengths=True, **options), *shapes, (1,), batch=4,
                        inputs=inputs, backend=backend)


def test_numbers_of_steps_are_checked_once():
    x, n = xn.Input((4, 5), name="x"), xn.Input((1,), name="n")
    net = xn.Network([x, n], xn.MultiHeadAttention(2, lengths=True)(x, n), backend="numpy")
    a = normal(3, 4, 5)
    net.predict([a, np.array([[5], [0], [2]])])
    with pytest.raises(ValueError, match=r"^MultiHeadAttention 'attention1': expected numbers of "
                                         r"steps from 0 to 5\. Received: numbers from 2 to 6\.$"):
        net.predict([a, np.array([[5], [6], [2]])])


def test_large_scores_do_not_overflow(backend):
    """A softmax of 1e4 and more: each step reads one value."""
    layer = xn.MultiHeadAttention(1, bias=False).initialize((2, 3), backend=backend)
    for p in layer.parameters:
        p.data[...] = backend.asarray(np.eye(2, dtype=np.float32))
    x = np.array([[[200.0], [0], [-200]], [[0.0], [200], [0]]], np.float32)
    y = backend.to_numpy(layer.forward(backend.asarray(x)))
    np.testing.assert_array_equal(y, x)


def test_a_key_bias_would_change_nothing():
    """The reason why the keys have none: it adds one number to all scores of a query."""
    layer = initialized(xn.MultiHeadAttention(2), (4, 5), backend=xn.Backend(), dtype="float64")
    weights, x = {p.name: p.data for p in layer.parameters}, normal(4, 5, 2)
    without, bias = attended(weights, 2, False, x, x, x), {"key.b": normal(4, seed=3)}
    assert_close(attended(weights | bias, 2, False, x, x, x), without)
    assert_close(layer.forward(x), without)


def test_dropout_of_the_weights(backend):
    """Elements of A are dropped in training and in "sample" mode, and not in prediction."""
    layer = initialized(xn.MultiHeadAttention(2, dropout=0.5), (4, 6), backend=backend,
                        dtype="float32")
    x = backend.asarray(normal(4, 6, 3, dtype="float32"))
    predicted, sampled, trained = (backend.to_numpy(layer.forward(x, mode=mode)).copy()
                                   for mode in (xn.PREDICT, xn.SAMPLE, xn.TRAIN))
    np.testing.assert_array_equal(sampled, trained)
    assert (sampled != predicted).any()
    layer.counters[0] += 1
    assert (backend.to_numpy(layer.forward(x, mode=xn.SAMPLE)) != sampled).any()


def block(x, heads, **options):
    """Attention and two layers for each step, each with a residual connection."""
    x = xn.LayerNorm(axis=0)(x + xn.MultiHeadAttention(heads, **options)(x))
    h = xn.Linear(2 * x.shape[0], activation="relu")(x)
    return xn.LayerNorm(axis=0)(x + xn.Linear(x.shape[0])(h))


def network(backend, **options):
    x = xn.Input((4, 3))
    return xn.Network(x, xn.Linear(3)(xn.Flatten()(block(x, 2, **options))), backend=backend,
                      seed=1)


def network_with_lengths(backend):
    x, n = xn.Input((4, 3), name="x"), xn.Input((1,), name="n")
    h = xn.MultiHeadAttention(2, lengths=True, mask="causal", dropout=0.2)(x, n)
    h = xn.MultiHeadAttention(2, lengths=True)(h, x, n)
    return xn.Network([x, n], xn.Linear(3)(xn.Flatten()(h)), backend=backend, seed=1)


def test_it_is_counted_and_saved(tmp_path):
    net = network("numpy", mask="causal", dropout=0.1)
    row = net.summary().rows[0]
    assert row.parameters == 4 * 4 * 4 + 3 * 4
    # four products of (4, 4) and (4, 3), K^T Q of 3 x 3 elements with 4 terms, and V A likewise
    assert row.multiply_adds == 4 * 4 * 4 * 3 + 2 * 3 * 3 * 4
    net.save(tmp_path / "net.safetensors")
    again = xn.load(tmp_path / "net.safetensors", backend="numpy")
    x = normal(5, 4, 3, dtype="float32")
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    assert again.layers[0].config() == net.layers[0].config()


def test_the_memory_report_counts_the_weights_of_all_pairs_of_steps():
    """A (h, S, T, N), which is large if there are many steps; with dropout a second time."""
    def kept(dropout):
        net = xn.Sequential([xn.MultiHeadAttention(2, dropout=dropout)], input_shape=(4, 50),
                            backend="numpy")
        return net.memory_report(3).rows[0].kept

    weights, sequence = 4 * 2 * 50 * 50 * 3, 4 * 4 * 50 * 3
    assert weights < kept(0.0) < weights + 12 * sequence
    assert 2 * weights < kept(0.5) < 2.25 * weights + 12 * sequence         # and a mask of bytes


def test_a_block_treats_all_steps_alike(plain_backend):
    """Without positions, the outputs for steps in another order are those outputs in that order."""
    x = xn.Input((4, 6))
    net = xn.Network(x, block(block(x, 2), 4), backend=plain_backend, dtype="float64", seed=3)
    a, order = normal(3, 4, 6), [3, 0, 5, 4, 1, 2]
    assert_close(net.predict(a[:, :, order]), net.predict(a)[:, :, order], scale=10)


@pytest.mark.parametrize("lengths", first([False, True], True))
def test_captured_steps_on_an_emulated_gpu(folder, lengths):
    x, y = normal(16, 4, 3, dtype="float32"), np.arange(16) % 3
    if lengths:
        x = [x, np.arange(16)[:, None] % 4]
    results = []
    for capture in (False, True):
        with pretended(folder) as (backend, gpus):
            net = (network_with_lengths(backend) if lengths
                   else network(backend, dropout=0.2, mask="causal"))
            net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=3, batch_size=8,
                    capture=capture, verbose=False)
            assert gpus.graphs == capture
            results.append(learned(net))
    assert same(*results)


def test_it_learns_to_copy_the_step_that_a_query_names():
    """One head finds the step whose key is the query: 8 symbols, which no average can tell apart.
    """
    rng = np.random.default_rng(0)
    keys = np.array([rng.permutation(8)[:4] for _ in range(256)])           # (N, T)
    values, asked = rng.integers(0, 5, keys.shape), rng.integers(0, 4, 256)
    memory = np.concatenate([np.eye(8)[keys], np.eye(5)[values]], axis=2).transpose(0, 2, 1)
    query = np.eye(8)[keys[np.arange(256), asked]][:, :, None]              # (N, 8, 1)
    q, m = xn.Input((8, 1)), xn.Input((13, 4))
    net = xn.Network([q, m], xn.Linear(5)(xn.Flatten()(xn.MultiHeadAttention(1)(q, m))),
                     backend="numpy", seed=0)
    y = values[np.arange(256), asked]
    net.fit([query, memory], y, loss="cross_entropy", optimizer=xn.Adam(0.02), epochs=30,
            batch_size=32, verbose=False)
    assert net.evaluate([query, memory], y)["accuracy"] > 0.95


@pytest.mark.parametrize("make, text", [
    (lambda: xn.MultiHeadAttention(0), "expected heads to be an int, 1 or larger"),
    (lambda: xn.MultiHeadAttention(2, mask="padding"), "expected mask to be None or 'causal'"),
    (lambda: xn.MultiHeadAttention(2, dropout=1), "expected dropout to be a number, 0 or larger, "
                                                  "below 1"),
    (lambda: xn.MultiHeadAttention(2, init="he"), "expected init to be one of"),
    (lambda: xn.MultiHeadAttention(2).initialize((4,)),
     r"expected an input of shape \(features, steps\) per sample\. Received: input shape \(4,\)"),
    (lambda: xn.MultiHeadAttention(3).initialize((4, 5)),
     r"expected heads=3 to divide the features\. Received: 4 features"),
    (lambda: xn.MultiHeadAttention(2).initialize((4, 5), (4, 5), (4, 6)),
     r"expected keys and values of the same number of steps\. Received: \(4, 5\) and \(4, 6\)"),
    (lambda: xn.MultiHeadAttention(2, mask="causal").initialize((4, 5), (4, 6)),
     r'expected queries and keys of the same number of steps with mask="causal"\. Received: 5 and '
     r"6 steps"),
    (lambda: xn.MultiHeadAttention(2, lengths=True).initialize((4, 5)),
     r"expected a last input of shape \(1,\), the number of steps of each sample of the keys\. "
     r"Received: none"),
    (lambda: xn.MultiHeadAttention(2, lengths=True).initialize((4, 5), (4, 5)),
     r"expected a last input of shape \(1,\), .* Received: \(4, 5\)"),
    (lambda: xn.MultiHeadAttention(2, lengths=1), "expected lengths to be True or False"),
    (lambda: xn.MultiHeadAttention(2).initialize((2, 2**20)),
     r"expected weights A of at most 2\^40 elements\. Received: shape \(2, 1048576, 1048576\)"),
    (lambda: xn.MultiHeadAttention(2).initialize(*[(4, 5)] * 4),
     r"expected 1 to 3 inputs: queries, keys, values\. Received: 4"),
])
def test_errors(make, text):
    with pytest.raises(ValueError, match=f"MultiHeadAttention: {text}") as caught:
        make()
    assert "\n" not in str(caught.value)
