"""Operations with their gradients, as functions of plain NumPy or CuPy arrays: no network, no
layer.

    y = conv2d(x, W, bias, padding=1)         # x (N, C, H, W), W (F, C, KH, KW) -> y (N, F, OH, OW)
    dx, dW, db = conv2d_backward(dy, x, W, padding=1)   # dy: gradient of a loss with respect to y

Shapes are written for layout="NCHW", batch first. With layout="CHWN" the batch comes last, (C, H,
W, N), as in the kernels, and nothing is converted. Signals are (N, C, T) or (C, T, N). Arguments of
windows are those of the layers: ints or pairs, and padding also as (top, bottom, left, right),
"valid", "half" or "full". Results have the array module, dtype and layout of the inputs; inputs are
never written. `f_backward` computes the gradients of `f`; losses return their gradients with their
value.

Raises TypeError for an argument that is not an array or for mixed or wrong dtypes, ValueError for
shapes that do not fit. `toeplitz` is for looking at: the matrix of one image's convolution, in
NumPy.
"""

from xpnet.functional.activation import (
    relu,
    relu_backward,
    softmax,
    softmax_backward,
)
from xpnet.functional.convolution import (
    col2im,
    conv2d,
    conv2d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
    im2col,
    toeplitz,
)
from xpnet.functional.losses import (
    contrastive,
    cosine_embedding,
    cross_entropy,
    margin_ranking,
    triplet_margin,
)
from xpnet.functional.normalization import batch_norm, batch_norm_backward, batch_norm_inference
from xpnet.functional.pooling import (
    adaptive_max_pool2d,
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
    max_pool_indices,
    max_unpool2d,
    max_unpool2d_backward,
)
from xpnet.functional.signals import (
    avg_pool1d,
    avg_pool1d_backward,
    conv1d,
    conv1d_backward,
    conv_transpose1d,
    conv_transpose1d_backward,
    max_pool1d,
    max_pool1d_backward,
)

__all__ = [
    "adaptive_max_pool2d", "avg_pool1d", "avg_pool1d_backward", "avg_pool2d",
    "avg_pool2d_backward", "batch_norm", "batch_norm_backward", "batch_norm_inference",
    "col2im", "contrastive", "conv1d", "conv1d_backward", "conv2d", "conv2d_backward",
    "conv_transpose1d", "conv_transpose1d_backward", "conv_transpose2d",
    "conv_transpose2d_backward", "cosine_embedding", "cross_entropy", "im2col",
    "margin_ranking", "max_pool1d", "max_pool1d_backward", "max_pool2d", "max_pool2d_backward",
    "max_pool_indices", "max_unpool2d", "max_unpool2d_backward", "relu", "relu_backward",
    "softmax", "softmax_backward", "toeplitz", "triplet_margin",
]
