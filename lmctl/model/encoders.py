"""Networks of encoders other than BERT and ModernBERT: RoBERTa (and XLM-R), DistilBERT."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lmctl.model.network import TransformerNetwork


class RobertaEncoder(TransformerNetwork):
    """RoBERTa and XLM-R: `lm_head`, or a two-layer classifier on the first position."""

    def language(self, name: str, hidden: Tensor) -> Tensor:
        return self.model.lm_head(hidden)

    def language_modules(self, name: str) -> list[nn.Module]:
        return [self.model.lm_head]

    def classifier_modules(self) -> list[nn.Module]:
        return [self.model.classifier]

    def summary(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        return hidden[:, 0]

    def classify(self, hidden: Tensor) -> Tensor:
        return self.model.classifier(hidden[:, None])


class DistilBertEncoder(TransformerNetwork):
    """DistilBERT: `vocab_transform`, or a two-layer classifier on the first position."""

    def hidden(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return super().hidden({name: value for name, value in inputs.items() if name != "token_type_ids"})

    def language(self, name: str, hidden: Tensor) -> Tensor:
        model = self.model
        return model.vocab_projector(model.vocab_layer_norm(model.activation(model.vocab_transform(hidden))))

    def language_modules(self, name: str) -> list[nn.Module]:
        return [self.model.vocab_transform, self.model.vocab_layer_norm, self.model.vocab_projector]

    def classifier_modules(self) -> list[nn.Module]:
        return [self.model.pre_classifier, self.model.classifier]

    def summary(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        return hidden[:, 0]

    def classify(self, hidden: Tensor) -> Tensor:
        return self.model.classifier(self.model.dropout(torch.relu(self.model.pre_classifier(hidden))))
