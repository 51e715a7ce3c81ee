"""Recurrent encoder-decoders with attention as transformers' `PreTrainedModel`s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationMixin, PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from lmctl.model.rnn import SEQ2SEQ
from lmctl.model.rnn.decoder import RecurrentDecoder
from lmctl.model.rnn.layers import BothWays, RecurrentPreTrainedModel


class RecurrentSeq2SeqConfig(PreTrainedConfig):
    """Sizes and regularisation of a `RecurrentForConditionalGeneration`. `hidden_size` is the width of the decoder and
    of each direction of the encoder."""

    model_type = SEQ2SEQ

    def __init__(
        self,
        vocab_size: int = 1000,
        cell: str = "lstm",
        encoder_layers: int = 1,
        decoder_layers: int = 1,
        embedding_size: int = 256,
        hidden_size: int = 256,
        attention: str = "bahdanau",
        dropout: float = 0.3,
        tie_word_embeddings: bool = True,
        is_encoder_decoder: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.cell, self.attention = vocab_size, cell, attention
        self.encoder_layers, self.decoder_layers = encoder_layers, decoder_layers
        self.embedding_size, self.hidden_size, self.dropout = embedding_size, hidden_size, dropout
        super().__init__(tie_word_embeddings=tie_word_embeddings, is_encoder_decoder=is_encoder_decoder, **kwargs)

    @property
    def output_size(self) -> int:
        """Width of the states before the vocabulary projection: that of the embeddings if they are tied."""
        return self.embedding_size if self.tie_word_embeddings else self.hidden_size


@dataclass
class RecurrentSeq2SeqOutput(ModelOutput):
    """Logits, and the state after the last position, from which `generate` continues."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    encoder_last_hidden_state: Tensor | None = None


class RecurrentEncoder(nn.Module):
    """Embeddings and bidirectional recurrent layers."""

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__()
        width = config.embedding_size
        self.embeddings = nn.Embedding(config.vocab_size, width)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = BothWays(config.cell, config.encoder_layers, width, config.hidden_size, config.dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> BaseModelOutput:
        """Hidden states [R, L, 2H] of `input_ids` int64 [R, L]; padding must be at the ends of rows."""
        hidden = self.layers(self.dropout(self.embeddings(input_ids)), attention_mask)
        return BaseModelOutput(last_hidden_state=hidden)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings


class RecurrentSeq2SeqPreTrainedModel(RecurrentPreTrainedModel):
    """Initialisation: projections by Glorot and Bengio 2010 (equation 16), cells as in the other models, and larger
    embeddings, so that attention can distinguish tokens from the start: with +-0.1 it learns slowly."""

    config_class = RecurrentSeq2SeqConfig

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.3)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)


class RecurrentSeq2SeqModel(RecurrentSeq2SeqPreTrainedModel):
    """An encoder and a decoder, which depends on the encoder's last hidden states only."""

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__(config)
        self.encoder = RecurrentEncoder(config)
        self.decoder = RecurrentDecoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.encoder.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.encoder.embeddings = value


class RecurrentForConditionalGeneration(RecurrentSeq2SeqPreTrainedModel, GenerationMixin):
    """A recurrent encoder-decoder for generation; `generate` carries the decoder's state from position to position."""

    _tied_weights_keys = {  # noqa: RUF012
        "model.decoder.embeddings.weight": "model.encoder.embeddings.weight",
        "lm_head.weight": "model.encoder.embeddings.weight",
    }
    _is_stateful = True

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__(config)
        self.model = RecurrentSeq2SeqModel(config)
        self.lm_head = nn.Linear(config.output_size, config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool = False,
        **kwargs: Any,
    ) -> RecurrentSeq2SeqOutput:
        """Logits [R, T, V] for `decoder_input_ids` int64 [R, T], and the mean loss if `labels` int64 [R, T] (-100:
        ignored) are given, from which the decoder's inputs are derived if there are none."""
        if encoder_outputs is None:
            encoder_outputs = self.model.encoder(input_ids, attention_mask)
        source = encoder_outputs[0]
        if decoder_input_ids is None and labels is not None:
            start = labels.new_full((len(labels), 1), self.config.decoder_start_token_id)
            decoder_input_ids = torch.cat([start, labels[:, :-1]], dim=1)
            decoder_input_ids = decoder_input_ids.masked_fill(decoder_input_ids == -100, self.config.pad_token_id)
        decoded = self.model.decoder(decoder_input_ids, source, attention_mask, past_key_values, use_cache)
        logits = self.lm_head(decoded.last_hidden_state)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return RecurrentSeq2SeqOutput(loss, logits, decoded.past_key_values, source)

    def _resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        resized = super()._resize_token_embeddings(*args, **kwargs)
        if not self.config.tie_word_embeddings:  # the decoder has its own embeddings
            decoder = self.model.decoder
            decoder.embeddings = self._get_resized_embeddings(decoder.embeddings, *args, **kwargs)
        return resized


AutoConfig.register(SEQ2SEQ, RecurrentSeq2SeqConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(RecurrentSeq2SeqConfig, RecurrentForConditionalGeneration, exist_ok=True)
