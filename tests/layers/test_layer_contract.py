"""The contract of every layer, over the table in layer_cases.py, on every backend."""

import numpy as np
import pytest
from layer_cases import CASES, LayerCase
from oracles import assert_close

import xpnet as xn
import xpnet.layers
from xpnet import PREDICT, SAMPLE, TRAIN
from xpnet.io.architecture import as_json
from xpnet.layer import Layer

FLOATS = ("float32", "float64")
MODES = (PREDICT, TRAIN, SAMPLE)
# layers whose output contains constants
WITH_ZEROS = ("MaxUnpool2d", "PadChannels", "ZeroPad1d", "ZeroPad2d", "ConstantPad1d",
              "ConstantPad2d")

every_layer = pytest.mark.parametrize("case", CASES, ids=str)


def gradient(shape, dtype, seed=3):
    """A dY with the shape of this output."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def as_tuple(dxs):
    return dxs if isinstance(dxs, tuple) else (dxs,)


def lock(a):
    """Makes the array read-only on the CPU, and returns it."""
    if isinstance(a, np.ndarray):
        a.flags.writeable = False
    return a


def copies(layer: Layer, arrays):
    return [layer.backend.to_numpy(a).copy() for a in arrays]


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)


def run(layer: Layer, inputs, dy, **options):
    """One training pass on host arrays: output, input gradients and parameter gradients, all on the
    host."""
    y = layer.forward(*map(layer.backend.asarray, inputs), mode=TRAIN)
    dxs = as_tuple(layer.backward(layer.backend.asarray(dy), **options))
    return copies(layer, [y, *dxs]), copies(layer, [p.grad for p in layer.parameters])


def test_the_table_has_every_layer():
    assert {type(case.make()).__name__ for case in CASES} == set(xpnet.layers.__all__)


@every_layer
def test_types_and_shapes(case: LayerCase, backend):
    """float32 stays float32, float64 stays float64: outputs, gradients, parameters and running
    statistics."""
    for dtype in FLOATS:
        layer, inputs = case.layer(backend, dtype), case.inputs(dtype)
        for mode in MODES:
            y = layer.forward(*map(backend.asarray, inputs), mode=mode)
            assert (y.dtype, y.shape) == (np.dtype(dtype), (*layer.out_shape, 3))
        dxs = as_tuple(layer.backward(backend.asarray(gradient(y.shape, dtype))))
        assert [(dx.dtype, dx.shape) for dx in dxs] == [(x.dtype, x.shape) for x in inputs]
        for p in layer.parameters + layer.states:
            assert (p.data.dtype, p.data.shape) == (np.dtype(dtype), p.shape)
        for p in layer.parameters:
            assert (p.grad.dtype, p.grad.shape) == (np.dtype(dtype), p.shape)


@every_layer
def test_inputs_are_only_read(case: LayerCase, backend):
    layer = case.layer(backend, "float32")
    inputs = case.inputs("float32")
    xs = [lock(backend.asarray(x.copy())) for x in inputs]
    for mode in MODES:
        y = layer.forward(*xs, mode=mode)
    dy = gradient(y.shape, "float32")
    on_backend = lock(backend.asarray(dy.copy()))
    layer.backward(on_backend)
    assert_same(copies(layer, [*xs, on_backend]), [*inputs, dy])


@every_layer
def test_returned_arrays_do_not_change(case: LayerCase, backend):
    """Neither backward nor a later pass changes an output or a gradient that the layer returned."""
    layer = case.layer(backend, "float32")
    y = layer.forward(*map(backend.asarray, case.inputs("float32")), mode=TRAIN)
    before = copies(layer, [y])
    dxs = as_tuple(layer.backward(backend.asarray(gradient(y.shape, "float32"))))
    before += copies(layer, dxs)
    run(layer, case.inputs("float32", seed=7), gradient(y.shape, "float32", seed=8))
    layer.forward(*map(backend.asarray, case.inputs("float32", seed=9)))
    assert_same(copies(layer, [y, *dxs]), before)


@every_layer
def test_arrays_need_not_be_contiguous(case: LayerCase, backend):
    layer = case.layer(backend, "float64")
    inputs = case.inputs("float64")
    dy = gradient((*layer.out_shape, 3), "float64")
    outputs, grads = run(layer, inputs, dy)

    def strided(a):  # every second sample of an array with the axes in the opposite order in memory
        wide = np.repeat(a, 2, axis=-1)
        return backend.asarray(wide.T.copy()).T[..., ::2]

    y = layer.forward(*map(strided, inputs), mode=TRAIN)
    assert not strided(inputs[0]).flags.c_contiguous
    dxs = as_tuple(layer.backward(strided(dy)))
    for actual, expected in zip(copies(layer, [y, *dxs, *(p.grad for p in layer.parameters)]),
                                outputs + grads, strict=True):
        assert_close(actual, expected)


@every_layer
def test_a_batch_of_one(case: LayerCase, backend):
    layer = case.layer(backend, "float64")
    inputs = case.inputs("float64")
    first = [x[..., :1].copy() for x in inputs]
    y = backend.to_numpy(layer.forward(*map(backend.asarray, inputs)))
    assert_close(backend.to_numpy(layer.forward(*map(backend.asarray, first))), y[..., :1])
    if layer.smallest_batch > 1:
        return                                  # training needs more samples, and the error says so
    (_, *dxs), _ = run(layer, first, gradient((*layer.out_shape, 1), "float64"))
    assert [dx.shape for dx in dxs] == [x.shape for x in first]


@every_layer
def test_a_second_pass_gives_the_same(case: LayerCase, backend):
    inputs = case.inputs("float32")
    dy = gradient((*case.layer(backend, "float32").out_shape, 3), "float32")
    one, two = (run(case.layer(backend, "float32"), inputs, dy) for _ in range(2))
    assert_same(one[0] + one[1], two[0] + two[1])


@every_layer
def test_backward_needs_one_forward_each(case: LayerCase, backend):
    """And drops what the layer kept for it."""
    layer = case.layer(backend, "float32")
    dy = backend.asarray(gradient((*layer.out_shape, 3), "float32"))
    expected = (rf"{type(layer).__name__} '\w+': expected a forward pass in TRAIN mode before each "
                rf"backward pass\. Received: none")
    with pytest.raises(RuntimeError, match=expected):
        layer.backward(dy)
    for mode in (PREDICT, SAMPLE):              # layers that keep nothing
        layer.forward(*map(backend.asarray, case.inputs("float32")), mode=mode)
        with pytest.raises(RuntimeError, match=expected):
            layer.backward(dy)
    run(layer, case.inputs("float32"), gradient((*layer.out_shape, 3), "float32"))
    assert layer.kept is None
    with pytest.raises(RuntimeError, match=expected):
        layer.backward(dy)


@every_layer
def test_a_prediction_between_forward_and_backward_changes_nothing(case: LayerCase, backend):
    inputs = case.inputs("float64")
    dy = gradient((*case.layer(backend, "float64").out_shape, 3), "float64")
    outputs, grads = run(case.layer(backend, "float64"), inputs, dy)
    layer = case.layer(backend, "float64")
    y = layer.forward(*map(backend.asarray, inputs), mode=TRAIN)
    layer.forward(*map(backend.asarray, case.inputs("float64", batch=2, seed=5)))
    dxs = as_tuple(layer.backward(backend.asarray(dy)))
    assert_same(copies(layer, [y, *dxs, *(p.grad for p in layer.parameters)]), outputs + grads)


@every_layer
def test_accumulate_adds_to_the_gradient(case: LayerCase, backend):
    layer = case.layer(backend, "float64")
    inputs, dy = case.inputs("float64"), gradient((*layer.out_shape, 3), "float64")
    for p in layer.parameters:
        p.grad.fill(np.nan)  # without accumulate, earlier contents are overwritten
    outputs, grads = run(layer, inputs, dy)
    assert all(np.isfinite(g).all() for g in grads)
    again, summed = run(layer, inputs, -3 * dy, accumulate=True)
    for actual, expected in zip(summed, grads, strict=True):
        assert_close(actual, -2 * expected)
    for actual, expected in zip(again[1:], outputs[1:], strict=True):
        assert_close(actual, -3 * expected)     # the input gradient is never accumulated


@every_layer
def test_without_needs_dx_the_parameters_gradients_are_the_same(case: LayerCase, backend):
    layer = case.layer(backend, "float64")
    inputs, dy = case.inputs("float64"), gradient((*layer.out_shape, 3), "float64")
    (_, *dxs), grads = run(layer, inputs, dy)
    layer.needs_dx = False
    layer.forward(*map(backend.asarray, inputs), mode=TRAIN)
    found = as_tuple(layer.backward(backend.asarray(dy)))
    assert_same(copies(layer, [p.grad for p in layer.parameters]), grads)
    for dx, right in zip(found, dxs, strict=True):
        if dx is not None:                      # a layer may return None, but not a wrong gradient
            assert_same(copies(layer, [dx]), [right])


@pytest.mark.parametrize("case",
                         [c for c in CASES
                          if c.label.split("-")[0] in ("Conv2d", "TableConv2d", "Linear")], ids=str)
def test_layers_with_weights_do_not_compute_an_input_gradient_that_is_not_needed(
        case: LayerCase, backend):
    layer = case.layer(backend, "float32")
    layer.needs_dx = False
    layer.forward(*map(backend.asarray, case.inputs("float32")), mode=TRAIN)
    assert layer.backward(backend.asarray(gradient((*layer.out_shape, 3), "float32"))) is None


@pytest.mark.parametrize("case", [c for c in CASES if "Embedding" not in c.label
                                  and "lengths" not in c.label], ids=str)
def test_a_sample_of_nans_gives_nans(case: LayerCase, backend):
    """The other samples of the batch are not affected. (Embedding refuses NaN, and so do numbers of
    steps.)"""
    layer = case.layer(backend, "float32")
    inputs = case.inputs("float32")
    clean = backend.to_numpy(layer.forward(*map(backend.asarray, inputs)))
    for x in inputs:
        x[..., 1] = np.nan
    y = backend.to_numpy(layer.forward(*map(backend.asarray, inputs)))
    assert (np.any if type(layer).__name__ in WITH_ZEROS else np.all)(np.isnan(y[..., 1]))
    assert_close(y[..., [0, 2]], clean[..., [0, 2]])


@every_layer
def test_a_layer_can_be_rebuilt_from_its_config(case: LayerCase, backend):
    layer = case.layer(backend, "float32")
    rebuilt = LayerCase("rebuilt", lambda: type(layer)(**layer.config()),
                        case.in_shapes).layer(backend, "float32")
    assert as_json(rebuilt.config()) == as_json(layer.config())
    inputs, dy = case.inputs("float32"), gradient((*layer.out_shape, 3), "float32")
    (one, one_grads), (two, two_grads) = run(layer, inputs, dy), run(rebuilt, inputs, dy)
    assert_same(one + one_grads, two + two_grads)


@every_layer
def test_an_unknown_argument_and_a_second_initialization_raise(case: LayerCase):
    layer = case.layer(xpnet.get_backend("numpy"), "float32")
    with pytest.raises(TypeError, match="colour"):
        type(layer)(**layer.config(), colour="red")
    with pytest.raises(ValueError, match="expected a layer that is not in use"):
        layer.initialize(*case.in_shapes)
    with pytest.raises(ValueError, match="expected inputs of the shapes of its first use"):
        layer.connect(*case.in_shapes, (1,))


@every_layer
def test_update_moves_the_parameters_against_their_gradients(case: LayerCase, backend):
    layer = case.layer(backend, "float64")
    _, grads = run(layer, case.inputs("float64"), gradient((*layer.out_shape, 3), "float64"))
    before = copies(layer, [p.data for p in layer.parameters])
    layer.update(xpnet.SGD(0.5))
    for p, w, g in zip(layer.parameters, before, grads, strict=True):
        assert_close(backend.to_numpy(p.data), w - 0.5 * g)


# --- layers outside a network ---------------------------------------------------------------------

@pytest.mark.parametrize("x, received", [
    (np.zeros((2, 3, 8, 8), np.float32), r"\(2, 3, 8, 8\) of float32"),           # batch first
    # another number of channels
    (np.zeros((4, 8, 8, 2), np.float32), r"\(4, 8, 8, 2\) of float32"),
    (np.zeros((3, 8, 8), np.float32), r"\(3, 8, 8\) of float32"),
    (np.zeros((3, 8, 8, 2)), r"\(3, 8, 8, 2\) of float64"),
    ([[1.0]], "list"),
])
def test_a_layer_outside_a_network_refuses_arrays_of_other_shapes(x, received):
    layer = xn.Conv2d(4, 3, name="c").initialize((3, 8, 8))
    with pytest.raises(ValueError, match=rf"Conv2d 'c': expected batch-last arrays, \(3, 8, 8, N\) "
                                         rf"of float32. Received: {received}"):
        layer.forward(x)


def test_a_layer_outside_a_network_refuses_wrong_gradients_and_numbers_of_inputs():
    layer = xn.Conv2d(4, 3, name="c").initialize((3, 8, 8))
    layer.forward(np.zeros((3, 8, 8, 2), np.float32), mode=xn.TRAIN)
    with pytest.raises(ValueError,
                       match=r"Conv2d 'c': expected batch-last arrays, \(4, 6, 6, N\) of float32"):
        layer.backward(np.zeros((4, 6, 5, 2), np.float32))
    add = xn.Add(name="sum").initialize((3,), (3,))
    with pytest.raises(ValueError, match=r"Add 'sum': expected batch-last arrays, .* and .* "
                                         r"Received: \(3, 2\) of float32"):
        add.forward(np.zeros((3, 2), np.float32))


def test_a_dropout_outside_a_network_drops_other_elements_after_an_update():
    layer = xn.Dropout(0.5).initialize((50,))
    x = np.ones((50, 4), np.float32)
    first, again = (layer.forward(x, mode=xn.TRAIN) for _ in range(2))
    layer.update(xn.SGD(0.1))
    assert (np.array_equal(first, again)
            and not np.array_equal(first, layer.forward(x, mode=xn.TRAIN)))
