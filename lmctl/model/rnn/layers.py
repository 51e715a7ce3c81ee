"""Shared parts of the recurrent models: cells, their initialisation, and bidirectional layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from transformers import PreTrainedModel

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentPreTrainedModel(PreTrainedModel):
    """Initialisation: uniform in +-0.1 for embeddings and projections, +-1/sqrt(H) for cells, forget gates open."""

    base_model_prefix = "model"
    _input_embed_layer = "embeddings"  # transformers looks the embeddings up here, and an output layer at `lm_head`

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Embedding, nn.Linear)):
            nn.init.uniform_(module.weight, -0.1, 0.1)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            width = module.hidden_size
            for name, parameter in module.named_parameters():
                nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)
                if name.startswith("bias_ih") and isinstance(module, (nn.LSTM, nn.LSTMCell)):
                    with torch.no_grad():  # order of the gates: input, forget, cell, output
                        parameter[width : 2 * width] += 1.0


class BothWays(nn.Module):
    """Bidirectional recurrent layers (Schuster and Paliwal 1997), with dropout between them."""

    def __init__(self, cell: str, layers: int, width: int, hidden: int, dropout: float) -> None:
        """Inputs of `width`; `hidden` units in each direction."""
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.stack = nn.ModuleList(
            LAYERS[cell](width if place == 0 else 2 * hidden, hidden, batch_first=True, bidirectional=True)
            for place in range(layers)
        )

    def forward(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden states [R, L, 2H], forward then backward, of `rows` [R, L, E]. `mask` [R, L] is true at the tokens,
        which must come first in each row; at padding the result is zero."""
        if mask is None:
            for place, layer in enumerate(self.stack):
                rows, _ = layer(self.dropout(rows) if place else rows)
            return rows
        packed = pack_padded_sequence(rows, lengths_of(mask), batch_first=True, enforce_sorted=False)
        for place, layer in enumerate(self.stack):
            if place:
                packed = PackedSequence(self.dropout(packed.data), *packed[1:])
            packed, _ = layer(packed)
        return pad_packed_sequence(packed, batch_first=True, total_length=rows.shape[1])[0]


def lengths_of(mask: Tensor) -> Tensor:
    """Row lengths without padding, int64 [R] on the host, of a mask [R, L]; ValueError unless padding is at the end."""
    real = mask.bool()
    ends = torch.arange(1, mask.shape[1] + 1, device=mask.device) * real
    lengths, last = torch.stack([real.sum(dim=1), ends.amax(dim=1)]).cpu()
    if not torch.equal(lengths, last) or not bool(lengths.all()):
        raise ValueError("attention_mask: each row must begin with its text and be padded at its end")
    return lengths


def final(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Final state of each direction [R, 2H]: the forward half of `hidden` [R, L, 2H] at the last token, the backward
    half at the first."""
    forwards, backwards = hidden.chunk(2, dim=-1)
    if mask is None:
        return torch.cat([forwards[:, -1], backwards[:, 0]], dim=-1)
    rows = torch.arange(len(hidden), device=hidden.device)
    return torch.cat([forwards[rows, mask.sum(dim=1) - 1], backwards[:, 0]], dim=-1)
