"""Classification and regression of texts and text pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmctl.core.batch import Batch, Family, Kind, LabelKind, Targets, padding_mask
from lmctl.core.counter_rng import CounterRng
from lmctl.core.ragged import Ragged, joined
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.objective import label_scores
from lmctl.objective.base import LOSS, Examples, Material, Metric, Objective
from lmctl.objective.text_rows import text_lengths, texts_of

if TYPE_CHECKING:
    from torch import Tensor

LABELS: tuple[LabelKind, ...] = ("class", "classes", "number")


@dataclass(frozen=True)
class Classify(Objective):
    """Predict the label of each row."""

    labels: str = "class"

    reads: ClassVar[Kind] = "labelled"
    families: ClassVar[tuple[Family, ...]] = ("encoder", "decoder")

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise ValueError(f"labels must be one of {', '.join(LABELS)}, got {self.labels!r}")

    @property
    def label_kind(self) -> LabelKind | None:
        return next(kind for kind in LABELS if kind == self.labels)

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        return {task: max(1, len(store.label_names))}

    def examples(self, material: Material) -> LabelledRows:
        return LabelledRows(material)

    def head(self, task: str, term: str) -> str:
        return task

    def loss(self, term: str, logits: Tensor, labels: Tensor) -> Tensor:
        import torch.nn.functional as F

        logits = logits.float()
        if self.labels == "class":
            return F.cross_entropy(logits, labels, reduction="sum")
        if self.labels == "classes":
            return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return F.mse_loss(logits.squeeze(-1), labels, reduction="sum")

    def metrics(self, term: str, logits: Tensor, labels: Tensor) -> dict[str, Metric]:
        loss = Metric(self.loss(term, logits, labels), len(labels), higher_is_better=False)
        return {LOSS: loss} | label_scores.METRICS[self.labels](logits.float(), labels)

    def baseline(self, term: str, labels: Tensor, train: TokenStore) -> dict[str, Metric]:
        """The constant guess: label frequencies in `train`, or their mean."""
        import torch

        assert train.labels is not None
        known = torch.from_numpy(np.array(train.labels))
        if self.labels == "class":
            counts = torch.bincount(known, minlength=len(train.label_names)).float() + 1
            logits = (counts / counts.sum()).log()
        elif self.labels == "classes":
            logits = torch.logit((known.sum(dim=0) + 1) / (len(known) + 2))
        else:
            logits = known.mean().reshape(1)
        metrics = self.metrics(term, logits.expand(len(labels), -1), labels)
        return {LOSS: metrics[LOSS]} if self.labels == "number" else metrics


@dataclass(frozen=True)
class LabelledRows(Examples):
    """The rows of `Classify`: `[CLS] text [SEP]`, or `[CLS] first [SEP] second [SEP]`."""

    material: Material

    def __len__(self) -> int:
        return len(self.material.store.documents) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 [D]: length of each row."""
        texts = text_lengths(self.material)
        return np.minimum(texts.sum(axis=1) + texts.shape[1] + 1, self.material.seq_len)

    @property
    def tokens_per_row(self) -> float:
        return float(self.lengths.mean())

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        import torch

        store, material = self.material.store, self.material
        assert store.labels is not None
        texts = texts_of(material, rows, epochs, draws, 2)
        inputs, lengths = framed_rows(texts, material.vocabulary, material.seq_len, material.family == "encoder")
        targets = Targets(torch.arange(len(rows)), torch.from_numpy(np.array(store.labels[rows])))
        return Batch(self.material.task, inputs, {"label": targets}, int(lengths.sum()))


def framed_rows(
    texts: Sequence[Ragged], vocabulary: Vocabulary, seq_len: int, segments: bool
) -> tuple[dict[str, Tensor], np.ndarray]:
    """Inputs for rows of one text or two (the first ones, then the second ones), truncated to `seq_len` positions, and
    their lengths int64 [R]; with `segments` the second text of a pair has token type 1."""
    import torch

    texts = longest_first(texts, seq_len - 1 - len(texts))
    parts: list[int | Ragged] = [vocabulary.cls]
    for text in texts:
        parts += [text, vocabulary.sep]
    ids, lengths = joined(parts, len(texts[0].lengths), vocabulary.pad)
    inputs = {"input_ids": torch.from_numpy(ids)} | padding_mask("attention_mask", lengths, ids.shape[1])
    if segments and len(texts) == 2:
        places, second = np.arange(ids.shape[1]), texts[0].lengths[:, None] + 2
        inputs["token_type_ids"] = torch.from_numpy(((places >= second) & (places < lengths[:, None])).astype(np.int64))
    return inputs, lengths


def longest_first(texts: Sequence[Ragged], room: int) -> list[Ragged]:
    """Truncate the texts of each row to `room` tokens together, always the longer one: as `truncation="longest_first"`
    of Hugging Face's fast tokenizers. An odd token goes to the longer text, to the second if they are equal."""
    if len(texts) == 1:
        return [texts[0].cut(room)]
    a, b = texts
    shorter = np.minimum(np.minimum(a.lengths, b.lengths), room // 2)
    kept = np.where(a.lengths <= b.lengths, shorter, room - shorter)
    return [a.cut(kept), b.cut(room - kept)]
