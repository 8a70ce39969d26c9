"""The index of terms has every word of the lectures that xpnet was made for."""

from __future__ import annotations

import re
from pathlib import Path

import xpnet as xn

PAGE = Path(__file__).parents[2] / "docs" / "terms.md"
ROWS = re.findall(r"^\| \[([^]]+)\]\(([^)]+)\) \| (.+) \|$", PAGE.read_text(encoding="utf-8"),
                  re.MULTILINE)

WORDS = """
image as a matrix, grey level, RGB, RGBA, sampling, quantisation, moving average, box filter,
boxcar, Gaussian filter, weighted average, noise, edge detection, Sobel, Laplacian, image pyramid,
autocorrelation, crossing correlation, cross-correlation, convolution, commutative, kernel, filter,
feature map, feature, descriptor, Hadamard product, Toeplitz matrix, flipped kernel,
decision region, XOR, perceptron, multilayer perceptron, neuron, fully connected layer, dense layer,
local connectivity, parameter sharing, sparse connections, connection table, receptive field,
bias matrix, channel, depth, stride, skipping factor, zero padding, valid padding, half padding,
same padding, full padding, reverse convolution, non-linearity layer, activation function, logistic,
loggy, sigmoid, tanh, saturation, vanishing gradient, ReLU, leaky ReLU, maxout, ELU, SELU, swish,
softplus, softsign, elliot, plse, ramp, stair, hard tanh, gain, rectification, absolute value,
smooth absolute value, sign function, contrast normalisation, subtractive normalisation,
brightness normalisation, local response normalisation, batch normalisation,
internal covariate shift, population statistics, whitening, pooling, max pooling, average pooling,
L2 pooling, distance-weighted pooling, sub-sampling, translation invariance, flattening, softmax,
one-hot, multi-class, binary, multi-label, cross entropy, negative log-likelihood,
mean squared error, half squared error, cost function, gradient descent,
stochastic gradient descent, momentum, weight decay, learning rate scale, Adam, backpropagation,
forward pass, backward pass, update, delta, deconvolution layer, sparse coding,
alternating minimisation, encoder, decoder, autoencoder, semantic segmentation, bounding box,
landmark, pose, YOLO, confidence, responsible predictor, super-resolution, object recognition,
tensor, graph of tensors, parents, children, recurrent network, time series, dropout, bagging,
ensemble, inverted dropout, probabilistic inference, regularisation, noise injection,
validation set, overfitting, supervised, unsupervised, semi-supervised, LeNet-5, AlexNet, ZFNet,
VGG, ResNet, all-convolutional network, Neocognitron, simple and complex cells, MNIST, zip codes
"""


def test_every_word_is_in_the_index():
    words = [word.strip() for word in WORDS.replace("\n", " ").split(",")]
    assert len(words) > 150
    assert sorted(set(words) - {row[0] for row in ROWS}) == []


def test_the_index_is_sorted_and_has_each_word_once():
    words = [row[0].lower() for row in ROWS]
    assert words == sorted(set(words))
    assert len(ROWS) == len(re.findall(r"^\| \[", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_each_word_leads_to_a_heading():
    """That the heading exists is tested with all links, in test_docs.py."""
    assert [row[0] for row in ROWS if "#" not in row[1]] == []


def test_each_word_is_on_the_page_that_it_leads_to():
    lacking = []
    for word, link, _ in ROWS:
        text = (PAGE.parent / link.partition("#")[0]).read_text(encoding="utf-8").lower()
        if word.lower() not in " ".join(text.split()):
            lacking.append(word)
    assert lacking == []


def test_the_names_in_the_index_are_names_of_xpnet():
    for name in re.findall(r"`(?:xn\.)?([A-Z]\w+|(?<=xn\.)[\w.]+)", " ".join(r[2] for r in ROWS)):
        found = xn
        for part in name.split("."):
            found = getattr(found, part)        # AttributeError if there is no such name
