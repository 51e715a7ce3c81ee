"""Recurrent classifiers as transformers' `PreTrainedModel`s: bidirectional layers, pooling over the row, a linear
classifier (Conneau et al. 2017, InferSent, section 3.2.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from lmctl.model.rnn import CLASSIFIER
from lmctl.model.rnn.layers import BothWays, RecurrentPreTrainedModel, final


class RecurrentClassifierConfig(PreTrainedConfig):
    """Sizes and regularisation of a `RecurrentForSequenceClassification`. `hidden_size` is the width of both directions
    together."""

    model_type = CLASSIFIER

    def __init__(
        self,
        vocab_size: int = 1000,
        cell: str = "lstm",
        num_hidden_layers: int = 2,
        embedding_size: int = 256,
        hidden_size: int = 512,
        pooling: str = "max",
        dropout: float = 0.3,
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.cell, self.num_hidden_layers = vocab_size, cell, num_hidden_layers
        self.embedding_size, self.hidden_size = embedding_size, hidden_size
        self.pooling, self.dropout = pooling, dropout
        super().__init__(**kwargs)

    @property
    def classifier_dropout(self) -> float:
        """Dropout before the classifier, under the name that other encoders use."""
        return self.dropout


class RecurrentClassifierModel(RecurrentPreTrainedModel):
    """Token and segment embeddings, and bidirectional recurrent layers.

    The second text of a pair has a segment embedding, as in BERT, added to every position: each direction passes the
    [SEP] between the texts only once, and pooling mixes the positions of both.
    """

    config_class = RecurrentClassifierConfig

    def __init__(self, config: RecurrentClassifierConfig) -> None:
        super().__init__(config)
        width = config.embedding_size
        self.embeddings = nn.Embedding(config.vocab_size, width)
        self.segment_embeddings = nn.Embedding(2, width)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = BothWays(config.cell, config.num_hidden_layers, width, config.hidden_size // 2, config.dropout)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Hidden states [R, L, H] of `input_ids` int64 [R, L]; padding must be at the ends of rows."""
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        embedded = self.embeddings(input_ids) + self.segment_embeddings(token_type_ids)
        return BaseModelOutput(last_hidden_state=self.layers(self.dropout(embedded), attention_mask))

    def pooled(self, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        """One vector per row [R, H] of hidden states [R, L, H]: max or mean pooling over positions without padding, or
        the last state of each direction."""
        if self.config.pooling == "last":
            return final(hidden, attention_mask)
        if attention_mask is None:
            return hidden.amax(dim=1) if self.config.pooling == "max" else hidden.mean(dim=1)
        real = attention_mask.bool()[..., None]
        if self.config.pooling == "max":
            return hidden.masked_fill(~real, float("-inf")).amax(dim=1)
        return (hidden * real).sum(dim=1) / real.sum(dim=1)


class RecurrentForSequenceClassification(RecurrentPreTrainedModel):
    """A bidirectional recurrent network for classification or regression of texts and text pairs."""

    config_class = RecurrentClassifierConfig

    def __init__(self, config: RecurrentClassifierConfig) -> None:
        super().__init__(config)
        self.model = RecurrentClassifierModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits [R, C], and the mean loss by `config.problem_type` if `labels` are given: int64 [R], float [R] for
        regression, float [R, C] for multi-label classification."""
        hidden = self.model(input_ids, attention_mask, token_type_ids).last_hidden_state
        logits = self.classifier(self.dropout(self.model.pooled(hidden, attention_mask)))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(CLASSIFIER, RecurrentClassifierConfig, exist_ok=True)
AutoModelForSequenceClassification.register(
    RecurrentClassifierConfig, RecurrentForSequenceClassification, exist_ok=True
)
