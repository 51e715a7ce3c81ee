"""transformers' BERT, whose last layer and heads are computed only at positions that are read.

A masked-language model is read at 15 % of its positions. The vocabulary projection, the costliest part of a small
BERT, is computed there alone, and so are the output projection and the feed-forward half of the last layer, whose
other positions feed nothing (the `subset_idx` of MosaicBERT, Portes et al. 2023, section 3). Both are exact: logits
and gradients equal those of `BertForPreTraining` (tests/model/test_models.py holds them to it).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.model.attention_function import key_mask
from lmctl.model.network import TransformerNetwork
from lmctl.model.recompute import recomputed


@cache
def reading(layer: Any) -> Any:
    """The class of a last layer that gives its states at the positions `read` (int64 [N], flattened; None: all) only,
    [N, H] instead of [R, L, H]. `layer`: transformers' class."""

    def forward(self: Any, hidden: Tensor, mask: Any = None, read: Tensor | None = None, **given: Any) -> Tensor:
        if read is None:
            return layer.forward(self, hidden, mask, **given)
        width = hidden.shape[-1]
        context = self.attention.self(hidden, mask)[0].reshape(-1, width).index_select(0, read)
        residual = hidden.reshape(-1, width).index_select(0, read)
        return self.feed_forward_chunk(self.attention.output(context, residual))

    return type(f"Last{layer.__name__}", (layer,), {"forward": forward})


class BertNetwork(TransformerNetwork):
    """A `BertForPreTraining`; a `BertForMaskedLM` where only words are predicted; a `BertForSequenceClassification`
    where only rows are."""

    has_pair_head = True
    recompute: Any = None
    """How a layer is called that is computed again in the backward pass; None: none is."""
    whole = False
    """Whether the last layer, too, is computed at all positions."""

    def __init__(self, model: Any, heads: Mapping[str, int]) -> None:
        super().__init__(model, heads)
        last = model.base_model.encoder.layer[-1]
        kind: Any = type(last)
        last.__class__ = reading(kind)

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor | None) -> Tensor:
        ids, mask = inputs["input_ids"], key_mask(inputs.get("attention_mask"), self.model)
        hidden = self.body(ids, inputs.get("token_type_ids"), mask)
        first = read is None
        if read is None:
            read = torch.arange(len(ids), device=ids.device) * ids.shape[1]
        last = self.model.base_model.encoder.layer[-1]
        if self.whole:
            states = last(hidden, mask).reshape(-1, hidden.shape[-1]).index_select(0, read)
        else:
            states = last(hidden, mask, read)
        return self.pooled(states) if first else states

    def embedded(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """What the first layer reads, [R, L, H]."""
        return self.model.bert.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)

    def body(self, input_ids: Tensor, token_type_ids: Tensor | None, mask: Any) -> Tensor:
        """Hidden states [R, L, H] before the last layer; `mask` as `key_mask` makes it."""
        hidden = self.embedded(input_ids, token_type_ids)
        for layer in self.model.base_model.encoder.layer[:-1]:
            if self.recompute is not None and self.training:
                hidden = self.recompute(layer, hidden, mask)
            else:
                hidden = layer(hidden, mask)
        return hidden

    def pooled(self, first: Tensor) -> Tensor:
        """Summaries [R, H] of rows from the states [R, H] of their first positions."""
        pooler = self.model.bert.pooler
        return pooler.activation(pooler.dense(first))

    def language(self, name: str, hidden: Tensor) -> Tensor:
        """Logits [N, V] of "mlm", or [N, 2] of "pair" for the hidden states of first positions."""
        if name == "pair":
            return self.model.cls.seq_relationship(self.pooled(hidden))
        return self.model.cls.predictions(hidden)

    def language_modules(self, name: str) -> list[nn.Module]:
        cls = self.model.cls
        return [cls.seq_relationship, self.model.bert.pooler] if name == "pair" else [cls.predictions]

    def classifier_modules(self) -> list[nn.Module]:
        return [self.model.classifier]

    def classify(self, hidden: Tensor) -> Tensor:
        return self.model.classifier(self.model.dropout(hidden))

    def compute_every_position(self) -> None:
        self.whole = True

    def checkpoint_activations(self) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations."""
        self.recompute = recomputed()

    def compile_body(self) -> None:
        if self.recompute is not None:
            self.recompute = recomputed(compiled=True)
        self.body = torch.compile(self.body)  # type: ignore[method-assign]
