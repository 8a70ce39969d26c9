"""Recurrent layers: against one sample and one step after the other in float64, gradients, cells of
one's own, and networks."""

import copy

import numpy as np
import pytest
from layer_cases import initialized
from oracles import assert_close
from tiers import full

import xpnet as xn
from xpnet.backends.numpy.backend import NumpyBackend
from xpnet.testing import check_gradients


class ResetBefore(xn.GRU):
    """The GRU of the paper, with the arguments of the other layers."""

    def __init__(self, units, **options):
        super().__init__(units, reset="before", **options)


KINDS = [xn.SimpleRNN, xn.LSTM, xn.GRU, ResetBefore]
STACKS = [{}, {"layers": 2, "bidirectional": True}, {"layers": 3, "bias": False},
          {"layers": 2, "reverse": True}]

every_kind = pytest.mark.parametrize("kind", KINDS)
every_stack = pytest.mark.parametrize("stack", STACKS, ids=str)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def scans(stack):
    return stack.get("layers", 1) * (2 if stack.get("bidirectional") else 1)


def state_shapes(kind, stack, H):
    return [(H,) if scans(stack) == 1 else (scans(stack), H)] * kind.carried


# --- the equations, for one sample and one step ---------------------------------------------------

def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def simple(x, W, U, b, h):
    return (np.tanh(W @ x + b + U @ h),)


def lstm(x, W, U, b, h, c):
    i, f, g, o = np.split(W @ x + b + U @ h, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(x, W, U, b, h, c_n):
    (a_r, a_z, a_n), (s_r, s_z, s_n) = np.split(W @ x + b, 3), np.split(U @ h, 3)
    z = sigmoid(a_z + s_z)
    return ((1 - z) * np.tanh(a_n + sigmoid(a_r + s_r) * (s_n + c_n)) + z * h,)


def gru_of_the_paper(x, W, U, b, h):
    (a_r, a_z, a_n), (U_r, U_z, U_n) = np.split(W @ x + b, 3), np.split(U, 3)
    z = sigmoid(a_z + U_z @ h)
    return ((1 - z) * np.tanh(a_n + U_n @ (sigmoid(a_r + U_r @ h) * h)) + z * h,)


STEPS = {xn.SimpleRNN: simple, xn.LSTM: lstm, ResetBefore: gru_of_the_paper}


def sequence(kind, arrays, name, x, states, reverse):
    """All states h (H, T) of one sample x (D, T), of one layer in one direction, and the final
    states."""
    W, U = arrays[f"{name}.W"], arrays[f"{name}.U"]
    b, c = (arrays.get(f"{name}.{bias}", np.zeros(rows))
            for bias, rows in (("b", len(W)), ("c", U.shape[1])))
    found = [None] * x.shape[1]
    for t in range(x.shape[1])[::-1 if reverse else 1]:
        states = (gru(x[:, t], W, U, b, *states, c) if kind is xn.GRU
                  else STEPS[kind](x[:, t], W, U, b, *states))
        found[t] = states[0]
    return np.stack(found, axis=1), states


def expected(layer, x, initial, sequences):
    return expected_with_states(layer, x, initial, sequences)[0]


def expected_with_states(layer, x, initial, sequences):
    """Y, and the final states (scans, H, N) each."""
    arrays = {p.name: layer.backend.to_numpy(p.data).astype(float) for p in layer.parameters}
    outs, ends = [], []
    for n in range(x.shape[-1]):
        h, number, ends_of_sample = x[..., n].astype(float), 0, []
        for level in range(1, layer.layers + 1):
            parts, last = [], []
            for way in layer.ways:
                states = [s[..., n].reshape(-1, layer.units)[number] for s in initial]
                found, states = sequence(type(layer), arrays, f"{way}{level}", h, states,
                                         way == "reverse")
                parts.append(found)
                last.append(states[0])
                ends_of_sample.append(states)
                number += 1
            h = np.concatenate(parts)
        outs.append(h if sequences else np.concatenate(last))
        ends.append([np.stack(of_kind) for of_kind in zip(*ends_of_sample)])
    return np.stack(outs, axis=-1), [np.stack(of_kind, axis=-1) for of_kind in zip(*ends)]


@every_kind
@every_stack
@pytest.mark.parametrize(("steps", "sequences"), [(1, False), (4, True), pytest.param(
    5, False, marks=full)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs(backend, kind, stack, steps, sequences, dtype):
    """With first states, and with 0 without them."""
    H = 3
    layer = kind(H, return_sequences=sequences, **stack)
    shapes = state_shapes(kind, stack, H)
    initialized(layer, (2, steps), *shapes, backend=backend, dtype=dtype)
    x, *initial = (normal(*shape, 2, seed=k).astype(dtype)
                   for k, shape in enumerate([(2, steps), *shapes]))
    y = backend.to_numpy(layer.forward(*map(backend.asarray, (x, *initial))))
    assert y.dtype == dtype
    assert_close(y, expected(layer, x, initial, sequences), scale=4)
    zeros = [np.zeros_like(a) for a in initial]
    y = backend.to_numpy(type(layer).forward(layer, backend.asarray(x)))
    assert_close(y, expected(layer, x, zeros, sequences), scale=4)


@every_kind
@every_stack
@pytest.mark.parametrize("steps", [1, 4])
def test_gradients(kind, stack, steps):
    """With respect to the sequence, the first states and all parameters."""
    for sequences in (False, True):
        layer = kind(3, return_sequences=sequences, **stack)
        assert check_gradients(layer, (2, steps), *state_shapes(kind, stack, 3)) < 1e-6
    assert check_gradients(kind(3, **stack), (2, steps)) < 1e-6


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "softplus"])
def test_other_activations_of_a_simple_rnn(activation):
    assert check_gradients(xn.SimpleRNN(3, activation=activation, layers=2), (2, 4)) < 1e-6


@every_kind
def test_gradients_are_accumulated_and_the_input_gradient_may_be_left_out(kind, backend):
    layer = initialized(kind(3, layers=2, bidirectional=True), (2, 4), backend=backend,
                        dtype="float64")
    x, dy = backend.asarray(normal(2, 4, 5)), backend.asarray(normal(6, 5, seed=1))
    layer.forward(x, mode=xn.TRAIN)
    layer.backward(dy)
    once = [backend.to_numpy(p.grad).copy() for p in layer.parameters]
    layer.forward(x, mode=xn.TRAIN)
    layer.needs_dx = False
    assert layer.backward(dy, accumulate=True) is None
    for p, grad in zip(layer.parameters, once, strict=True):
        assert_close(backend.to_numpy(p.grad), 2 * grad)


@every_kind
@every_stack
@pytest.mark.parametrize("sequences", [False, True])
def test_what_comes_behind_the_end_of_a_sample_changes_nothing(backend, kind, stack, sequences):
    """Each sample as if its sequence ended there; 0 behind it; a sample without steps keeps its
    first states."""
    lengths, H = np.array([[3, 5, 1, 0]]), 3
    shapes = state_shapes(kind, stack, H)
    layer = kind(H, return_sequences=sequences, lengths=True, **stack)
    initialized(layer, (2, 5), (1,), *shapes, backend=backend, dtype="float64")
    x, *initial = (normal(*shape, 4, seed=k) for k, shape in enumerate([(2, 5), *shapes]))
    y = backend.to_numpy(layer.forward(*map(backend.asarray, (x, lengths.astype(float), *initial))))
    for n, steps in enumerate(lengths[0]):
        if steps == 0:
            if sequences:
                assert not y[..., n].any()
            elif scans(stack) == 1:
                assert_close(y[..., n], initial[0][..., n])
            continue
        mine = [s[..., n:n + 1] for s in initial]
        alone = expected(layer, x[:, :steps, n:n + 1], mine, sequences)
        assert_close(y[:, :steps, n] if sequences else y[..., n], alone[..., 0], scale=4)
        assert not sequences or not y[:, steps:, n].any()
    layer = kind(H, return_sequences=sequences, lengths=True, **stack)
    assert check_gradients(layer, (2, 5), (1,), *shapes, batch=4,
                           inputs=(x, lengths, *initial)) < 1e-6


class Masking(NumpyBackend):
    """Does not read lengths on the host, like a backend that captures steps."""

    captures = True


def elman(units, **options):
    return xn.RNN(xn.ElmanCell(units), **options)


@pytest.mark.parametrize("make", [*KINDS, elman], ids=lambda make: make.__name__)
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("lengths", [[3, 5, 0, 5], [0, 0, 0, 0], [5, 5, 5, 5]], ids=str)
def test_sorted_samples_and_masks_give_the_same(make, sequences, lengths):
    """Backends that capture steps mask what is beyond the end of a sample; the others do not
    compute it."""
    x, dy = normal(2, 5, 4), normal(3, 5, 4, seed=1) if sequences else normal(3, 4, seed=1)
    behind = np.arange(5)[:, None] >= np.array(lengths)                     # (T, N)
    x[:, behind] = np.nan
    results = []
    for backend in (NumpyBackend(), Masking()):
        layer = initialized(make(3, return_sequences=sequences, lengths=True), (2, 5), (1,),
                            backend=backend, dtype="float64")
        y = layer.forward(x, np.array([lengths], float), mode=xn.TRAIN)
        dx, _ = layer.backward(dy)
        assert not dx[:, behind].any() and not (sequences and y[:, behind].any())
        results.append([y, dx, *(p.grad for p in layer.parameters)])
    for a, b in zip(*results, strict=True):
        assert_close(a, b)


def test_what_is_behind_the_end_is_not_computed(monkeypatch):
    """Samples are sorted, and the products have as many columns as there are steps."""
    layer = initialized(xn.LSTM(3, lengths=True), (2, 5), (1,), backend=NumpyBackend(),
                        dtype="float32")
    seen, scan = [], NumpyBackend.scan_product

    def counted(self, cell, x, W, b, U, states, counts, **options):  # noqa: N803
        seen.append((x.shape[1], list(counts)))
        return scan(self, cell, x, W, b, U, states, counts, **options)

    monkeypatch.setattr(NumpyBackend, "scan_product", counted)
    layer.forward(normal(2, 5, 4).astype(np.float32), np.array([[1, 3, 0, 4]], np.float32))
    assert seen == [(8, [3, 2, 2, 1, 0])]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
def test_lengths_for_a_cell(backend, sequences, reverse):
    """Each sample as if its sequence ended there."""
    options = {"return_sequences": sequences, "reverse": reverse}
    lengths, x, state = np.array([[3, 5, 1, 0]]), normal(2, 5, 4), normal(6, 4, seed=1)
    layer = initialized(xn.RNN(Memory(3), lengths=True, **options), (2, 5), (1,), (6,),
                        backend=backend, dtype="float64")
    y = backend.to_numpy(layer.forward(*map(backend.asarray, (x, lengths.astype(float), state))))
    for n, steps in enumerate(lengths[0, :3]):
        alone = initialized(xn.RNN(Memory(3), **options), (2, int(steps)), (6,), backend=backend,
                            dtype="float64")
        right = backend.to_numpy(alone.forward(*(
            backend.asarray(a.copy()) for a in (x[:, :steps, n:n + 1], state[:, n:n + 1]))))
        assert_close(y[:, :steps, n] if sequences else y[..., n], right[..., 0])
        assert not sequences or not y[:, steps:, n].any()
    assert_close(y[..., 3], 0 * y[..., 3] if sequences else state[:3, 3])
    assert check_gradients(xn.RNN(Memory(3), lengths=True, **options), (2, 5), (1,), (6,), batch=4,
                           inputs=(x, lengths, state)) < 1e-6


def test_networks_take_sequences_of_different_lengths(backend):
    """The last step of each sample is its label."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 7, (128, 1))
    tokens = rng.integers(0, 3, (128, 6))
    y = np.take_along_axis(tokens, lengths - 1, axis=1)[:, 0]
    sequence, steps = xn.Input((6,), name="sequence"), xn.Input((1,), name="steps")
    code = xn.LSTM(12, lengths=True)(xn.Embedding(3, 4)(sequence), steps)
    net = xn.Network([sequence, steps], xn.Linear(3)(code), backend=backend)
    net.fit([tokens, lengths], y, loss="cross_entropy", optimizer=xn.Adam(0.03), epochs=12,
            batch_size=16, verbose=False)
    assert net.evaluate([tokens, lengths], y)["accuracy"] == 1
    with pytest.raises(ValueError, match=r"^LSTM 'lstm1': expected numbers of steps from 1 to 6\. "
                                         r"Received: numbers from 2 to 7\.$"):
        net.predict([tokens, lengths + 1])


def test_dropout_between_the_layers_is_off_in_predictions():
    with_it, without = (xn.LSTM(4, layers=2, dropout=p).initialize((3, 5)) for p in (0.5, 0))
    x = normal(3, 5, 8).astype(np.float32)
    np.testing.assert_array_equal(with_it.forward(x), without.forward(x))
    assert (with_it.forward(x, mode=xn.TRAIN) != without.forward(x)).any()


def test_first_values():
    """The forget gate begins open; the blocks of W have the range of a Linear of one gate."""
    layer = xn.LSTM(50).initialize((30, 2))
    scan, = layer.scans[0]
    np.testing.assert_array_equal(scan.b.data, np.repeat([0, 1, 0, 0], 50))
    for weights, fans in ((scan.W, 80), (scan.U, 100)):
        assert 0.97 < abs(weights.data).max() / np.sqrt(6 / fans) <= 1
    assert [p.name for p in xn.GRU(2, layers=2, bidirectional=True).initialize((3, 4)).parameters
            if "1." in p.name] == [f"{way}1.{name}" for way in ("forward", "reverse")
                                   for name in "WUbc"]
    assert layer.multiply_adds() == 2 * 200 * (30 + 50)


# --- cells ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_rnn_around_elmans_cell_is_a_simple_rnn(backend, sequences, reverse):
    rnn = xn.RNN(xn.ElmanCell(4), return_sequences=sequences, reverse=reverse)
    simple_rnn = xn.SimpleRNN(4, return_sequences=sequences)
    for layer in (rnn, simple_rnn):
        initialized(layer, (3, 5), (4,), backend=backend, dtype="float64")
    for p, q in zip(rnn.parameters, simple_rnn.parameters, strict=True):
        q.data[...] = p.data
    x, h = normal(3, 5, 2), normal(4, 2, seed=1)
    y, dh = (layer.forward(backend.asarray(a), backend.asarray(h), mode=xn.TRAIN)
             for layer, a in ((rnn, x), (simple_rnn, x[:, ::-1].copy() if reverse else x)))
    turn = slice(None, None, -1) if reverse else slice(None)
    y, other = (backend.to_numpy(a) for a in (y, dh))
    assert_close(y, other[:, turn] if sequences else other)
    dy = normal(*y.shape, seed=2)
    (dx, dh), (dx2, dh2) = (
        layer.backward(backend.asarray(d)) for layer, d in (
            (rnn, dy), (simple_rnn, dy[:, turn].copy() if sequences else dy)))
    assert_close(backend.to_numpy(dx), backend.to_numpy(dx2)[:, turn])
    for a, b in [(dh, dh2), *((p.grad, q.grad) for p, q in zip(
            rnn.parameters, simple_rnn.parameters, strict=True))]:
        assert_close(backend.to_numpy(a), backend.to_numpy(b), scale=4)


class Memory(xn.Layer):
    """A cell with two vectors: m' = m + W x, h' = h * m', in the state [h; m]."""

    def __init__(self, units, *, name=None):
        super().__init__(name=name)
        self.units, self.state_size = units, 2 * units

    def build(self, x_shape, state_shape):
        self.W = self.parameter("W", (self.units, *x_shape), xn.initializers.glorot_uniform)
        return state_shape

    def forward(self, x, state, mode=xn.PREDICT):
        h, m = state[:self.units], state[self.units:] + self.W.data @ x
        self.remember(mode, x, h, m)
        return self.backend.joined([h * m, m], axis=0)

    def backward(self, dstate, accumulate=False):
        x, h, m = self.recall()
        dm = dstate[self.units:] + dstate[:self.units] * h
        self.backend.store(dm @ x.T, self.W.grad, accumulate)
        return self.W.data.T @ dm, self.backend.joined([dstate[:self.units] * m, dm], axis=0)


@pytest.mark.parametrize("sequences", [False, True])
def test_a_cell_of_ones_own(backend, sequences):
    assert check_gradients(Memory(3), (2,), (6,)) < 1e-6
    assert check_gradients(xn.RNN(Memory(3), return_sequences=sequences), (2, 4), (6,)) < 1e-6
    layer = initialized(xn.RNN(Memory(3), return_sequences=sequences), (2, 4), (6,),
                        backend=backend, dtype="float64")
    W, x, state = backend.to_numpy(layer.cell.W.data), normal(2, 4, 5), normal(6, 5, seed=1)
    y = backend.to_numpy(layer.forward(backend.asarray(x), backend.asarray(state)))
    m = state[3:, None] + np.cumsum(np.einsum("hd,dtn->htn", W, x), axis=1)
    right = state[:3, None] * np.cumprod(m, axis=1)
    assert_close(y, right if sequences else right[:, -1])
    assert layer.out_shape == y.shape[:-1]


# --- networks -------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", KINDS[:3])
def test_networks_remember_the_first_token(backend, kind, tmp_path):
    """Of 5 tokens the first one is the label; training, files, copies, memory and the summary."""
    tokens = np.random.default_rng(0).integers(0, 4, (96, 5))
    net = xn.Sequential([xn.Embedding(4, 6), kind(16), xn.Linear(4)], input_shape=(5,),
                        backend=backend)
    net.fit(tokens, tokens[:, 0], loss="cross_entropy", optimizer=xn.Adam(0.02), epochs=25,
            batch_size=16, verbose=False)
    assert net.evaluate(tokens, tokens[:, 0])["accuracy"] == 1
    net.save(tmp_path / "net.safetensors")
    for other in (xn.load(tmp_path / "net.safetensors", backend=backend), copy.deepcopy(net)):
        np.testing.assert_array_equal(other.predict(tokens), net.predict(tokens))
    gates = {xn.SimpleRNN: 1, xn.LSTM: 4, xn.GRU: 3}[kind]
    row = net.summary().rows[1]
    assert row.multiply_adds == 5 * gates * 16 * (6 + 16) and row.receptive_field is None
    assert net.memory_report(16).activations > gates * 16 * 16 * 5 * 4


def test_a_state_is_a_value_of_the_graph(backend):
    """The last state of an encoder is the first state of a decoder; gradients flow through it."""
    x, z = xn.Input((3, 5), name="x"), xn.Input((2, 4), name="z")
    code = xn.GRU(6, name="encoder")(x)
    y = xn.Linear(3)(xn.GRU(6, return_sequences=True, name="decoder")(z, code))
    net = xn.Network([x, z], y, backend=backend)
    assert net.outs.nodes[0].shape == (3, 4)
    data = [normal(16, 3, 5), normal(16, 2, 4)]
    before = {name: backend.to_numpy(p.data).copy() for name, p in net.arrays.items()}
    net.fit(data, normal(16, 3, 4, seed=3), loss="mean_squared_error", optimizer="adam", epochs=1,
            verbose=False)
    assert all((backend.to_numpy(p.data) != before[name]).any() for name, p in net.arrays.items())


def long_and_short(make, backend):
    """The same network for sequences of 12 steps and for chunks of 4."""
    long, short = (xn.Sequential(make(), input_shape=(3, steps), backend=backend)
                   for steps in (12, 4))
    rng = np.random.default_rng(0)
    long.parameters[...] = backend.asarray(rng.uniform(-1, 1, long.parameters.shape), "float32")
    short.parameters[...] = long.parameters
    return long, short


@pytest.mark.parametrize("make", [
    lambda: [xn.LSTM(5, layers=2, return_sequences=True), xn.Linear(2)],
    lambda: [xn.SimpleRNN(4, return_sequences=True), xn.GRU(5, return_sequences=True)],
    lambda: [xn.RNN(xn.ElmanCell(4), return_sequences=True)]], ids=["LSTM", "SimpleRNN-GRU", "RNN"])
def test_predictions_by_chunks_are_those_of_the_whole(backend, make):
    long, short = long_and_short(make, backend)
    x, predict = normal(7, 3, 12), xn.ChunkPredictor(short)
    whole = long.predict(x)
    for _ in range(2):
        chunks = [predict(x[:, :, start:start + 4]) for start in (0, 4, 8)]
        np.testing.assert_allclose(np.concatenate(chunks, axis=2), whole, atol=1e-5)
        with pytest.raises(ValueError, match=r"^ChunkPredictor: expected 7 samples.* Received: 3"):
            predict(x[:3, :, :4])
        predict.reset()
    assert abs(predict(x[:3, :, 4:8]) - whole[:3, :, 4:8]).max() > 0.1      # of new sequences


def test_what_cannot_be_predicted_by_chunks():
    for layers, message in (
            ([xn.Linear(2)], "expected a network with a recurrent layer."),
            ([xn.GRU(2, bidirectional=True)], "Received: GRU 'gru1', which reads in reverse."),
            ([xn.GRU(2, reverse=True)], "Received: GRU 'gru1', which reads in reverse."),
            ([xn.RNN(Memory(2), reverse=True)], "Received: RNN 'rnn1', which reads in reverse.")):
        net = xn.Sequential(layers, input_shape=(3, 4), backend="numpy")
        with pytest.raises(ValueError, match=message):
            xn.ChunkPredictor(net)


def test_networks_with_a_cell_are_saved(tmp_path):
    """The cell is in the file with its type and arguments; a class of one's own is passed."""
    for cell, classes in ((xn.ElmanCell(4), []), (Memory(4), [Memory])):
        net = xn.Sequential([xn.RNN(cell), xn.Linear(2)], input_shape=(3, 5), backend="numpy")
        net.save(tmp_path / "net.safetensors")
        loaded = xn.load(tmp_path / "net.safetensors", layers=classes, backend="numpy")
        x = normal(6, 3, 5)
        np.testing.assert_array_equal(loaded.predict(x), net.predict(x))
        np.testing.assert_array_equal(copy.deepcopy(net).predict(x), net.predict(x))
    with pytest.raises(ValueError, match="Memory; pass a class of your own in layers="):
        xn.load(tmp_path / "net.safetensors", backend="numpy")


# --- errors ---------------------------------------------------------------------------------------

@pytest.mark.parametrize(("error", "make", "message"), [
    (ValueError, lambda: xn.LSTM(0), "LSTM: expected units to be an int, 1 or larger."),
    (ValueError, lambda: xn.GRU(2, dropout=1), "GRU: expected dropout to be a number from 0 to 1"),
    (ValueError, lambda: xn.SimpleRNN(2, activation="tan"), "SimpleRNN: expected activation"),
    (ValueError, lambda: xn.SimpleRNN(2, activation="softmax"),
     "SimpleRNN: expected activation to be an elementwise function; Softmax() is"),
    (ValueError, lambda: xn.GRU(2, reset="first"), "GRU: expected reset to be 'after' or"),
    (ValueError, lambda: xn.LSTM(2).initialize((3,)),
     "LSTM: expected an input of shape (features, steps) per sample. Received: input shape (3,)."),
    (ValueError, lambda: xn.LSTM(2).initialize((3, 4), (2,)),
     "LSTM: expected a sequence, alone or with 2 first state(s) of shape (2,). Received: first "
     "states of shapes (2,)."),
    (ValueError, lambda: xn.GRU(2, layers=2).initialize((3, 4), (2,)), "of shape (2, 2)."),
    (ValueError, lambda: xn.GRU(2, lengths=True).initialize((3, 4)),
     "GRU: expected a second input of shape (1,), the number of steps of each sample. Received: "
     "none."),
    (ValueError, lambda: xn.ChunkPredictor(xn.Network(
        inputs := [xn.Input((3, 4)), xn.Input((1,))], xn.GRU(2, lengths=True)(*inputs),
        backend="numpy")), "Received: GRU 'gru1' with lengths=True."),
    (TypeError, lambda: xn.RNN("cell"), "RNN: expected cell to be a Layer. Received: cell='cell'."),
    (ValueError, lambda: xn.RNN(xn.Tanh()), "RNN: expected cell.units to be an int"),
    (ValueError, lambda: xn.RNN(xn.ElmanCell(2)).initialize((3, 4), (3,)),
     "RNN: expected a sequence, and perhaps a first state of shape (2,)."),
])
def test_errors(error, make, message):
    with pytest.raises(error) as raised:
        make()
    assert message in str(raised.value) and "\n" not in str(raised.value)


class Wrong(xn.ElmanCell):
    """A cell whose methods return what a user may return by mistake."""

    def __init__(self, forward=None, backward=None):
        super().__init__(2)
        self.wrong = forward or (lambda h: h), backward or (lambda *gradients: gradients)

    def config(self):
        return dict(zip(("forward", "backward"), self.wrong, strict=True))

    def forward(self, x, state, mode="predict"):
        return self.wrong[0](super().forward(x, state, mode=mode))

    def backward(self, dy, accumulate=False):
        return self.wrong[1](*super().backward(dy, accumulate))


GRADIENTS = ("expected backward of the cell to return two gradients, dx (3, N) and dstate (2, N). "
             "Received: ")


@pytest.mark.parametrize("cell, message", [
    (xn.Linear(2), "RNN: expected a cell that takes two inputs, a step and the state. Received: "
                   "Linear, which takes 1."),
    (Wrong(forward=lambda h: h[:1]), "RNN 'rnn': expected forward of the cell to return the new "
                                     "state, (2, N). Received: shape (1, 5)."),
    (Wrong(forward=lambda h: (h, h)), "Received: tuple."),
    (Wrong(backward=lambda dx, dh: dx), GRADIENTS + "shape (3, 5)."),
    (Wrong(backward=lambda dx, dh: (dx,)), GRADIENTS + "shape (3, 5)."),
    (Wrong(backward=lambda dx, dh: (dh, dx)), GRADIENTS + "shape (2, 5), shape (3, 5)."),
    (Wrong(backward=lambda dx, dh: None), GRADIENTS + "NoneType."),
])
@pytest.mark.parametrize("lengths", [False, True])
def test_cells_that_do_not_return_what_a_step_needs(cell, message, lengths):
    xs = [normal(3, 4, 5), np.full((1, 5), 4)][:1 + lengths]
    with pytest.raises(ValueError) as raised:
        layer = xn.RNN(cell, lengths=lengths).initialize(*(x.shape[:-1] for x in xs),
                                                         dtype="float64")
        layer.backward(np.ones_like(layer.forward(*(x.astype(float) for x in xs), mode=xn.TRAIN)))
    assert message in str(raised.value) and "\n" not in str(raised.value)
