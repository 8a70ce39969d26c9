"""Recurrent layers and attention against PyTorch's, with the same weights: outputs, final states
and all gradients, in float32."""

import numpy as np
import pytest

import xpnet as xn
from xpnet.io import gates

D, H, T, N = 5, 6, 7, 4
LENGTHS = [7, 3, 1, 5]
KINDS = {"tanh": "rnn", "relu": "rnn", "lstm": "lstm", "gru": "gru"}


@pytest.fixture
def torch():
    torch = pytest.importorskip(
        "torch", reason='PyTorch is not installed: pip install "xpnet[bench]"')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def relative_error(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def theirs(torch, name, layers, bidirectional):
    options = {"num_layers": layers, "bidirectional": bidirectional}
    torch.manual_seed(0)
    if KINDS[name] == "rnn":
        return torch.nn.RNN(D, H, nonlinearity=name, **options)
    return (torch.nn.LSTM if name == "lstm" else torch.nn.GRU)(D, H, **options)


def ours(name, **options):
    if KINDS[name] == "rnn":
        return xn.SimpleRNN(H, activation=name, **options)
    return (xn.LSTM if name == "lstm" else xn.GRU)(H, **options)


def by_scan(layers, bidirectional):
    """Our prefix of the names of the arrays of each layer and direction, and PyTorch's suffix."""
    return [(f"{way}{level + 1}.", f"_l{level}{'_reverse' * (way == 'reverse')}")
            for level in range(layers) for way in ("forward", "reverse")[:1 + bidirectional]]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_recurrent_layers(torch, name, layers, bidirectional, ragged):
    kind, scans = KINDS[name], layers * (1 + bidirectional)
    model = theirs(torch, name, layers, bidirectional)
    layer = ours(name, layers=layers, bidirectional=bidirectional, return_sequences=True,
                 return_state=True, lengths=ragged)
    states = [normal(scans, N, H, seed=k) for k in range(2 if name == "lstm" else 1)]
    x, lengths = normal(T, N, D), np.array(LENGTHS)
    state_shape = (H,) if scans == 1 else (scans, H)
    arrays = [x.transpose(2, 0, 1), *([lengths[None].astype(np.float32)] if ragged else []),
              *(s.transpose(0, 2, 1).reshape(*state_shape, N) for s in states)]
    arrays = [np.ascontiguousarray(a) for a in arrays]
    layer.initialize(*(a.shape[:-1] for a in arrays))
    weights = {key: p.detach().numpy() for key, p in model.named_parameters()}
    parameters = {p.name: p for p in layer.parameters}
    for ours_of, theirs_of in by_scan(layers, bidirectional):
        arrays_of_scan = gates.from_pytorch(kind, *(weights[key + theirs_of] for key in (
            "weight_ih", "weight_hh", "bias_ih", "bias_hh")))
        for key, values in arrays_of_scan.items():
            parameters[ours_of + key].data[...] = values

    out = layer.forward(*arrays, mode=xn.TRAIN)
    y, *last = layer.unpacked(out)
    dout = normal(*out.shape, seed=3)
    dx, *dinitial = layer.backward(dout)

    leaves = [torch.tensor(a, requires_grad=True) for a in (x, *states)]
    first = tuple(leaves[1:]) if name == "lstm" else leaves[1]
    if ragged:
        packed = torch.nn.utils.rnn.pack_padded_sequence(leaves[0], torch.tensor(lengths),
                                                         enforce_sorted=False)
        their_packed, their_last = model(packed, first)
        their_y, _ = torch.nn.utils.rnn.pad_packed_sequence(their_packed, total_length=T)
    else:
        their_y, their_last = model(leaves[0], first)
    their_last = their_last if name == "lstm" else (their_last,)
    as_theirs = [y.transpose(1, 2, 0), *(a.reshape(scans, H, N).transpose(0, 2, 1) for a in last)]
    for a, b in zip(as_theirs, (their_y, *their_last), strict=True):
        assert relative_error(a, b.detach().numpy()) < 1e-5

    dy, *dlast = layer.unpacked(dout)
    dlast = [a.reshape(scans, H, N).transpose(0, 2, 1) for a in dlast]
    torch.autograd.backward((their_y, *their_last), [
        torch.tensor(np.ascontiguousarray(a)) for a in (dy.transpose(1, 2, 0), *dlast)])
    dinitial = dinitial[ragged:]
    found = [dx.transpose(1, 2, 0), *(a.reshape(scans, H, N).transpose(0, 2, 1) for a in dinitial)]
    for a, leaf in zip(found, leaves, strict=True):
        assert relative_error(a, leaf.grad.numpy()) < 1e-4
    gradients = {key: p.grad.numpy() for key, p in model.named_parameters()}
    for ours_of, theirs_of in by_scan(layers, bidirectional):
        dW, dU, db_ih, db_hh = (gradients[key + theirs_of] for key in (
            "weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        right = {"W": dW, "U": dU, "b": db_ih} | ({"c": db_hh[2 * H:]} if name == "gru" else {})
        for key, values in right.items():
            assert relative_error(parameters[ours_of + key].grad, values) < 1e-4


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("memory", [False, True])
def test_attention(torch, causal, lengths, memory):
    features, heads, S = 6, 3, T
    torch.manual_seed(0)
    model = torch.nn.MultiheadAttention(features, heads, kdim=D if memory else None,
                                        vdim=D if memory else None)
    layer = xn.MultiHeadAttention(heads, mask="causal" if causal else None, lengths=lengths)
    x, z = normal(T, N, features), normal(S, N, D)
    inputs = [x, z] if memory else [x]
    arrays = [np.ascontiguousarray(a.transpose(2, 0, 1)) for a in inputs]
    if lengths:
        arrays.append(np.array([LENGTHS], np.float32))
    layer.initialize(*(a.shape[:-1] for a in arrays))
    rows = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    weights = dict(model.named_parameters())
    parameters = {p.name: p for p in layer.parameters}
    with torch.no_grad():
        for p in weights.values():
            p += 0.1 * torch.randn(p.shape)
        in_bias = weights["in_proj_bias"]
        matrices = ([weights[key] for key in rows] if memory
                    else weights["in_proj_weight"].split(features))
        for name, W, b in zip(("query", "key", "value"), matrices, in_bias.split(features),
                              strict=True):
            parameters[f"{name}.W"].data[...] = W.numpy()
            if name != "key":                   # this bias changes nothing
                parameters[f"{name}.b"].data[...] = b.numpy()
        parameters["output.W"].data[...] = weights["out_proj.weight"].numpy()
        parameters["output.b"].data[...] = weights["out_proj.bias"].numpy()
    y, dy = layer.forward(*arrays, mode=xn.TRAIN), normal(features, T, N, seed=3)
    dxs = layer.backward(dy)
    dxs = dxs if isinstance(dxs, tuple) else (dxs,)

    leaves = [torch.tensor(a, requires_grad=True) for a in inputs]
    padding = torch.arange(S)[None] >= torch.tensor(LENGTHS)[:, None]
    their_y, _ = model(leaves[0], leaves[-1], leaves[-1],
                       key_padding_mask=padding if lengths else None,
                       attn_mask=~torch.tril(torch.ones(T, S, dtype=torch.bool)) if causal
                       else None)
    if lengths and not memory:                  # ours is 0 at the padding of the queries
        their_y = their_y * ~padding.T[:, :, None]
    assert relative_error(y.transpose(1, 2, 0), their_y.detach().numpy()) < 1e-5
    their_y.backward(torch.tensor(np.ascontiguousarray(dy.transpose(1, 2, 0))))
    for dx, leaf in zip(dxs[:len(leaves)], leaves, strict=True):
        assert relative_error(dx.transpose(1, 2, 0), leaf.grad.numpy()) < 1e-4
        if lengths and dx is dxs[len(leaves) - 1]:
            assert not dx.transpose(2, 1, 0)[padding.numpy()].any()
    matrices = ([weights[key].grad for key in rows] if memory
                else weights["in_proj_weight"].grad.split(features))
    right = dict(zip(("query.W", "key.W", "value.W"), matrices, strict=True))
    right |= {"output.W": weights["out_proj.weight"].grad,
              "output.b": weights["out_proj.bias"].grad}
    for name, grad in right.items():
        assert relative_error(parameters[name].grad, grad.numpy()) < 1e-4
