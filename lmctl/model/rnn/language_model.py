"""Recurrent language models as transformers' `PreTrainedModel`s, saved, loaded and used like any other.

`register()` adds them to `AutoConfig` and `AutoModelForCausalLM`. Dropout is applied between layers and never on the
recurrent connections (Zaremba et al. 2014, section 3); `weight_drop` and `locked_dropout` are those of the AWD-LSTM
(Merity et al. 2018, sections 2 and 4.1, 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig
from transformers.utils import ModelOutput

from lmctl.kernels.dropout import dropout
from lmctl.model.rnn import LANGUAGE_MODEL
from lmctl.model.rnn.layers import LAYERS, RecurrentPreTrainedModel

State = list[tuple[Tensor, ...]]
"""Per layer the hidden state [1, R, H] and, for an LSTM, the cell state [1, R, H]."""


class RecurrentLMConfig(PreTrainedConfig):
    """Sizes and regularisation of a `RecurrentLMForCausalLM`."""

    model_type = LANGUAGE_MODEL

    def __init__(
        self,
        vocab_size: int = 1000,
        cell: str = "lstm",
        num_hidden_layers: int = 2,
        hidden_size: int = 200,
        dropout: float = 0.2,
        embedding_dropout: float = 0.0,
        weight_drop: float = 0.0,
        locked_dropout: bool = False,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.cell = vocab_size, cell
        self.num_hidden_layers, self.hidden_size = num_hidden_layers, hidden_size
        self.dropout, self.embedding_dropout = dropout, embedding_dropout
        self.weight_drop, self.locked_dropout = weight_drop, locked_dropout
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


@dataclass
class RecurrentLMOutput(ModelOutput):
    """Logits, and the state after the last position."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    state: Any = None


class RecurrentLMModel(RecurrentPreTrainedModel):
    """Embeddings and recurrent layers."""

    config_class = RecurrentLMConfig

    def __init__(self, config: RecurrentLMConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.embeddings = nn.Embedding(config.vocab_size, width)
        self.layers = nn.ModuleList(
            LAYERS[config.cell](width, width, batch_first=True) for _ in range(config.num_hidden_layers)
        )
        self.post_init()

    def forward(self, input_ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Hidden states [R, L, H] of `input_ids` int64 [R, L], starting from `state`, and the state after them."""
        hidden = self._dropout(self._embedded(input_ids))
        after: State = []
        for place, layer in enumerate(self.layers):
            before: Any = None if state is None else state[place]
            if self.config.cell == "gru" and before is not None:
                (before,) = before
            hidden, final = self._run(layer, hidden, before)
            after.append(final if isinstance(final, tuple) else (final,))
            hidden = self._dropout(hidden)
        return hidden, after

    def _embedded(self, input_ids: Tensor) -> Tensor:
        embedded, rate = self.embeddings(input_ids), self.config.embedding_dropout if self.training else 0.0
        if not rate:
            return embedded
        # Embedding dropout: a dropped token is dropped at all its positions (Gal and Ghahramani 2016, section 4.2).
        kept = self.embeddings.weight.new_empty((self.config.vocab_size, 1)).bernoulli_(1 - rate) / (1 - rate)
        return embedded * nn.functional.embedding(input_ids, kept)

    def _dropout(self, hidden: Tensor) -> Tensor:
        rate = self.config.dropout
        if not self.config.locked_dropout or not self.training or not rate:
            return dropout(hidden, rate, self.training)
        mask = hidden.new_empty((len(hidden), 1, hidden.shape[-1])).bernoulli_(1 - rate) / (1 - rate)
        return hidden * mask  # locked dropout: the same units at every position of a row

    def _run(self, layer: Any, hidden: Tensor, before: Any) -> tuple[Tensor, Any]:
        if not self.training or not self.config.weight_drop:
            return layer(hidden, before)
        dropped = dropout(layer.weight_hh_l0, self.config.weight_drop)
        weights = {name: dropped if name == "weight_hh_l0" else p for name, p in layer.named_parameters()}
        return torch.func.functional_call(layer, weights, (hidden, before))


class RecurrentLMForCausalLM(RecurrentPreTrainedModel, GenerationMixin):
    """A recurrent causal language model; `generate` recomputes the whole prefix at every step."""

    config_class = RecurrentLMConfig
    _tied_weights_keys = {"lm_head.weight": "model.embeddings.weight"}  # noqa: RUF012
    _is_stateful = True

    def __init__(self, config: RecurrentLMConfig) -> None:
        super().__init__(config)
        self.model = RecurrentLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=True)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        state: State | None = None,
        **kwargs: Any,
    ) -> RecurrentLMOutput:
        """Logits [R, L, V], and the mean loss if `labels` int64 [R, L] (-100: ignored) are given. Padding must be at
        the end, where nothing depends on it, so `attention_mask` is ignored."""
        hidden, after = self.model(input_ids, state)
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return RecurrentLMOutput(loss=loss, logits=logits, last_hidden_state=hidden, state=after)

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}


AutoConfig.register(RecurrentLMConfig.model_type, RecurrentLMConfig, exist_ok=True)
AutoModelForCausalLM.register(RecurrentLMConfig, RecurrentLMForCausalLM, exist_ok=True)
