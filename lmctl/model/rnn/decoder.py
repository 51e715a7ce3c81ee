"""A recurrent decoder with attention and a cached state for incremental decoding.

`bahdanau` (Bahdanau et al. 2015, section 3.1 and appendix A.2): the previous state is the query of the context, which
is an input of the first cell together with the last token; the output is computed from state, context and token.
`luong` (Luong et al. 2015, sections 3.1 and 3.3): the new state is the query of the context, the output is computed
from both, and is an input of the first cell at the next position ("input feeding").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from lmctl.model.rnn.attention import AdditiveAttention, GeneralAttention
from lmctl.model.rnn.layers import final

CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}
ATTENTIONS = {"bahdanau": AdditiveAttention, "luong": GeneralAttention}


@dataclass
class DecoderState:
    """Recurrent state of R rows, in place of transformers' key-value cache."""

    cells: list[tuple[Tensor, ...]]
    """Per layer the hidden state [R, H] and, for an LSTM, the cell state [R, H]."""
    fed: Tensor
    """Luong's last output [R, H], an input of the next position (unused in Bahdanau's)."""
    keys: Tensor
    """Attention keys of the source [R, L, H]."""

    def reorder_cache(self, beams: Tensor) -> None:
        """Beam search: row i continues from row `beams[i]`, a hypothesis for the same source, so the keys stay."""
        self.cells = [tuple(part[beams] for part in cell) for cell in self.cells]
        self.fed = self.fed[beams]


class RecurrentDecoder(nn.Module):
    """Embeddings, cells, attention and output layer of a `RecurrentSeq2SeqModel`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.width, known, source = config.hidden_size, config.embedding_size, 2 * config.hidden_size
        self.early = config.attention == "bahdanau"
        """Whether the context is computed before the cells are updated, or after."""
        self.embeddings = nn.Embedding(config.vocab_size, known)
        self.dropout = nn.Dropout(config.dropout)
        fed = source if self.early else self.width
        self.layers = nn.ModuleList(
            CELLS[config.cell](known + fed if place == 0 else self.width, self.width)
            for place in range(config.decoder_layers)
        )
        parts = 2 if config.cell == "lstm" else 1
        self.bridge = nn.Linear(source, config.decoder_layers * parts * self.width)
        self.attention = ATTENTIONS[config.attention](self.width, source)
        self.readout = nn.Linear(self.width + source + (known if self.early else 0), self.width, bias=False)
        narrower = config.output_size != self.width
        self.projection = nn.Linear(self.width, config.output_size, bias=False) if narrower else nn.Identity()

    def forward(
        self,
        input_ids: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: object = None,
        use_cache: bool = False,
        attention_mask: Tensor | None = None,
    ) -> BaseModelOutputWithPast:
        """Hidden states [R, T, O] of `input_ids` int64 [R, T], continuing from `past_key_values` if that is a
        `DecoderState`, else from the initial state: transformers' `generate` first passes an empty cache of its own.
        Padding must be at the end, where nothing depends on it, so `attention_mask` is ignored."""
        source, state = encoder_hidden_states, past_key_values
        if not isinstance(state, DecoderState):
            state = self.begin(source, encoder_attention_mask)
        padding = None if encoder_attention_mask is None else ~encoder_attention_mask.bool()
        outputs, after = self.read(self.dropout(self.embeddings(input_ids)), source, padding, state)
        hidden = self.projection(self.dropout(outputs))
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=after if use_cache else None)

    def begin(self, source: Tensor, mask: Tensor | None) -> DecoderState:
        """Initial state: tanh(W h) of the final states of the encoder's directions. It stays in the weights' precision
        under autocast, because every position adds to it."""
        bridged = self.bridge(final(source, mask)).to(self.bridge.weight.dtype)
        parts = torch.tanh(bridged).split(self.width, dim=1)
        each = len(parts) // len(self.layers)
        cells = [parts[place * each : (place + 1) * each] for place in range(len(self.layers))]
        return DecoderState(cells, source.new_zeros(len(source), self.width), self.attention.keys(source))

    def read(
        self, embedded: Tensor, source: Tensor, padding: Tensor | None, state: DecoderState
    ) -> tuple[Tensor, DecoderState]:
        """Outputs [R, T, H] for `embedded` [R, T, E], and the state after them. Everything independent of the previous
        position is computed for all positions at once, outside of the loop."""
        layers: list[Any] = list(self.layers)
        known = embedded.shape[-1]
        pieces_weight, fed_weight = layers[0].weight_ih[:, :known], layers[0].weight_ih[:, known:]
        cells, fed = list(state.cells), state.fed
        tops, contexts, outputs = [], [], []
        for gates in F.linear(embedded, pieces_weight, layers[0].bias_ih).unbind(dim=1):
            if self.early:
                fed = self.attention(cells[-1][0], state.keys, source, padding)
                contexts.append(fed)
            cells[0] = step(layers[0], gates + F.linear(fed, fed_weight), cells[0])
            for place, layer in enumerate(layers[1:], start=1):
                below = self.dropout(cells[place - 1][0])
                cells[place] = step(layer, F.linear(below, layer.weight_ih, layer.bias_ih), cells[place])
            top = cells[-1][0]
            if self.early:
                tops.append(top)
            else:
                context = self.attention(top, state.keys, source, padding)
                fed = torch.tanh(self.readout(torch.cat([context, top], dim=1)))
                outputs.append(fed)
        after = DecoderState(cells, fed, state.keys)
        if not self.early:
            return torch.stack(outputs, dim=1), after
        # The paper has a maxout layer over these three (A.2.2); here it is a tanh layer.
        made_of = [torch.stack(tops, dim=1), torch.stack(contexts, dim=1), embedded]
        return torch.tanh(self.readout(torch.cat(made_of, dim=-1))), after


def step(cell: Any, gates: Tensor, before: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """One step of the cell by torch's equations: the new hidden state [R, H] (and, of an LSTM, cell state). `gates` is
    the input's contribution with its bias: [R, 4H] (input, forget, cell, output) or [R, 3H] (reset, update, new)."""
    hidden = before[0]
    own = F.linear(hidden, cell.weight_hh, cell.bias_hh)
    if isinstance(cell, nn.LSTMCell):
        enter, keep, new, leave = (gates + own).chunk(4, dim=1)
        memory = keep.sigmoid() * before[1] + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * memory.tanh(), memory
    (reset, update, new), (own_reset, own_update, own_new) = gates.chunk(3, dim=1), own.chunk(3, dim=1)
    kept = (update + own_update).sigmoid()
    new = torch.tanh(new + (reset + own_reset).sigmoid() * own_new)
    return ((1 - kept) * new + kept * hidden,)
