"""Networks for sequences: text, and text in images."""

from __future__ import annotations

from typing import Any

from xpnet.backends import Backend
from xpnet.graph import Input
from xpnet.layer import Shape
from xpnet.layers import LSTM, BatchNorm2d, Conv2d, Embedding, Linear, MaxPool2d, Reshape
from xpnet.models.classes import Classes, count, named
from xpnet.network import Network, Sequential


def char_lstm(input_shape: Shape = (50,), *, classes: Classes = 65, features: int = 64,
              units: int = 128, layers: int = 2, backend: str | Backend = "auto",
              dtype: Any = "float32", seed: int = 0) -> Sequential:
    """A language model of characters: vectors of characters, an LSTM, and at each step the logits
    of the next character; 242,945 parameters for 65 characters and texts of 50, or of any length.

    X (T, N) are numbers of characters, Y (classes, T, N). The targets (N, T) for cross entropy are
    the same text one character later.

    Args:
        classes: how many characters there are, or the characters.
        features: length of a character's vector.
        units: of each layer of the LSTM.
        layers: of the LSTM.

    Karpathy 2015 (github.com/karpathy/char-rnn), whose two layers of 128 units these are; the
    vectors of characters are those of Bengio et al. 2003.
    """
    K = count("char_lstm", classes)
    return named(Sequential([
        Embedding(K, features), LSTM(units, layers=layers, return_sequences=True), Linear(K),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed), classes)


def crnn(input_shape: Shape = (1, 32, 100), *, classes: Classes = 37,
         backend: str | Backend = "auto", dtype: Any = "float32", seed: int = 0) -> Network:
    """CRNN: convolutions make a line of text a sequence of 512 features for each place, and two
    LSTM layers of both directions read it; 8,326,693 parameters for 37 classes of images of 32x100
    pixels, or of another width (the paper: 8.3 million).

    X (C, 32, W, N), Y (classes, T, N), the logits at each place from left to right, T = W / 4 + 1.
    The paper trains with connectionist temporal classification, which xpnet does not have; cross
    entropy needs the class at each place.

    Shi et al. 2017, table 1.
    """
    x = Input(input_shape)
    h = MaxPool2d(2)(_conv(64)(x))
    h = MaxPool2d(2)(_conv(128)(h))
    h = _conv(256)(_conv(256)(h))
    h = MaxPool2d(2, stride=(2, 1), padding=(0, 1))(h)      # half the rows, one more column
    for _ in range(2):
        h = BatchNorm2d(activation="relu")(Conv2d(512, 3, padding=1, init="he_normal")(h))
    h = MaxPool2d(2, stride=(2, 1), padding=(0, 1))(h)
    h = Conv2d(512, 2, activation="relu", init="he_normal")(h)
    h = Reshape((h.shape[0] * h.shape[1], h.shape[2]))(h)   # a single row: a sequence
    h = Linear(256)(LSTM(256, bidirectional=True, return_sequences=True)(h))
    h = LSTM(256, bidirectional=True, return_sequences=True)(h)
    y = Linear(count("crnn", classes))(h)
    return named(Network(x, y, backend=backend, dtype=dtype, seed=seed), classes)


def _conv(filters: int) -> Conv2d:
    return Conv2d(filters, 3, padding=1, activation="relu", init="he_normal")
