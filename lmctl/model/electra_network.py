"""transformers' ELECTRA: BERT's layers behind embeddings that may be of another width, and one trunk or two.

The generator and the discriminator share all of their embeddings (Clark et al. 2020, section 3.2). They are two modules
with the same parameters, so that what an adversary adds to the discriminator's words stays out of the generator, which
writes what these words are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from lmctl.core.errors import ConfigError
from lmctl.model.artifact import GENERATOR
from lmctl.model.bert_network import BertNetwork
from lmctl.model.network import TransformerNetwork


class ElectraNetwork(BertNetwork):
    """One trunk: an `ElectraForMaskedLM`, or an `ElectraForSequenceClassification` where only rows are asked about."""

    has_pair_head = False

    def embedded(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        trunk = self.model.electra
        hidden = trunk.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        config = self.model.config
        return hidden if config.embedding_size == config.hidden_size else trunk.embeddings_project(hidden)

    def pooled(self, first: Tensor) -> Tensor:
        return first

    def language(self, name: str, hidden: Tensor) -> Tensor:
        """Logits [N, V] of "mlm"."""
        return self.model.generator_lm_head(self.model.generator_predictions(hidden))

    def language_modules(self, name: str) -> list[nn.Module]:
        return [self.model.generator_predictions, self.model.generator_lm_head]

    def classify(self, hidden: Tensor) -> Tensor:
        return self.model.classifier(hidden[:, None])


class ElectraWithGenerator(ElectraNetwork):
    """An `ElectraForPreTraining`, which says of pieces whether they were replaced, and the `ElectraForMaskedLM` that
    replaces them."""

    def __init__(self, model: Any, heads: Mapping[str, int], generator: TransformerNetwork) -> None:
        """`generator`: an `ElectraNetwork` with the head "mlm", whose embeddings become those of `model`."""
        super().__init__(model, heads)
        self.generator = generator
        for name, parameter in model.electra.embeddings.named_parameters():
            module, _, own = name.rpartition(".")
            setattr(generator.model.electra.embeddings.get_submodule(module), own, parameter)
        generator.model.generator_lm_head.weight = model.electra.embeddings.word_embeddings.weight

    def language(self, name: str, hidden: Tensor) -> Tensor:
        """Logits [N, V] of the generator, or [N, 1] of "rtd": above 0 where a piece was replaced."""
        if name == GENERATOR:
            return self.generator.language("mlm", hidden)
        return self.model.discriminator_predictions(hidden)[:, None]

    def language_modules(self, name: str) -> list[nn.Module]:
        return self.generator.language_modules("mlm") if name == GENERATOR else [self.model.discriminator_predictions]

    def attending(self, choice: str) -> Self:
        self.generator.attending(choice)
        return super().attending(choice)

    def stacks(self) -> dict[str, list[nn.Module]]:
        return {**super().stacks(), GENERATOR: self.generator.stacks()["layers"]}

    def checkpoint_activations(self) -> None:
        super().checkpoint_activations()
        self.generator.checkpoint_activations()

    def compile_body(self) -> None:
        super().compile_body()
        self.generator.compile_body()

    def beside(self) -> dict[str, Any]:
        return {GENERATOR: self.generator.model}


def electra_class(heads: Mapping[str, int]) -> Any:
    """The transformers class with a place for `heads`; of a network with a generator the discriminator's."""
    from transformers import ElectraForMaskedLM, ElectraForPreTraining, ElectraForSequenceClassification

    if "rtd" not in heads:
        return ElectraForMaskedLM if "mlm" in heads else ElectraForSequenceClassification
    if "mlm" in heads:
        raise ConfigError(
            "a discriminator predicts no words, so a mix cannot have both rtd and mlm tasks",
            "nearest: mix=rtd, whose generator learns from masked words",
        )
    return ElectraForPreTraining
