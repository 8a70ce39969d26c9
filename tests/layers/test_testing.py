"""check_gradients: it finds a wrong gradient, and returns the error of a right one."""

import numpy as np
import pytest

import xpnet as xn
from xpnet.layer import PREDICT, Layer
from xpnet.testing import check_gradients


class Cube(Layer):
    """Y = w X^3 + b with one weight and one bias per feature; dX = 3 w X^2 dY. `wrong` names a
    mistake that it makes."""

    def __init__(self, wrong: str = "nothing") -> None:
        super().__init__()
        self.wrong = wrong

    def build(self, in_shape):
        self.w = self.parameter("w", in_shape,
                                lambda rng, shape, fan_in, fan_out: rng.standard_normal(shape))
        self.b = self.parameter("b", in_shape, lambda rng, shape, fan_in, fan_out: np.zeros(shape))
        return in_shape

    def forward(self, x, mode=PREDICT):
        self.remember(mode, x)
        return self.w.data[:, None] * x**3 + self.b.data[:, None]

    def backward(self, dy, accumulate=False):
        x, = self.recall()
        dw, db, dx = (dy * x**3).sum(axis=1), dy.sum(axis=1), 3 * self.w.data[:, None] * x**2 * dy
        if self.wrong == "factor":
            dx = dx * 1.0001
        elif self.wrong == "sign":
            dx = -dx
        elif self.wrong == "element":
            dx[0, 0] += 0.01
        elif self.wrong == "weight":
            dw[1] *= 1.001
        elif self.wrong == "nan":
            dx[0, 0] = np.nan
        self.backend.store(dw, self.w.grad, accumulate)
        if self.wrong != "bias":
            self.backend.store(db, self.b.grad, accumulate)
        return {"shape": dx[:, :1], "count": (dx, dx), "none": None}.get(self.wrong, dx)


def test_the_error_of_a_right_gradient_is_returned():
    error = check_gradients(Cube(), (4,))
    assert isinstance(error, float)
    assert 0 <= error < 1e-8


@pytest.mark.parametrize("wrong", ["factor", "sign", "element", "weight", "bias", "nan"])
def test_a_wrong_gradient_is_found(wrong):
    with pytest.raises(AssertionError,
                       match=r"^check_gradients: Cube 'layer': expected a directional derivative "):
        check_gradients(Cube(wrong), (4,))


def test_the_message_has_both_derivatives():
    with pytest.raises(AssertionError, match=r"expected a directional derivative of -?\d.*, from "
                                             r"finite differences\. Received: -?\d.* from "
                                             r"backward, a relative error of \d\.\de[+-]\d\d\.$"):
        check_gradients(Cube("sign"), (4,))


@pytest.mark.parametrize("wrong, shapes", [("shape", "[(4, 1), (4,), (4,)]"),
                                           ("count", "[(4, 3), (4, 3), (4,), (4,)]"),
                                           ("none", "[(), (4,), (4,)]")])
def test_a_gradient_of_another_shape_is_found(wrong, shapes):
    with pytest.raises(AssertionError) as error:
        check_gradients(Cube(wrong), (4,))
    assert str(error.value) == (f"check_gradients: Cube 'layer': expected gradients of shapes [(4, "
                                f"3), (4,), (4,)]. Received: {shapes}.")


def test_the_tolerance_decides():
    assert 1e-6 < check_gradients(Cube("factor"), (4,), tolerance=1e-3) < 1e-3


def test_batch_seed_and_inputs():
    assert check_gradients(Cube(), (4,), batch=1) < 1e-6
    assert check_gradients(Cube(), (4,), seed=1) != check_gradients(Cube(), (4,), seed=2)
    x = np.full((4, 7), 2.0)
    x.flags.writeable = False
    assert check_gradients(Cube(), (4,), inputs=(x,)) < 1e-6


def test_a_kink_is_not_hidden():
    """relu has no derivative at 0: finite differences give one half, backward gives 0."""
    with pytest.raises(AssertionError):
        check_gradients(xn.ReLU(), (4,), inputs=(np.zeros((4, 3)),))


def test_the_layer_is_new():
    layer = Cube()
    check_gradients(layer, (4,))
    with pytest.raises(ValueError, match="expected a layer that is not in use"):
        check_gradients(layer, (4,))
