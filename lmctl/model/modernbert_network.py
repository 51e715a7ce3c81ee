"""transformers' ModernBERT, whose last layer's feed-forward half is computed only at positions that are read.

As in BERT (`bert_network.py`; the `subset_idx` of MosaicBERT, Portes et al. 2023, section 3): a masked language model
is read at 15 % of its positions, and the others of the last layer feed nothing after its attention. Exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from lmctl.model.network import TransformerNetwork


@cache
def reading(layer: Any) -> Any:
    """The class of a last layer that gives its states at the positions `read` (int64 [N], flattened; None: all) only,
    [N, H] instead of [R, L, H]. `layer`: transformers' class, which takes long to import, and only if it is needed."""

    def forward(self: Any, hidden_states: Tensor, **given: Any) -> Tensor:
        if self.read is None:
            return layer.forward(self, hidden_states, **given)
        attended, _ = self.attn(self.attn_norm(hidden_states), **given)
        states = (hidden_states + attended).reshape(-1, hidden_states.shape[-1]).index_select(0, self.read)
        return states + self.mlp(self.mlp_norm(states))

    return type(f"Last{layer.__name__}", (layer,), {"forward": forward, "read": None})


class ModernBertEncoder(TransformerNetwork):
    """ModernBERT, with its prediction head before the vocabulary projection and before the classifier, which pools by
    the first position or the mean."""

    def __init__(self, model: Any, heads: Mapping[str, int]) -> None:
        super().__init__(model, heads)
        self.whole = False
        """Whether the last layer, too, is computed at all positions."""
        last = model.base_model.layers[-1]
        kind: Any = type(last)
        last.__class__ = reading(kind)

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor | None) -> Tensor:
        if read is None or self.whole:
            return super().encode(inputs, read)
        last = self.model.base_model.layers[-1]
        last.read = read
        try:
            return self.hidden(inputs)
        finally:
            last.read = None

    def compute_every_position(self) -> None:
        self.whole = True

    def checkpoint_activations(self) -> None:
        """As elsewhere, for all positions: which ones are read is not known when a layer is computed again."""
        self.whole = True
        super().checkpoint_activations()

    def compile_body(self) -> None:
        self.whole = True
        super().compile_body()

    def language(self, name: str, hidden: Tensor) -> Tensor:
        return self.model.decoder(self.model.head(hidden))

    def language_modules(self, name: str) -> list[nn.Module]:
        return [self.model.head, self.model.decoder]

    def classifier_modules(self) -> list[nn.Module]:
        return [self.model.head, self.model.classifier]

    def summary(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        if self.model.config.classifier_pooling == "cls":
            return hidden[:, 0]
        mask = inputs.get("attention_mask")
        if mask is None:
            return hidden.mean(dim=1)
        return (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def classify(self, hidden: Tensor) -> Tensor:
        return self.model.classifier(self.model.drop(self.model.head(hidden)))
