"""transformers' BERT, run so that nothing is computed that nobody reads.

A masked-language model is read at 15 % of its positions. The vocabulary projection, the costliest part of a small
BERT, is computed there alone, and so are the output projection and the feed-forward half of the last layer, whose
other positions feed nothing (the `subset_idx` of MosaicBERT, Portes et al. 2023, section 3). Both are exact: logits
and gradients equal those of `BertForPreTraining` (tests/test_bert.py holds them to it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from transformers import BertForMaskedLM, BertForPreTraining


class BertNetwork(nn.Module):
    """`encode` and `head` over a `BertForPreTraining`, or over a `BertForMaskedLM` where no pair head is wanted."""

    def __init__(self, bert: BertForPreTraining | BertForMaskedLM) -> None:
        super().__init__()
        self.bert = bert
        self.recompute = False

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor) -> Tensor:
        """Last hidden states [N, H] at the flattened positions `read` int64 [N]."""
        mask = inputs.get("attention_mask")
        hidden = self.body(inputs["input_ids"], inputs.get("token_type_ids"), mask)
        last = self.bert.bert.encoder.layer[-1]
        width = hidden.shape[-1]
        context = last.attention.self(hidden, _broadcast(mask))[0].reshape(-1, width).index_select(0, read)
        residual = hidden.reshape(-1, width).index_select(0, read)
        return last.feed_forward_chunk(last.attention.output(context, residual))

    def body(self, input_ids: Tensor, token_type_ids: Tensor | None, mask: Tensor | None) -> Tensor:
        """Hidden states [R, L, H] before the last layer."""
        hidden = self.bert.bert.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        for layer in self.bert.bert.encoder.layer[:-1]:
            if self.recompute and self.training:
                hidden = checkpoint(layer, hidden, _broadcast(mask), use_reentrant=False)
            else:
                hidden = layer(hidden, _broadcast(mask))
        return hidden

    def head(self, name: str, hidden: Tensor) -> Tensor:
        """Logits [N, V] of "mlm", or [N, 2] of "pair" for the hidden states of first positions."""
        if name == "mlm":
            return self.bert.cls.predictions(hidden)
        if name == "pair":
            pooler = self.bert.bert.pooler
            return self.bert.cls.seq_relationship(pooler.activation(pooler.dense(hidden)))
        raise KeyError(name)

    def checkpoint_activations(self) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations."""
        self.recompute = True

    def compile_body(self) -> None:
        self.body = torch.compile(self.body)  # type: ignore[method-assign]

    def extra_heads(self) -> dict[str, Tensor]:
        return {}

    def pretrained(self) -> BertForPreTraining | BertForMaskedLM:
        return self.bert


def _broadcast(mask: Tensor | None) -> Tensor | None:
    """bool [R, L] -> [R, 1, 1, L]: every position of a row may look at the row's real ones."""
    return None if mask is None else mask[:, None, None, :]
