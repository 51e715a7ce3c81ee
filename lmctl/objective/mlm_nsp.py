"""BERT's pre-training: masked words and next-sentence prediction on the same pairs (Devlin et al. 2019, 3.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmctl.core.draws import Draws
from lmctl.core.store import TokenStore
from lmctl.core.types import Batch, Family, Kind, LabelKind, Material, Network, Targets, Terms
from lmctl.core.vocabulary import Vocabulary
from lmctl.objective.masking import DRAWS_PER_POSITION, mask_tokens
from lmctl.objective.pairs import DRAWS_PER_ROW, Pairs
from lmctl.objective.scoring import correct, cross_entropies, unigram_nats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MaskedLMAndNextSentence:
    """Two terms on each pair of segments: its masked pieces, and whether B follows A."""

    mask_rate: float = 0.15
    whole_words: bool = False
    short_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.mask_rate < 1:
            raise ValueError(f"mask_rate is a share of the tokens between 0 and 1, got {self.mask_rate}")
        if not 0 <= self.short_share <= 1:
            raise ValueError(f"short_share is a share of the rows between 0 and 1, got {self.short_share}")

    reads: ClassVar[Kind] = "documents"
    families: ClassVar[tuple[Family, ...]] = ("encoder",)
    pieces: ClassVar[tuple[str, ...]] = ()
    label_kind: ClassVar[LabelKind | None] = None

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        return {"mlm": vocabulary.size, "pair": 2}

    def examples(self, material: Material) -> MaskedPairs:
        pairs = Pairs(material.store, material.vocabulary, material.seq_len, self.short_share)
        return MaskedPairs(self, material.task, pairs, material.vocabulary, material.seq_len)

    def figures(self, means: dict[str, Any]) -> dict[str, float]:
        return dict(means)

    def _logits(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        import torch

        masked, first = batch.targets["mlm"].positions, batch.targets["nsp"].positions
        hidden = network.encode(batch.inputs, torch.cat([masked, first]))
        pieces, pairs = hidden.split([len(masked), len(first)])
        return {"mlm": network.head("mlm", pieces), "nsp": network.head("pair", pairs)}

    def terms(self, network: Network, batch: Batch) -> Terms:
        return cross_entropies(self._logits(network, batch), batch)

    def scores(self, network: Network, batch: Batch) -> Terms:
        logits = self._logits(network, batch)
        return cross_entropies(logits, batch) | correct(logits, batch)

    def baseline(self, batch: Batch, train: TokenStore) -> dict[str, Any]:
        pairs = len(batch.targets["nsp"].labels)
        return {
            "mlm": unigram_nats(train.histogram, batch.targets["mlm"].labels),
            "nsp": pairs * math.log(2),
            "nsp_accuracy": pairs * 0.5,
        }


@dataclass(frozen=True)
class MaskedPairs:
    """The rows of `MaskedLMAndNextSentence`."""

    objective: MaskedLMAndNextSentence
    task: str
    pairs: Pairs
    vocabulary: Vocabulary
    seq_len: int

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def tokens_per_row(self) -> float:
        return len(self.pairs.store) / len(self.pairs) + 3.0

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: Draws) -> Batch:
        import torch

        # One line of numbers per row, laid out for the longest row there can be: what a row draws must not depend
        # on how long the other rows of its micro-batch are.
        widest = self.seq_len
        uniforms = draws.uniforms(epochs, rows, DRAWS_PER_ROW + widest + DRAWS_PER_POSITION * widest)
        pair, mask = np.split(uniforms, [DRAWS_PER_ROW + widest], axis=1)
        text = self.pairs.gather(rows, pair)
        width = text.ids.shape[1]
        mask = mask.reshape(len(rows), DRAWS_PER_POSITION, widest)[:, :, :width].reshape(len(rows), -1)
        masked = mask_tokens(text.ids, mask, self.vocabulary, self.objective.mask_rate, self.objective.whole_words)
        inputs = {"input_ids": torch.from_numpy(masked.inputs), "token_type_ids": torch.from_numpy(text.segments)}
        if (text.lengths < width).any():
            inputs["attention_mask"] = torch.from_numpy(np.arange(width) < text.lengths[:, None])
        first = torch.arange(len(rows)) * width
        targets = {
            "mlm": Targets(torch.from_numpy(masked.positions), torch.from_numpy(masked.labels)),
            "nsp": Targets(first, torch.from_numpy(text.labels)),
        }
        return Batch(self.task, inputs, targets, int(text.lengths.sum()))
