"""Which parts of an input a value of a network depends on, as arrays; xpnet.viz draws them.

    M = xn.explain.saliency(net, x)             # (N, H, W), for images (N, C, H, W)
    L = xn.explain.grad_cam(net, x, target=3)   # (N, H', W')

Inputs are batch-first, results are NumPy arrays. The network is in prediction mode, and does not
change.
"""

from xpnet.explain.field import receptive_field
from xpnet.explain.grad_cam import grad_cam
from xpnet.explain.gradients import gradient_sizes
from xpnet.explain.maximization import maximize
from xpnet.explain.occlusion import occlusion
from xpnet.explain.saliency import saliency, smooth_gradient
from xpnet.explain.surface import loss_surface

__all__ = [
    "grad_cam", "gradient_sizes", "loss_surface", "maximize", "occlusion", "receptive_field",
    "saliency", "smooth_gradient",
]
