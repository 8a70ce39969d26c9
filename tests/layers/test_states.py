"""Final states of recurrent layers as outputs: values, gradients, and networks with them."""

import copy

import numpy as np
import pytest
from layer_cases import initialized
from oracles import assert_close

import xpnet as xn
from tests.layers.test_recurrent import (
    Memory,
    every_kind,
    every_stack,
    expected_with_states,
    normal,
    state_shapes,
)
from xpnet.testing import check_gradients

H = 3
every_output = pytest.mark.parametrize("sequences", [False, True])


@every_kind
@every_stack
@every_output
@pytest.mark.parametrize("steps", [1, 4])
def test_final_states(backend, kind, stack, sequences, steps):
    """In the form of first states: (H,), or (layers * directions, H)."""
    layer = kind(H, return_sequences=sequences, return_state=True, **stack)
    shapes = state_shapes(kind, stack, H)
    initialized(layer, (2, steps), *shapes, backend=backend, dtype="float64")
    x, *initial = (normal(*shape, 2, seed=k) for k, shape in enumerate([(2, steps), *shapes]))
    out = layer.forward(*map(backend.asarray, (x, *initial)))
    y, *states = (backend.to_numpy(a) for a in layer.unpacked(out))
    right, ends = expected_with_states(layer, x, initial, sequences)
    assert_close(y, right, scale=4)
    assert [state.shape[:-1] for state in states] == shapes
    for state, end in zip(states, ends, strict=True):
        assert_close(state, end.reshape(state.shape), scale=4)


@every_kind
@every_stack
def test_final_states_at_the_end_of_each_sample(backend, kind, stack):
    """A sample without steps keeps its first states."""
    lengths = [3, 5, 1, 0]
    layer = kind(H, return_sequences=True, return_state=True, lengths=True, **stack)
    shapes = state_shapes(kind, stack, H)
    initialized(layer, (2, 5), (1,), *shapes, backend=backend, dtype="float64")
    x, *initial = (normal(*shape, 4, seed=k) for k, shape in enumerate([(2, 5), *shapes]))
    out = layer.forward(*map(backend.asarray, (x, np.array([lengths], float), *initial)))
    y, *states = (backend.to_numpy(a) for a in layer.unpacked(out))
    for n, steps in enumerate(lengths):
        assert not y[:, steps:, n].any()
        mine = [state[..., n:n + 1] for state in initial]
        ends = mine if not steps else expected_with_states(
            layer, x[:, :steps, n:n + 1], mine, sequences=True)[1]
        for state, end in zip(states, ends, strict=True):
            assert_close(state[..., n].ravel(), end.ravel(), scale=4)


@every_kind
@every_stack
@every_output
def test_gradients_through_the_final_states(kind, stack, sequences):
    """With respect to the sequence, the first states and all parameters."""
    options = {"return_sequences": sequences, "return_state": True, **stack}
    shapes = state_shapes(kind, stack, H)
    for steps in (1, 4):
        assert check_gradients(kind(H, **options), (2, steps), *shapes) < 1e-6
    assert check_gradients(kind(H, **options), (2, 4)) < 1e-6
    inputs = (normal(2, 4, 3), np.array([[4, 2, 0]]), *(normal(*shape, 3) for shape in shapes))
    assert check_gradients(kind(H, lengths=True, **options), (2, 4), (1,), *shapes,
                           inputs=inputs) < 1e-6


@every_output
@pytest.mark.parametrize("reverse", [False, True])
def test_the_final_state_of_a_cell(backend, sequences, reverse):
    options = {"return_sequences": sequences, "return_state": True, "reverse": reverse}
    layer = initialized(xn.RNN(Memory(H), **options), (2, 4), (2 * H,), backend=backend,
                        dtype="float64")
    W, x, first = backend.to_numpy(layer.cell.W.data), normal(2, 4, 5), normal(2 * H, 5, seed=1)
    y, state = (backend.to_numpy(a) for a in layer.unpacked(layer.forward(
        backend.asarray(x), backend.asarray(first))))
    m = first[H:] + np.einsum("hd,dtn->hn", W, x)
    assert state.shape == (2 * H, 5)
    assert_close(state[H:], m)
    assert_close(state[:H], y[:, 0 if reverse else -1] if sequences else y)
    assert check_gradients(xn.RNN(Memory(H), **options), (2, 4), (2 * H,)) < 1e-6
    inputs = normal(2, 4, 3), np.array([[4, 2, 0]]), normal(2 * H, 3)
    assert check_gradients(xn.RNN(Memory(H), lengths=True, **options), (2, 4), (1,), (2 * H,),
                           inputs=inputs) < 1e-6


# --- networks -------------------------------------------------------------------------------------

def translator(backend, **options):
    """An LSTM that reads a sequence, and one that begins with its final states."""
    x, z = xn.Input((3, 5), name="x"), xn.Input((2, 4), name="z")
    _, h, c = xn.LSTM(6, return_state=True, name="encoder", **options)(x)
    y = xn.LSTM(6, return_sequences=True, name="decoder", **options)(z, h, c)
    return xn.Network([x, z], xn.Linear(3)(y), backend=backend, seed=1)


@pytest.mark.parametrize("options", [{}, {"layers": 2, "bidirectional": True}], ids=str)
def test_a_decoder_begins_with_the_states_of_an_encoder(backend, options, tmp_path):
    """Training changes the encoder; the network is saved and copied."""
    net = translator(backend, **options)
    data, y = [normal(16, 3, 5), normal(16, 2, 4)], np.arange(64).reshape(16, 4) % 3
    before = backend.to_numpy(net.arrays["encoder.forward1.U"].data).copy()
    losses = net.fit(data, y, loss="cross_entropy", optimizer=xn.Adam(0.02), epochs=5,
                     batch_size=8, verbose=False)["loss"]
    assert losses[-1] < losses[0]
    assert (backend.to_numpy(net.arrays["encoder.forward1.U"].data) != before).any()
    net.save(tmp_path / "net.safetensors")
    names = [node.name for node in net.nodes]
    for other in (xn.load(tmp_path / "net.safetensors", backend=backend), copy.deepcopy(net),
                  net.folded()):
        assert [node.name for node in other.nodes] == names
        np.testing.assert_array_equal(other.predict(data), net.predict(data))
    head = net.with_head([xn.Linear(2)], after="decoder")
    np.testing.assert_array_equal(head.output_of("decoder", data), net.output_of("decoder", data))


def test_inputs_with_lengths(tmp_path):
    """y has the lengths of its input, also in a loaded network; states have none. What is behind
    the ends changes nothing."""
    x, z = xn.Input((3, 6), lengths=True, name="x"), xn.Input((2, 4), lengths=True, name="z")
    y, h, c = xn.LSTM(4, layers=2, return_sequences=True, return_state=True)(x)
    assert y.lengths is x.lengths and h.lengths is c.lengths is None
    d = xn.LSTM(4, layers=2, return_sequences=True)(z, h, c)
    net = xn.Network([x, z], xn.Linear(3)(d + xn.MultiHeadAttention(2)(d, y)), backend="numpy")
    data, lengths = [normal(5, 3, 6), normal(5, 2, 4)], [[6, 2, 3, 1, 4], [4, 1, 2, 3, 1]]
    right = net.predict(data, lengths=lengths)
    net.save(tmp_path / "net.safetensors")
    loaded = xn.load(tmp_path / "net.safetensors", backend="numpy")
    by_name = {node.name: node.lengths and node.lengths.name for node in net.nodes}
    assert {node.name: node.lengths and node.lengths.name for node in loaded.nodes} == by_name
    for a, ends in zip(data, lengths):
        for n, steps in enumerate(ends):
            a[n, :, steps:] = 5
    for other in (net, loaded, net.folded()):
        np.testing.assert_array_equal(other.predict(data, lengths=lengths), right)


def test_the_outputs_are_views_of_one_array():
    layer = xn.LSTM(4, layers=2, return_sequences=True, return_state=True)
    x = xn.Input((3, 5))
    y, h, c = layer(x)
    assert [node.shape for node in (y, h, c)] == [(4, 5), (2, 4), (2, 4)]
    assert layer.out_shape == (4 * 5 + 2 * 2 * 4,)
    net = xn.Network(x, [y, h, c], backend="numpy")
    flat, *parts = net.run([np.ones((3, 5, 2), np.float32)], [y.parents[0].parents[0], y, h, c])
    assert all(np.shares_memory(flat, part) for part in parts)


@pytest.mark.parametrize("make", [
    lambda: xn.LSTM(5, layers=2, return_sequences=True, return_state=True),
    lambda: xn.RNN(Memory(5), return_sequences=True, return_state=True)], ids=["LSTM", "RNN"])
def test_predictions_by_chunks_end_with_the_states_of_the_whole(make):
    def network(steps):
        x = xn.Input((3, steps))
        return xn.Network(x, [*make()(x)], backend="numpy", seed=2)

    long, short, x = network(12), network(4), normal(7, 3, 12)
    predict = xn.ChunkPredictor(short)
    chunks = [predict(x[:, :, start:start + 4]) for start in (0, 4, 8)]
    y, *states = long.predict(x)
    np.testing.assert_allclose(np.concatenate([chunk[0] for chunk in chunks], axis=2), y, atol=1e-5)
    for state, whole in zip(chunks[-1][1:], states, strict=True):
        np.testing.assert_allclose(state, whole, atol=1e-5)


@pytest.mark.parametrize("layers", [
    lambda: [xn.LSTM(4, return_state=True), xn.Linear(2)],
    lambda: [xn.Linear(3), xn.LSTM(4, return_state=True)]], ids=["first", "last"])
def test_a_sequential_has_no_place_for_states(layers):
    with pytest.raises(ValueError, match=r"^Sequential: expected layers with one output each; a "
                                         r"Network takes any graph\. Received: LSTM 'lstm1' with "
                                         r"3 outputs\.$"):
        xn.Sequential(layers(), input_shape=(3, 5), backend="numpy")


def test_return_state_is_a_flag():
    with pytest.raises(ValueError, match=r"^GRU: expected return_state to be True or False\."):
        xn.GRU(2, return_state=1)
