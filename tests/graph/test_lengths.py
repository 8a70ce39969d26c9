"""Inputs with lengths in graphs: which layers pass them on, take them and refuse them; parts, files
and copies."""

import copy
import pickle
import re

import numpy as np
import pytest
from nets import LAYERS, blobs, padded

import xpnet as xn
from xpnet.testing import check_gradients

T = 6
LENGTHS = np.array([6, 1, 4, 2])


def ragged(*shape, lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((*shape, n)) for n in lengths]


def tagger(**settings):
    """Everything that takes lengths, and an output for each step."""
    x = xn.Input((3, T), lengths=True)
    h = xn.GRU(4, layers=2, bidirectional=True, return_sequences=True)(
        xn.Conv1d(4, 1, bias="map")(xn.Rescale(0.5)(x)))
    h = h + xn.MultiHeadAttention(2)(xn.LayerNorm(axis=0)(h))
    h = xn.RNN(xn.ElmanCell(4), reverse=True, return_sequences=True)(xn.PReLU()(h))
    h = xn.Concat()(h, xn.Multiply()(h, xn.Sigmoid()(h)))
    y = xn.Softmax()(xn.Linear(3)(xn.Dropout(0.2)(xn.Slice(1, 7)(h))))
    return xn.Network(x, y, **{"backend": "numpy", "dtype": "float64"} | settings)


def classifier(**settings):
    """An output without steps."""
    return xn.Sequential([xn.Linear(4), xn.LSTM(5, bidirectional=True), xn.Linear(2)],
                         input_shape=(3, T), lengths=True,
                         **{"backend": "numpy", "dtype": "float64"} | settings)


@pytest.mark.parametrize("make", [tagger, classifier])
def test_each_sample_is_computed_as_if_it_were_alone(backend, make):
    """In a network whose T is the sample's number of steps, without lengths."""
    net, xs = make(backend=backend), ragged(3)
    ys = net.predict(xs)
    assert type(ys) is (list if make is tagger else np.ndarray)
    for n, (x, y) in enumerate(zip(xs, ys, strict=True)):
        assert y.shape == ((3, x.shape[1]) if make is tagger else (2,))
        np.testing.assert_allclose(net.predict([x])[0], y, atol=1e-12, err_msg=f"sample {n}")


@pytest.mark.parametrize("make", [tagger, classifier])
def test_padding_changes_no_bit(backend, make):
    net, xs = make(backend=backend, dtype="float32"), ragged(3)
    expected = net.predict(padded(xs), lengths=LENGTHS)
    for padding in (-7.0, 1e30):
        np.testing.assert_array_equal(net.predict(padded(xs, padding), lengths=LENGTHS), expected)
        np.testing.assert_array_equal(
            net.backend.to_numpy(net(padded(xs, padding), lengths=LENGTHS)), expected)
    for y, found, n in zip(expected, net.predict(xs), LENGTHS, strict=True):
        if make is tagger:
            assert not y[:, n:].any()
            y = y[:, :n]
        np.testing.assert_array_equal(found, y)


@pytest.mark.parametrize("layer", [xn.GlobalAvgPool1d, xn.GlobalMaxPool1d])
def test_global_pooling_of_the_real_steps(backend, layer):
    net = xn.Sequential([layer(), xn.Linear(2)], input_shape=(3, T), lengths=True, backend=backend)
    xs, pooled = ragged(3), "mean" if layer is xn.GlobalAvgPool1d else "max"
    xs = [x - 5 for x in xs]                # the largest is not in the padding
    found = net.output_of("pool1", padded(xs, 9.0), lengths=LENGTHS)
    np.testing.assert_allclose(found, [getattr(x, pooled)(axis=1) for x in xs], rtol=1e-6)
    np.testing.assert_array_equal(found, net.output_of("pool1", xs))
    x = np.random.default_rng(1).standard_normal((3, T, 4))
    assert check_gradients(layer(lengths=True), (3, T), (1,), batch=4,
                           inputs=(x, LENGTHS[None])) < 1e-6
    with pytest.raises(ValueError, match=r"expected 2 input\(s\)\. Received: 3"):
        layer(lengths=True).initialize((3, T), (1,), (1,))
    with pytest.raises(ValueError, match=r"expected 1 input\(s\)\. Received: 2"):
        layer().initialize((3, T), (1,))


def test_causal_convolutions(backend):
    """No step reads a later one, so no real step reads padding, which is not 0 behind `Linear`."""
    net = xn.Sequential([xn.Linear(4), xn.Conv1d(4, 3, padding=(2, 0), activation="tanh"),
                         xn.Conv1d(2, 2, padding=(4, 0), dilation=4, bias="map")],
                        input_shape=(3, T), lengths=True, backend=backend, dtype="float64")
    for p in net.arrays.values():
        p.data += 0.1
    for y, x in zip(net.predict(xs := ragged(3)), xs, strict=True):
        np.testing.assert_allclose(y, net.predict([x])[0], atol=1e-12)
    dx = net.input_gradient(padded(xs), output_gradient=np.ones((4, 2, T)), lengths=LENGTHS)
    for row, n in zip(dx, LENGTHS, strict=True):
        assert row[:, :n].all() and not row[:, n:].any()


def test_numbers_of_steps_are_not_among_the_inputs():
    net = tagger()
    assert net.input.shape == (3, T) and len(net.ins) == 1
    assert [node.name for node in net.in_nodes] == ["input", "input.lengths"]
    assert "input.lengths" in str(net.summary())
    net.draw()
    assert [layer.lengths for layer in net.layers if hasattr(layer, "lengths")] == [True] * 3


def test_tokens(backend):
    net = xn.Sequential([xn.Embedding(5, 3), xn.SimpleRNN(4)], input_shape=(T,), lengths=True,
                        backend=backend)
    xs = [np.arange(n) % 5 for n in LENGTHS]
    for padding in (0, 4, -1, 5):                # the last two are no tokens
        np.testing.assert_array_equal(net.predict(xs),
                                      net.predict(padded(xs, padding), lengths=LENGTHS))
    objects = np.empty(len(xs), object)
    objects[:] = xs
    np.testing.assert_array_equal(net.predict(objects), net.predict(xs))


def test_two_sequences_with_lengths_of_their_own(backend):
    """A decoder attends to what the encoder has read."""
    x, y = xn.Input((3, T), lengths=True, name="x"), xn.Input((2, T), lengths=True, name="y")
    keys = xn.GRU(4, return_sequences=True)(x)
    queries = xn.GRU(4, return_sequences=True)(y, xn.GRU(4)(x))
    out = queries + xn.MultiHeadAttention(2)(queries, keys)
    net = xn.Network({"x": x, "y": y}, out, backend=backend, dtype="float64")
    xs, ys = ragged(3), ragged(2, lengths=[1, 3, 6, 2], seed=1)
    found = net.predict({"x": xs, "y": ys})
    by_lengths = net.predict({"x": padded(xs, 9), "y": padded(ys, 9)},
                             lengths={"x": LENGTHS, "y": [1, 3, 6, 2]})
    for n in range(4):
        alone = net.predict({"x": [xs[n]], "y": [ys[n]]})[0]
        np.testing.assert_allclose(found[n], alone, atol=1e-12)
        np.testing.assert_array_equal(by_lengths[n, :, :ys[n].shape[1]], found[n])


def test_one_sequence_with_lengths_beside_an_image():
    x, image = xn.Input((3, T), lengths=True), xn.Input((4,))
    net = xn.Network([x, image], xn.Add()(xn.GRU(4)(x), image), backend="numpy")
    xs, images = ragged(3), np.ones((4, 4))
    np.testing.assert_array_equal(net.predict([xs, images]),
                                  net.predict([padded(xs), images], lengths=LENGTHS))


def test_a_shared_layer_takes_lengths_in_both_places():
    x, gru = xn.Input((3, T), lengths=True), xn.GRU(3, return_sequences=True)
    net = xn.Network(x, gru(gru(x)), backend="numpy", dtype="float64")
    xs = ragged(3)
    for a, b in zip(net.predict(xs), [net.predict([x])[0] for x in xs], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("make", [tagger, classifier])
def test_files_and_copies_have_lengths(make, tmp_path):
    net, xs = make(), ragged(3)
    net.save(tmp_path / "net.safetensors")
    others = [xn.load(tmp_path / "net.safetensors", backend="numpy"), copy.deepcopy(net),
              pickle.loads(pickle.dumps(net)), net.folded(), make(seed=5).load(
                  tmp_path / "net.safetensors")]
    for other in others:
        assert other.in_nodes[0].lengths is other.in_nodes[1]
        for a, b in zip(other.predict(xs), net.predict(xs), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"there is input of shape \[3, 6\] with lengths and not "
                                         r"input of shape \[3, 6\]"):
        xn.Sequential([xn.GRU(2)], input_shape=(3, T), backend="numpy").load(
            tmp_path / "net.safetensors")


def test_parts_of_networks():
    net, xs = tagger(), ragged(3)
    first = net.up_to("gru1")
    for a, b in zip(first.predict(xs), net.output_of("gru1", xs), strict=True):
        np.testing.assert_array_equal(a, b)
    headed = net.with_head([xn.LSTM(2)], after="gru1")
    assert headed.predict(xs).shape == (4, 2) and headed.layers[-1].lengths
    x = xn.Input((3, T), lengths=True)
    whole = xn.Network(x, xn.Linear(2)(first(xn.Tanh()(x))), backend="numpy", dtype="float64")
    for a, x in zip(whole.predict(xs), xs, strict=True):
        np.testing.assert_allclose(a, whole.predict([x])[0], atol=1e-12)


def test_what_else_is_done_with_a_network(capsys):
    net, xs = classifier(), ragged(3)
    assert "gru" not in str(net.memory_report(4)) and "lstm1" in str(net.memory_report(4))
    assert "lstm1" in str(net.profile(xs, steps=1))
    assert net.input_gradient(xs, output_gradient=np.ones((4, 2)))[1].shape == (3, 1)
    ensemble = xn.Ensemble([classifier(seed=seed) for seed in range(2)])
    np.testing.assert_allclose(
        ensemble.predict(xs), np.mean([n.predict(xs) for n in ensemble.nets], axis=0))
    assert ensemble.evaluate(xs, [0, 1, 1, 0], loss="cross_entropy")["accuracy"] <= 1


class Each(xn.Layer):
    """A layer of one's own that computes each step by itself."""

    steps = "causal"

    def build(self, shape):
        return shape

    def forward(self, x, mode=xn.PREDICT):
        self.remember(mode)
        return 2 * x


class Mean(Each):
    """A mistake: it says that it computes each step by itself, and has no steps."""

    def build(self, shape):
        return shape[:1]


def test_a_layer_of_ones_own_says_what_it_does():
    net = xn.Sequential([Each()], input_shape=(3, T), lengths=True, backend="numpy",
                        dtype="float64")
    for a, x in zip(net.predict(xs := ragged(3)), xs, strict=True):
        np.testing.assert_array_equal(a, 2 * x)


def test_layers_that_say_that_they_are_causal_are():
    """Every layer of the catalogue that takes sequences: changes behind a step change no bit up to
    it, forward, and a gradient that is 0 behind it stays 0 there, backward."""
    rng, checked = np.random.default_rng(0), []
    more = [xn.LayerNorm(axis=0), xn.RMSNorm(axis=0), xn.Conv1d(3, 1), xn.L1Norm(),
            xn.Conv1d(3, 3, padding=(4, 0), dilation=2)]
    cases = [(item.make(), len(item.shapes)) for item in LAYERS] + [(one, 1) for one in more]
    for layer, inputs in cases:
        try:
            layer.initialize(*((4, T),) * inputs, dtype="float64")
        except ValueError:              # it takes no sequences of this shape
            continue
        if layer.steps != "causal" or isinstance(layer, xn.Embedding):
            continue
        xs = [rng.uniform(0.1, 1, (4, T, 3)) for _ in range(inputs)]
        others = [np.concatenate([x[:, :4], rng.uniform(1, 2, (4, T - 4, 3))], axis=1) for x in xs]
        y, other = layer.forward(*xs, mode=xn.TRAIN), layer.forward(*others, mode=xn.TRAIN)
        assert y.shape[1] == T, layer
        np.testing.assert_array_equal(y[:, :4], other[:, :4], err_msg=repr(layer))
        dy = rng.standard_normal(y.shape)
        dy[:, 4:] = 0
        dxs = layer.backward(dy)
        for dx in dxs if isinstance(dxs, tuple) else (dxs,):
            assert not dx[:, 4:].any(), layer
        checked.append(type(layer).__name__)
    assert len(checked) > 60 and {"Linear", "Conv1d", "LayerNorm", "Concat"} <= {*checked}
    assert checked.count("Conv1d") >= 2


# --- refusals -------------------------------------------------------------------------------------

@pytest.mark.parametrize("layer", [
    xn.Conv1d(2, 3, padding="half"), xn.Conv1d(2, 1, stride=2), xn.Conv1d(2, 1, padding=1),
    xn.Conv1d(2, 3, padding=(2, 0), dilation=2), xn.Conv1d(2, 3, padding=(0, 2)),
    xn.MaxPool1d(2), xn.AvgPool1d(2), xn.Upsample1d(2), xn.ZeroPad1d(1), xn.InstanceNorm1d(),
    xn.BatchNorm1d(), xn.Flatten(), xn.Reshape((2, 9)), xn.Permute((1, 0)), xn.LayerNorm(),
    xn.LayerNorm(axis=1), xn.Softmax(axis=1), xn.Slice(0, 3, axis=1), xn.L2Norm(axis=None),
    xn.GroupNorm(3), Mean()], ids=repr)
def test_layers_whose_steps_may_read_padding_are_refused(layer):
    with pytest.raises(ValueError) as error:
        xn.Sequential([layer], input_shape=(3, T), lengths=True, backend="numpy")
    assert str(error.value) == (
        f"{layer.who}: expected samples of one length, because its steps may read padding; "
        "causal convolutions and recurrent layers, for example, take lengths, and a class of your "
        'own may say steps = "causal". Received: <Input: a value of shape (3, 6) per sample> with '
        "lengths.")


def test_a_linear_layer_of_tokens_is_refused():
    with pytest.raises(ValueError, match="Linear 'linear1': expected samples of one length"):
        xn.Sequential([xn.Linear(6)], input_shape=(T,), lengths=True)


def other():
    return xn.Input((3, T), lengths=True, name="other")


def use_twice():
    gru = xn.GRU(3)
    gru(xn.Input((3, T)))
    gru(other())


@pytest.mark.parametrize("build, text", [
    (lambda: xn.Add()(xn.Input((3, T), lengths=True), other()),
     r"Add 'add1': expected inputs with the same steps\. Received: \[.*\] with lengths of "
     "different inputs"),
    (lambda: xn.MultiHeadAttention(1)(xn.Input((3, T)), xn.Input((3, T), lengths=True), other()),
     "MultiHeadAttention 'attention1': expected lengths of the first input, and the same ones of"),
    (lambda: xn.GRU(T)(xn.Input((3, T)), other()), "expected a sequence, alone or with 1 first"),
    (use_twice, "GRU 'gru1': expected a sequence without lengths, as in its first use"),
    (lambda: xn.Input((3, 4, 5), lengths=True), r"Input: expected shape to be \(features, steps\)"),
    (lambda: xn.Input((3, 1 << 25), lengths=True), "at most 2.24 steps"),
    (lambda: xn.Input((3, 4), lengths=1), "Input: expected lengths to be True or False"),
    (lambda: tagger()(xn.Input((3, T))), "Network: expected lengths exactly where the part's own"),
    (lambda: xn.Sequential([xn.Linear(2)], input_shape=(3, T))(other()), "expected lengths exactl"),
    (lambda: xn.ChunkPredictor(classifier()), "expected a network whose Input has no lengths"),
    (lambda: xn.Ensemble([tagger()]), "Ensemble: expected networks whose output has no lengths"),
], ids=range(11))
def test_graphs_that_are_refused(build, text):
    with pytest.raises(ValueError, match=text):
        build()


X = padded(ragged(3))


@pytest.mark.parametrize("arguments, error, text", [
    ({"x": X}, ValueError, "expected lengths, the number of steps of each sample, or a list of "
     r"arrays, for input\. Received: ndarray and lengths=None\."),
    ({"x": X, "lengths": [6, 0, 4, 2]}, ValueError, "expected lengths from 1 to 6. Received: "
     "lengths from 0 to 6"),
    ({"x": X, "lengths": [6, 7, 4, 2]}, ValueError, "Received: lengths from 2 to 7"),
    ({"x": X, "lengths": [6, 1, 4]}, ValueError, r"each of 4 samples. Received: shape \(3,\)"),
    ({"x": X, "lengths": LENGTHS[:, None]}, ValueError, r"Received: shape \(4, 1\)"),
    ({"x": X, "lengths": LENGTHS * 1.0}, TypeError, "expected lengths to be integers. Received"),
    ({"x": X, "lengths": LENGTHS > 1}, TypeError, "expected lengths to be integers. Received"),
    ({"x": X, "lengths": 3}, ValueError, r"Received: shape \(\)"),
    ({"x": X, "lengths": "all"}, TypeError, "lengths: expected real numbers"),
    ({"x": [X[0, :, :4], X[0, :, :0]]}, ValueError, r"expected a list of arrays of shape \(3, "
     r"steps\), with 1 to 6 steps\. Received: shape \(3, 0\) of sample 1\."),
    ({"x": [np.ones((3, 7))]}, ValueError, r"Received: shape \(3, 7\) of sample 0"),
    ({"x": [np.ones((2, 4))]}, ValueError, r"Received: shape \(2, 4\) of sample 0"),
    ({"x": [np.ones(4)]}, ValueError, r"Received: shape \(4,\) of sample 0"),
    ({"x": [["a"] * 3]}, TypeError, "input: expected real numbers"),
    ({"x": []}, ValueError, "expected at least one sample"),
    ({"x": ragged(3), "lengths": LENGTHS}, ValueError, r"expected samples of shape \(3, 6\); pad "
     r"them, or pass the list without lengths\. Received: a list of arrays of shapes \(3, 1\) and "
     r"\(3, 2\) and others\."),
    ({"x": xn.data.Dataset(X, [0, 1, 0, 1])}, ValueError, "for a network with lengths. Received: "
     "a data set"),
], ids=range(17))
def test_data_that_are_refused(arguments, error, text):
    net = classifier()
    for method in (net.predict, net.__call__):
        if method == net.predict or "Dataset" not in repr(type(arguments["x"])):
            with pytest.raises(error, match=text):
                method(**arguments)
    assert not net.counters.any()


@pytest.mark.parametrize("layer, shape, shapes, remedy", [
    (xn.LSTM(2), (3, 6), [(3, 6), (3, 5)],
     "; an Input(..., lengths=True) takes sequences of different lengths"),
    (xn.Embedding(2, 2), (6,), [(5,), (6,)],
     "; an Input(..., lengths=True) takes sequences of different lengths"),
    (xn.Conv2d(2, 1), (1, 4, 4), [(1, 4, 4), (1, 4, 5)], ""),
    (xn.LSTM(2), (3, 6), [(3, 6), (2, 6)], ""),
])
def test_a_list_of_arrays_that_differ_in_shape_is_refused(layer, shape, shapes, remedy):
    net = xn.Sequential([type(layer)(**layer.config())], input_shape=shape, backend="numpy")
    first, second = sorted(shapes)
    with pytest.raises(ValueError, match=re.escape(
            f"Network: input: expected samples of shape {shape}{remedy}. Received: a list of "
            f"arrays of shapes {first} and {second}.")):
        net.predict([np.zeros(shape) for shape in shapes])


def test_lengths_without_an_input_that_has_them_are_refused():
    x, y = blobs()
    net = xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy")
    n = np.ones(len(x), int)
    for call in (lambda: net.predict(x, lengths=n),
                 lambda: net.evaluate(x, y, lengths=n, loss="cross_entropy"),
                 lambda: net.fit(x, y, lengths=n, loss="cross_entropy", verbose=False),
                 lambda: net.forward(x.T, lengths=n),
                 lambda: net.predict(xn.data.Dataset(x, y), lengths=n)):
        with pytest.raises(ValueError, match=r"expected lengths for a network with an Input\(.*"
                                             r"lengths=True\) only\. Received: lengths=an array"):
            call()
    with pytest.raises(ValueError, match=r"Network: expected lengths \(1, N\), for input"):
        classifier().forward(np.moveaxis(X, 0, -1))
