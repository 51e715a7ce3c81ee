"""A recurrent classifier as a network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from lmctl.core.errors import ConfigError
from lmctl.model.network import LANGUAGE, TransformerNetwork
from lmctl.model.recurrent_network import no_checkpointing


class RecurrentClassifierNetwork(TransformerNetwork):
    """`RecurrentForSequenceClassification`, whose classifier serves the first task; the others have extra heads."""

    def __init__(self, model: nn.Module, heads: Mapping[str, int]) -> None:
        refuse_language(heads)
        super().__init__(model, heads)

    def summary(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.model.model.pooled(hidden, inputs.get("attention_mask"))

    def classify(self, hidden: Tensor) -> Tensor:
        return self.model.classifier(self.model.dropout(hidden))

    def classifier_modules(self) -> list[nn.Module]:
        return [self.model.classifier]

    def to_be_seen(self) -> dict[str, list[nn.Module]]:
        """Packed rows go through the layers, so that only the whole of them can be watched, as one."""
        return {"layers": [self.model.model.layers]}

    def checkpoint_activations(self) -> None:
        raise no_checkpointing()


def refuse_language(heads: Mapping[str, int]) -> None:
    """ConfigError if one of `heads` is for predicting text: both directions of a BiLSTM would see the answer."""
    names = {"mlm": "masked language model head", "lm": "language model head", "pair": "head for pairs of segments"}
    for name in LANGUAGE:
        if name in heads:
            raise ConfigError(
                f"a BiLSTM has no {names[name]}", "nearest: model=bert_tiny, or for this model mix=classify"
            )
