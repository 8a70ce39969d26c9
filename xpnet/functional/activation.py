"""ReLU and softmax, with their gradients."""

from __future__ import annotations

from xpnet.backends import Backend
from xpnet.functional.call import Array, classes_call, elementwise_call


def relu(x: Array, *, layout: str = "NCHW", backend: str | Backend = "auto") -> Array:
    """Rectified linear unit: y = max(x, 0), of any shape; a NaN stays NaN.

    `layout` makes no difference here.
    """
    call = elementwise_call("relu", layout, backend, {"x": x})
    with call.backend.scope():
        return call.backend.activate(call.ready(x), "relu")


def relu_backward(dy: Array, y: Array, *, layout: str = "NCHW", backend: str | Backend = "auto"
                  ) -> Array:
    """Gradient of relu: dx = dy where y > 0, else 0.

    y is the output of relu, or its input.
    """
    call = elementwise_call("relu_backward", layout, backend, {"dy": dy, "y": y})
    call.expect("dy", dy, y.shape)
    with call.backend.scope():
        return call.backend.activation_backward(call.ready(dy), call.ready(y), "relu")


def softmax(z: Array, *, layout: str = "NCHW", backend: str | Backend = "auto") -> Array:
    """Softmax over the classes: y[n, k] = exp(z[n, k]) / sum over j of exp(z[n, j]).

    z (N, K), or (N, K, T) or (N, K, H, W) with a softmax at each position -> y like z. The largest
    z is subtracted first, so that nothing overflows.
    """
    call = classes_call("softmax", layout, backend, {"z": z})
    with call.backend.scope():
        return call.outward(call.backend.softmax(call.inward(z)))


def softmax_backward(dy: Array, y: Array, *, layout: str = "NCHW", backend: str | Backend = "auto"
                     ) -> Array:
    """Gradient of softmax: dz[n, k] = y[n, k] (dy[n, k] - sum over j of dy[n, j] y[n, j]).

    y is the output of softmax.
    """
    call = classes_call("softmax_backward", layout, backend, {"dy": dy, "y": y})
    call.expect("dy", dy, y.shape)
    with call.backend.scope():
        return call.outward(call.backend.softmax_dx(call.inward(dy), call.inward(y)))
