"""PyTorch's recurrent layers, as they are commonly used: batch first, and packed sequences if the
lengths differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.recurrent import Case, D, H, Step, T, lengths_of, noise

LAYERS = {"SimpleRNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}


def step(case: Case, threads: int) -> Step:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layer = LAYERS[case.layer](D, H, batch_first=True)                   # type: ignore[operator]
    x, dy = (torch.tensor(noise(rows, T, case.batch)).permute(2, 1, 0).contiguous()
             for rows in (D, H))
    x.requires_grad_(case.mode != "predict")
    lengths = torch.tensor(lengths_of(case.batch))

    def train() -> Any:
        layer.zero_grad()
        x.grad = None
        if case.mode == "ragged":
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=T)
        else:
            y = layer(x)[0]
        y.backward(dy)
        return x.grad

    @torch.inference_mode()
    def predict() -> Any:
        return layer(x)[0]

    return predict if case.mode == "predict" else train
