"""Masked language modelling on full rows (Devlin et al. 2019, section 3.1, Task 1; rows as in Liu et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmctl.core.batch import Batch, Family, Kind, LabelKind, Targets, Terms
from lmctl.core.draws import Draws
from lmctl.core.store import TokenStore
from lmctl.core.tasks import Material, Network
from lmctl.core.vocabulary import Vocabulary
from lmctl.objective.batching import padding_mask
from lmctl.objective.full_rows import FullRows
from lmctl.objective.masking import DRAWS_PER_POSITION, mask_tokens
from lmctl.objective.scoring import correct, cross_entropies, unigram_nats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MaskedLM:
    """Predict the masked pieces of full rows of text."""

    mask_rate: float = 0.15
    whole_words: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.mask_rate < 1:
            raise ValueError(f"mask_rate is a share of the tokens between 0 and 1, got {self.mask_rate}")

    reads: ClassVar[Kind] = "documents"
    families: ClassVar[tuple[Family, ...]] = ("encoder",)
    pieces: ClassVar[tuple[str, ...]] = ()
    label_kind: ClassVar[LabelKind | None] = None

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        return {"mlm": vocabulary.size}

    def examples(self, material: Material) -> MaskedRows:
        rows = FullRows(material.store, material.vocabulary, material.seq_len)
        return MaskedRows(self, material, rows)

    def figures(self, means: dict[str, Any]) -> dict[str, float]:
        return dict(means)

    def _logits(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        hidden = network.encode(batch.inputs, batch.targets["mlm"].positions)
        return {"mlm": network.head("mlm", hidden)}

    def terms(self, network: Network, batch: Batch) -> Terms:
        return cross_entropies(self._logits(network, batch), batch)

    def scores(self, network: Network, batch: Batch) -> Terms:
        logits = self._logits(network, batch)
        return cross_entropies(logits, batch) | correct(logits, batch)

    def baseline(self, batch: Batch, train: TokenStore) -> dict[str, Any]:
        return {"mlm": unigram_nats(train.histogram, batch.targets["mlm"].labels)}


@dataclass(frozen=True)
class MaskedRows:
    """The rows of `MaskedLM`."""

    objective: MaskedLM
    material: Material
    rows: FullRows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens_per_row(self) -> float:
        return self.rows.body + 2.0

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: Draws) -> Batch:
        import torch

        vocabulary = self.material.vocabulary
        ids, lengths = self.rows.gather(rows, epochs, self.material.rewrite, draws)
        uniforms = draws.uniforms(epochs, rows, DRAWS_PER_POSITION * ids.shape[1])
        masked = mask_tokens(ids, uniforms, vocabulary, self.objective.mask_rate, self.objective.whole_words)
        inputs = {"input_ids": torch.from_numpy(masked.inputs)} | padding_mask("attention_mask", lengths, ids.shape[1])
        targets = {"mlm": Targets(torch.from_numpy(masked.positions), torch.from_numpy(masked.labels))}
        return Batch(self.material.task, inputs, targets, int(lengths.sum()))
