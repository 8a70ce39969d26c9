"""The catalogue: layers other than activations."""

from __future__ import annotations

from functools import partial

import numpy as np

from xpnet import layers as L
from xpnet.catalogue.item import Item
from xpnet.functional import toeplitz
from xpnet.layers.shape import split
from xpnet.optim import Regularized
from xpnet.training.sampling import predict_samples
from xpnet.transform.folding import fold_batch_norm
from xpnet.transform.population import population_statistics

MAPS = ((4, 7, 6),)
SIGNALS = ((4, 9),)


def some_tokens(rng: np.random.Generator, N: int) -> tuple[np.ndarray]:
    """Sequences of 5 of 6 tokens."""
    return (rng.integers(0, 6, (5, N)),)



CONVOLUTION: list[Item] = [
    Item(partial(L.Linear, 5, activation="tanh"), ((7,),), pytorch="Linear", keras="Dense",
         numpynet="Connected_layer"),
    Item(L.MatMul, ((2, 3, 4), (2, 4, 5)), pytorch="torch.matmul", keras="ops.matmul"),
    Item(partial(L.RBF, [[1, -1, 1], [-1, 1, 1]]), ((3,),)),
    Item(partial(L.Conv2d, 6, 3, padding="half", activation="tanh"), MAPS, pytorch="Conv2d",
         keras="Conv2D", numpynet="Convolutional_layer"),
    Item(partial(L.Conv1d, 6, 3, padding=(4, 0), dilation=2, groups=2, activation="tanh"), SIGNALS,
         pytorch="Conv1d", keras="Conv1D"),
    Item(partial(L.TableConv2d, [[0, 1], [3], [0, 2, 3]], 3, activation="tanh"), MAPS),
    Item(partial(L.TrueConv2d, 6, (3, 2), padding="full", groups=2, activation="tanh"), MAPS),
    Item(partial(L.DepthwiseConv2d, 3, depth_multiplier=2, activation="tanh"), MAPS,
         pytorch="Conv2d(groups=C)", keras="DepthwiseConv2D"),
    Item(partial(L.SeparableConv2d, 5, (3, 2), depth_multiplier=2, stride=(1, 2), padding=1,
                 activation="tanh"), MAPS, keras="SeparableConv2D"),
    Item(partial(L.LocallyConnected2d, 3, 3, stride=(1, 2), padding=1, activation="tanh"), MAPS),
    Item(partial(L.ConvTranspose2d, 3, 3, stride=2, padding=1, output_padding=1, activation="tanh"),
         MAPS, pytorch="ConvTranspose2d", keras="Conv2DTranspose"),
    Item(partial(L.ConvTranspose1d, 3, 3, stride=2, padding=1, output_padding=1, activation="tanh"),
         SIGNALS, pytorch="ConvTranspose1d", keras="Conv1DTranspose"),
    Item(toeplitz),
]

SEQUENCES: list[Item] = [
    Item(partial(L.Embedding, 6, 4), ((5,),), some_tokens, pytorch="Embedding", keras="Embedding"),
    Item(partial(L.SimpleRNN, 4, return_sequences=True), ((3, 4),), pytorch="RNN",
         keras="SimpleRNN"),
    Item(partial(L.LSTM, 3, layers=2, bidirectional=True, return_sequences=True), ((4, 5),),
         pytorch="LSTM", keras="LSTM"),
    Item(partial(L.GRU, 4, layers=2, dropout=0.3), ((3, 5),), pytorch="GRU", keras="GRU"),
    Item(partial(L.ElmanCell, 4), ((3,), (4,)), pytorch="RNNCell", keras="SimpleRNNCell"),
    Item(partial(L.RNN, L.ElmanCell(4), reverse=True), ((3, 5),), keras="RNN"),
    Item(partial(L.MultiHeadAttention, 2, mask="causal"), ((4, 5),), pytorch="MultiheadAttention",
         keras="MultiHeadAttention"),
]

SPARSE_CODING: list[Item] = [
    Item(partial(L.DeconvolutionalNetwork2d, 3, 3, lam=2, betas=(4, 8, 32), iterations=16),
         ((2, 5, 4),)),
]

POOLING: list[Item] = [
    Item(partial(L.MaxPool2d, 2), MAPS, pytorch="MaxPool2d", keras="MaxPooling2D",
         numpynet="Maxpool_layer"),
    Item(partial(L.MaxUnpool2d, 2), ((4, 3, 3), (4, 7, 6)), pytorch="MaxUnpool2d"),
    Item(partial(L.AvgPool2d, 2), MAPS, pytorch="AvgPool2d", keras="AveragePooling2D",
         numpynet="Avgpool_layer"),
    Item(partial(L.MaxPool1d, 3, stride=2, padding=1), SIGNALS, pytorch="MaxPool1d",
         keras="MaxPooling1D"),
    Item(partial(L.AvgPool1d, 3, stride=2, padding=(1, 0), count_include_pad=False), SIGNALS,
         pytorch="AvgPool1d", keras="AveragePooling1D"),
    Item(partial(L.LpPool2d, 2, 3), MAPS, pytorch="LPPool2d"),
    Item(partial(L.StochasticPool2d, 2), MAPS),
    Item(partial(L.GaussianPool2d, 3, 0.8, stride=2), MAPS),
    Item(L.GlobalAvgPool2d, MAPS, pytorch="AdaptiveAvgPool2d(1)", keras="GlobalAveragePooling2D"),
    Item(L.GlobalMaxPool2d, MAPS, pytorch="AdaptiveMaxPool2d(1)", keras="GlobalMaxPooling2D"),
    Item(L.GlobalAvgPool1d, SIGNALS, pytorch="AdaptiveAvgPool1d(1)",
         keras="GlobalAveragePooling1D"),
    Item(L.GlobalMaxPool1d, SIGNALS, pytorch="AdaptiveMaxPool1d(1)", keras="GlobalMaxPooling1D"),
    Item(partial(L.AdaptiveAvgPool2d, (3, 4)), MAPS, pytorch="AdaptiveAvgPool2d",
         keras="AdaptiveAveragePooling2D"),
    Item(partial(L.AdaptiveMaxPool2d, (3, 4)), MAPS, pytorch="AdaptiveMaxPool2d",
         keras="AdaptiveMaxPooling2D"),
    Item(partial(L.AdaptiveAvgPool1d, 4), SIGNALS, pytorch="AdaptiveAvgPool1d",
         keras="AdaptiveAveragePooling1D"),
    Item(partial(L.AdaptiveMaxPool1d, 4), SIGNALS, pytorch="AdaptiveMaxPool1d",
         keras="AdaptiveMaxPooling1D"),
    Item(partial(L.Subsampling2d, 2, activation="scaled_tanh"), MAPS),
    Item(partial(L.SkipSampling2d, (2, 3), offset=1), MAPS),
]

NORMALIZATION: list[Item] = [
    Item(partial(L.BatchNorm2d, activation="relu"), MAPS, pytorch="BatchNorm2d",
         keras="BatchNormalization", numpynet="BatchNorm_layer"),
    Item(L.BatchNorm1d, ((5,),), pytorch="BatchNorm1d", keras="BatchNormalization",
         numpynet="BatchNorm_layer"),
    Item(population_statistics, pytorch="swa_utils.update_bn"),
    Item(fold_batch_norm, pytorch="fuse_conv_bn_eval"),
    Item(L.LayerNorm, MAPS, pytorch="LayerNorm", keras="LayerNormalization"),
    Item(L.RMSNorm, MAPS, pytorch="RMSNorm", keras="RMSNormalization"),
    Item(partial(L.GroupNorm, 2), MAPS, pytorch="GroupNorm", keras="GroupNormalization"),
    Item(partial(L.InstanceNorm2d, affine=True), MAPS, pytorch="InstanceNorm2d",
         keras="GroupNormalization"),
    Item(partial(L.InstanceNorm1d, affine=True), SIGNALS, pytorch="InstanceNorm1d",
         keras="GroupNormalization"),
    Item(partial(L.LocalResponseNorm, 3, alpha=0.5, k=2), MAPS, pytorch="LocalResponseNorm"),
    Item(partial(L.SubtractiveNorm2d, 5), MAPS),
    Item(partial(L.DivisiveNorm2d, 5), MAPS),
    Item(partial(L.ContrastNorm2d, 5), MAPS),
    Item(partial(L.Whitening, "pca", components=5), MAPS),
    Item(partial(L.LpNormalize, 3, axis=-1), MAPS, pytorch="functional.normalize"),
    Item(partial(L.L1Norm, axis=None), MAPS, pytorch="functional.normalize",
         numpynet="L1Norm_layer"),
    Item(L.L2Norm, MAPS, pytorch="functional.normalize", keras="UnitNormalization",
         numpynet="L2Norm_layer"),
    Item(partial(L.Rescale, 0.5, 0.25), MAPS, keras="Rescaling", common=True),
]

REGULARIZATION: list[Item] = [
    Item(partial(L.Dropout, 0.3), MAPS, pytorch="Dropout", keras="Dropout",
         numpynet="Dropout_layer"),
    Item(partial(L.Dropout2d, 0.4), MAPS, pytorch="Dropout2d", keras="SpatialDropout2D"),
    Item(partial(L.Dropout1d, 0.4), SIGNALS, pytorch="Dropout1d", keras="SpatialDropout1D"),
    Item(partial(L.AlphaDropout, 0.3), MAPS, pytorch="AlphaDropout", keras="AlphaDropout"),
    Item(partial(L.GaussianDropout, 0.3), MAPS, keras="GaussianDropout"),
    Item(partial(L.AdditiveNoise, 0.3), MAPS, keras="GaussianNoise"),
    Item(Regularized, pytorch="clip_grad_norm_, clip_grad_value_, renorm",
         keras="L1, MaxNorm, clipnorm, clipvalue"),
    Item(predict_samples),
    Item(partial(L.DropConnect, 5, 0.4, activation="tanh"), ((7,),)),
]

SHAPES: list[Item] = [
    Item(L.Flatten, MAPS, pytorch="Flatten", keras="Flatten", common=True),
    Item(partial(L.Reshape, (6, -1, 4)), MAPS, pytorch="Unflatten", keras="Reshape", common=True),
    Item(partial(L.Permute, (1, 2, 0)), MAPS, pytorch="torch.permute", keras="Permute",
         common=True),
    Item(partial(L.ChannelShuffle, 2), MAPS, pytorch="ChannelShuffle"),
    Item(L.Add, 2 * MAPS, pytorch="torch.add", keras="Add", numpynet="Shortcut_layer"),
    Item(L.Concat, ((1, 4, 5), (3, 4, 5)), pytorch="torch.concat", keras="Concatenate",
         numpynet="Route_layer"),
    Item(partial(L.Slice, 1, -2, axis=1), MAPS, pytorch="torch.narrow", common=True),
    Item(split, pytorch="torch.split, torch.chunk", keras="ops.split", common=True),
    Item(partial(L.WeightedSum, per_channel=True, normalization="softmax"), 3 * MAPS),
    Item(partial(L.PadChannels, 6), MAPS),
    Item(L.Average, 3 * MAPS, keras="Average"),
    Item(L.Subtract, 2 * MAPS, pytorch="torch.sub", keras="Subtract"),
    Item(L.Multiply, 3 * MAPS, pytorch="torch.mul", keras="Multiply"),
    Item(L.Maximum, 3 * MAPS, pytorch="torch.maximum", keras="Maximum"),
    Item(L.Minimum, 2 * MAPS, pytorch="torch.minimum", keras="Minimum"),
    Item(partial(L.SoftArgmax2d, 2.0), MAPS),
    Item(partial(L.Upsample2d, (2, 1.5), "bilinear"), MAPS, pytorch="Upsample",
         keras="UpSampling2D", numpynet="Upsample_layer"),
    Item(partial(L.Upsample1d, 1.5, "linear"), SIGNALS, pytorch="Upsample", keras="UpSampling1D"),
    Item(partial(L.PixelShuffle, 2), MAPS, pytorch="PixelShuffle", keras="ops.depth_to_space",
         numpynet="Shuffler_layer"),
    Item(partial(L.PixelUnshuffle, 2), ((3, 4, 6),), pytorch="PixelUnshuffle",
         keras="ops.space_to_depth"),
    Item(partial(L.ZeroPad2d, (1, 0, 2, 3)), MAPS, pytorch="ZeroPad2d", keras="ZeroPadding2D"),
    Item(partial(L.ZeroPad1d, (3, 1)), SIGNALS, pytorch="ZeroPad1d", keras="ZeroPadding1D"),
    Item(partial(L.ConstantPad2d, (1, 2), -0.5), MAPS, pytorch="ConstantPad2d"),
    Item(partial(L.ReflectionPad2d, (2, 1, 0, 3)), MAPS, pytorch="ReflectionPad2d"),
    Item(partial(L.ReplicationPad2d, (2, 1, 0, 3)), MAPS, pytorch="ReplicationPad2d"),
    Item(partial(L.CircularPad2d, (2, 1, 0, 3)), MAPS, pytorch="CircularPad2d"),
    Item(partial(L.ConstantPad1d, (1, 2), -0.5), SIGNALS, pytorch="ConstantPad1d"),
    Item(partial(L.ReflectionPad1d, (2, 3)), SIGNALS, pytorch="ReflectionPad1d"),
    Item(partial(L.ReplicationPad1d, (2, 7)), SIGNALS, pytorch="ReplicationPad1d"),
    Item(partial(L.CircularPad1d, (3, 1)), SIGNALS, pytorch="CircularPad1d"),
    Item(partial(L.Crop2d, (1, 0, 2, 3)), MAPS, keras="Cropping2D"),
    Item(partial(L.Crop1d, (1, 2)), SIGNALS, keras="Cropping1D"),
]
