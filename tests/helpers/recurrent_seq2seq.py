"""A small recurrent encoder-decoder, and rows for it."""

from __future__ import annotations

import pytest
import torch
from compared import padded
from small import vocabulary

from lmctl.model.recurrent_mt import RecurrentMT

V = vocabulary()
H, E = 8, 6
SOURCE, TARGET = [7, 2, 5], [4, 6, 1]
KINDS = pytest.mark.parametrize(
    ("attention", "cell"), [("bahdanau", "lstm"), ("bahdanau", "gru"), ("luong", "lstm"), ("luong", "gru")]
)


def network(attention: str = "bahdanau", cell: str = "lstm", tied: bool = True, sharp: float = 1.0, **changes):
    """A network of two and two layers; `sharp` scales its weights, so that its guesses differ from row to row."""
    torch.manual_seed(0)
    spec = RecurrentMT(2, 2, H, E, cell, attention, **{"dropout": 0.0, "tied_embeddings": tied} | changes)
    net = spec.load(V, {"lm": V.size})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(sharp)
    return net


def rows(pad: int = V.pad) -> dict[str, torch.Tensor]:
    (source, mask), (target, real) = padded(SOURCE, 1, pad), padded(TARGET, 2, pad)
    target[:, 0] = V.pad
    inputs = {"input_ids": source, "attention_mask": mask}
    return inputs | {"decoder_input_ids": target, "decoder_attention_mask": real}


def real_logits(net, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    places = inputs["decoder_attention_mask"].reshape(-1).nonzero().flatten()
    return net.head("lm", net.encode(inputs, places))
