"""ModernBERT (Warner et al. 2024): an encoder with rotary positions, gated layers and mostly local attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.core.batch import Family
from lmctl.core.vocabulary import Vocabulary
from lmctl.model.attention import Attending
from lmctl.model.sizes import check_heads, check_sizes, rounded

if TYPE_CHECKING:
    from lmctl.model.modernbert_network import ModernBertEncoder


@dataclass(frozen=True)
class ModernBert(Attending):
    """ModernBERT spec: sizes and attention pattern; the vocabulary comes from the tokenizer."""

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    max_positions: int = 8192
    global_every: int = 3
    local_window: int = 128
    dropout: float = 0.0
    pad_vocabulary_to: int = 1

    family: ClassVar[Family] = "encoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("layers", "hidden", "heads", "feed_forward", "max_positions", "global_every", "local_window")
        check_sizes(self, (*counts, "pad_vocabulary_to"), ("dropout",))
        check_heads(self.hidden, self.heads)

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.dropout,)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> ModernBertEncoder:
        """A randomly initialised network with a masked language model head, or a classifier if `heads` has none."""
        from transformers import ModernBertConfig, ModernBertForMaskedLM, ModernBertForSequenceClassification

        from lmctl.model.modernbert_network import ModernBertEncoder

        config = ModernBertConfig(
            vocab_size=rounded(vocabulary.size, self.pad_vocabulary_to),
            num_hidden_layers=self.layers,
            hidden_size=self.hidden,
            num_attention_heads=self.heads,
            intermediate_size=self.feed_forward,
            max_position_embeddings=self.max_positions,
            global_attn_every_n_layers=self.global_every,
            local_attention=self.local_window,
            mlp_dropout=self.dropout,
            embedding_dropout=self.dropout,
            classifier_dropout=self.dropout,
            pad_token_id=vocabulary.pad,
            bos_token_id=vocabulary.cls,
            eos_token_id=vocabulary.sep,
            cls_token_id=vocabulary.cls,
            sep_token_id=vocabulary.sep,
        )
        config._attn_implementation = "sdpa"
        if "mlm" in heads:
            return ModernBertEncoder(ModernBertForMaskedLM(config), heads).attending(self.attention)
        config.num_labels = next(iter(heads.values()))
        return ModernBertEncoder(ModernBertForSequenceClassification(config), heads).attending(self.attention)
