"""ELECTRA (Clark et al. 2020): a discriminator, and a smaller generator that shares its embeddings; from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lmctl.core.batch import Family
from lmctl.core.vocabulary import Vocabulary
from lmctl.model.attention import Attending
from lmctl.model.sizes import check_heads, check_sizes, rounded

if TYPE_CHECKING:
    from lmctl.model.electra_network import ElectraNetwork


@dataclass(frozen=True)
class Electra(Attending):
    """Size and regularisation; the vocabulary comes from the tokenizer."""

    family: ClassVar[Family] = "encoder"
    has_generator: ClassVar[bool] = True
    nearest_mix: ClassVar[str] = "mix=rtd"

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    embedding: int
    generator_size: float = 0.25
    max_positions: int = 512
    dropout: float = 0.1
    attention_dropout: float = 0.1
    pad_vocabulary_to: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("layers", "hidden", "heads", "feed_forward", "embedding", "max_positions", "pad_vocabulary_to")
        check_sizes(self, counts, ("dropout", "attention_dropout"))
        check_heads(self.hidden, self.heads)
        if not 0 < self.generator_size <= 1:
            raise ValueError(
                "generator_size must be above 0 and at most 1, a share of the discriminator's widths, "
                f"got {self.generator_size}"
            )
        hidden, heads = self._of_generator(self.hidden), self._of_generator(self.heads)
        if hidden % heads:
            raise ValueError(
                f"generator_size gives the generator a width of {hidden}, which its {heads} heads cannot share evenly"
            )

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.dropout, self.attention_dropout)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> ElectraNetwork:
        """A freshly initialised network with the heads that are wanted; a generator only where one of them is its."""
        from transformers import ElectraForMaskedLM

        from lmctl.model.electra_network import ElectraNetwork, ElectraWithGenerator, electra_class

        config, kind = self._config(vocabulary), electra_class(heads)
        if not {"mlm", "rtd"} & set(heads):
            config.num_labels = next(iter(heads.values()))
        if "rtd" not in heads:
            return ElectraNetwork(kind(config), heads).attending(self.attention)
        generator = ElectraForMaskedLM(self._config(vocabulary, generator=True))
        fills_in = ElectraNetwork(generator, {"mlm": heads["generator"]})
        return ElectraWithGenerator(kind(config), heads, fills_in).attending(self.attention)

    def _config(self, vocabulary: Vocabulary, generator: bool = False) -> Any:
        from transformers import ElectraConfig

        hidden, heads, feed_forward = (
            self._of_generator(size) if generator else size for size in (self.hidden, self.heads, self.feed_forward)
        )
        config = ElectraConfig(
            vocab_size=rounded(vocabulary.size, self.pad_vocabulary_to),
            embedding_size=self.embedding,
            hidden_size=hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            intermediate_size=feed_forward,
            max_position_embeddings=self.max_positions,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.attention_dropout,
            pad_token_id=vocabulary.pad,
        )
        config._attn_implementation = "sdpa"
        return config

    def _of_generator(self, size: int) -> int:
        return max(1, round(self.generator_size * size))
