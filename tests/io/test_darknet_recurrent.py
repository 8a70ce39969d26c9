"""Sequences: the sections [rnn], [lstm] and [gru], and where their arrays are in weights files."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from darknet_reference import Reference, arrays, largest_error, randomized, saved

import xpnet as xn
from xpnet.io import darknet
from xpnet.io.darknet.weights import Header

NET = "[net]\ninputs=5\ntime_steps=7\n"
LSTM = NET + "[lstm]\noutput=4\n"
GRU = NET + "[gru]\noutput=4\ntanh=1\n"
CASES = {
    "lstm": LSTM, "gru": GRU,
    "both": LSTM + "[connected]\noutput=6\nactivation=leaky\n[gru]\noutput=3\ntanh=1\n[route]\n"
                   "layers=-1,0\n[dropout]\nprobability=.5\n[connected]\noutput=4\n"
                   "batch_normalize=1\nactivation=linear\n[softmax]\n[cost]\ntype=sse\n",
    "one-step": "[net]\ninputs=3\n[lstm]\noutput=3\n",
    "rnn": NET + "[rnn]\nhidden=4\noutput=3\nactivation=leaky\n",
    "rnn-normalized": NET + "[rnn]\nhidden=4\noutput=3\nactivation=leaky\nbatch_normalize=1\n"
                            "[rnn]\nhidden=2\noutput=2\nlogistic=1\nshortcut=1\n[softmax]\n",
    "rnn-loggy": NET + "[rnn]\nhidden=3\noutput=4\nactivation=tanh\nlogistic=2\n",
    "lstm-normalized": LSTM + "batch_normalize=1\n[connected]\noutput=3\n",
    "gru-normalized": GRU + "batch_normalize=1\n",
    "gru-with-sigmoid": NET + "[gru]\noutput=4\n",
    "one-step-rnn": "[net]\ninputs=3\n[rnn]\noutput=3\nhidden=2\n",
}


def network(text: str, **options: object) -> xn.Network:
    return darknet.network_from_text(text, "a.cfg", backend="numpy", **options)     # type: ignore


def filled(content: bytes, version: tuple[int, int, int], seed: int = 0) -> bytes:
    """A weights file of this size with other values, also for both biases of each gate."""
    count = (len(content) - 20) // 4
    values = np.random.default_rng(seed).uniform(0.1, 0.9, count).astype("<f4")
    return struct.pack("<3iQ", *version, 0) + values.tobytes()


@pytest.mark.parametrize("name", CASES)
def test_sequences_against_loops(name, tmp_path):
    """A file with random values, read as the first Darknet reads it."""
    text, content = saved(randomized(network(CASES[name])), tmp_path)
    content = filled(content, (0, 2, 0))
    (tmp_path / "new.weights").write_bytes(content)
    net = xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "new.weights", backend="numpy")
    x = np.random.default_rng(1).normal(0, 1, net.input.shape)
    expected = Reference(text, content).outputs(x)[-1]
    assert largest_error(net, [expected], x) < 1e-5 and expected.std() > 1e-3


@pytest.mark.parametrize("name", ["lstm", "lstm-normalized", "gru-with-sigmoid"])
def test_forks_have_another_order(name, tmp_path):
    """The version says which: the same bytes are another network."""
    text, content = saved(network(CASES[name]), tmp_path)
    found = []
    for version in ((0, 2, 0), (0, 2, 5)):
        (tmp_path / "a.weights").write_bytes(filled(content, version))
        net = xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "a.weights", backend="numpy")
        x = np.random.default_rng(1).normal(0, 1, (5, 7))
        expected = Reference(text, filled(content, version)).outputs(x)[-1]
        assert largest_error(net, [expected], x) < 1e-5
        assert saved(net, tmp_path)[1][:12] == struct.pack("<3i", *version)     # written as read
        again = xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "net.weights", backend="numpy")
        assert arrays(again) == arrays(net)
        found.append(expected)
    assert np.abs(found[0] - found[1]).max() > 0.003


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name, tmp_path):
    """The bytes are equal once the second bias of each gate is 0."""
    net = randomized(network(CASES[name]))
    text, content = saved(net, tmp_path)
    back = xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "net.weights", backend="numpy")
    assert arrays(back) == arrays(net) and saved(back, tmp_path) == (text, content)


def test_the_size_of_a_file(tmp_path):
    net = network(LSTM)
    _, content = saved(net, tmp_path)
    assert len(content) == 20 + 4 * 4 * (4 + 4 * 4 + 4 + 4 * 5)
    (tmp_path / "a.weights").write_bytes(content[:-4])
    with pytest.raises(ValueError, match=r"4 bytes too short; it ends 4 bytes before the end of "
                                         r"the weights of ug of layer 0, \[lstm\]"):
        xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "a.weights", backend="numpy")


@pytest.mark.parametrize("name", ["both", "rnn-normalized"])
def test_a_sequence_net_is_trained(name):
    net = network(CASES[name])
    x = np.random.default_rng(0).normal(size=(6, 5, 7))
    labels = np.random.default_rng(1).integers(0, net.output.shape[0], (6, 7))
    history = net.fit(x, labels, loss="cross_entropy", optimizer=xn.Adam(0.1), epochs=40,
                      batch_size=6, verbose=False)
    assert history["loss"][-1] < 0.95 * history["loss"][0]


def test_each_step_has_its_own_mean_in_training():
    """And moves the running mean of the layer that the steps share: at 3 steps with the means m1,
    m2 and m3 of W x by 0.01 each."""
    net = network("[net]\ninputs=2\ntime_steps=3\n[rnn]\nhidden=2\noutput=1\nbatch_normalize=1\n")
    x = np.random.default_rng(0).normal(size=(8, 2, 3)).astype(np.float32)
    W, mean = net.arrays["input0.W"].data.copy(), net.arrays["input_bn0.mean"].data.astype(float)
    net.fit(x, np.zeros((8, 1, 3)), loss="mean_squared_error", optimizer=xn.SGD(1e-9), epochs=1,
            batch_size=8, verbose=False)
    for t in range(3):
        mean = 0.99 * mean + 0.01 * (x[:, :, t] @ W.T).mean(axis=0)
    np.testing.assert_allclose(net.arrays["input_bn0.mean"].data, mean, rtol=1e-5, atol=1e-7)


def test_the_number_of_steps_is_an_argument():
    net = network(GRU, input_size=3)
    assert net.input.shape == (5, 3) and net.output.shape == (4, 3)
    assert "time_steps=3" in net.darknet.config.text()


@pytest.mark.parametrize("version", [(0, 1, 0), (0, 2, 5), (0, 3, 0)])
def test_files_whose_order_is_not_known_are_refused(version, tmp_path):
    saved(network(GRU), tmp_path)
    content = (tmp_path / "net.weights").read_bytes()
    (tmp_path / "a.weights").write_bytes(struct.pack("<3i", *version) + content[12:])
    said = ".".join(map(str, version))
    with pytest.raises(ValueError, match=r"load_darknet: expected a weights file of version 0.2.0, "
                                         r"whose order of the arrays of \[gru\] is known. "
                                         rf"Received: version {said} in .*a.weights"):
        xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "a.weights", backend="numpy")


def test_a_network_of_another_version_is_refused_before_anything_is_written(tmp_path):
    """As read with `cutoff` before the [gru]."""
    net = network(GRU)
    net.darknet = replace(net.darknet, header=Header((0, 1, 0)))
    with pytest.raises(ValueError, match=r"^save_darknet: expected .* of version 0.2.0"):
        xn.io.save_darknet(net, tmp_path / "a.cfg", tmp_path / "a.weights")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("text", "expected"), [
    (NET + "[gru]\ntanh=x\n", "tanh=x in .gru. of layer 0"),
    (LSTM + "hidden=3\n", "Received: hidden=3 in .lstm. of layer 0, a.cfg, line 6"),
    ("[net]\nheight=4\nwidth=4\nchannels=2\n[lstm]\noutput=3\n",
     r"expected a sequence before it, .* Received: shape \(2, 4, 4\) in .lstm. of layer 0"),
    (LSTM + "[convolutional]\nfilters=2\n", "expected an image or a vector before it. Received: a "
                                            "sequence of 7 vectors in .convolutional. of layer 1"),
    (LSTM + "[avgpool]\n", "a sequence of 7 vectors in .avgpool. of layer 1"),
    (LSTM + "[softmax]\ngroups=2\n", "expected groups=1 for a sequence. Received: groups=2"),
    (NET + "[connected]\n", "expected time_steps=1"),
    (NET + "[crnn]\noutput=3\n", ".crnn. is refused because no layer here reads a sequence of im"),
    (NET.replace("7", "2000") + "[rnn]\n", "expected time_steps of at most 1024, because the graph "
                                           "has nodes for each step. Received: time_steps=2000 in "
                                           ".rnn. of layer 0, a.cfg, line 4"),
    (NET.replace("7", "0") + "[lstm]\n", "time_steps to be an int, 1 or larger. Received: time_"),
])
def test_what_is_refused(text, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        network(text)
    assert "\n" not in str(caught.value)
