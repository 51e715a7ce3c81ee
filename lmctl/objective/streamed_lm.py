"""Stateful causal language modelling: parallel tracks of one stream, for recurrent networks that carry their state.

The stream is cut into as many tracks as a step has rows; each step reads the next segment of every track, in order
(truncated back-propagation through time; the batching of the published LSTM language models, Zaremba et al. 2014,
Merity et al. 2018). Tokens that do not fill a row are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmctl.core.batch import Batch, Family, Kind, Targets
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import DataError
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.objective.base import Examples, Material, Metric, Objective
from lmctl.objective.unigram_baseline import unigram_baseline

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StreamedLM(Objective):
    """Next-token prediction on a stream in which each document, or each sentence, ends with [SEP]."""

    end_of: str = "document"

    reads: ClassVar[Kind] = "documents"
    families: ClassVar[tuple[Family, ...]] = ("decoder",)
    carries_state = True

    def __post_init__(self) -> None:
        if self.end_of not in ("document", "sentence"):
            raise ValueError(f"end_of must be document or sentence, got {self.end_of!r}")

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        return {"lm": vocabulary.size}

    def examples(self, material: Material) -> Tracks:
        tracks = Tracks(self, material)
        if not len(tracks):
            raise DataError(
                f"the text has {len(tracks.stream):,} pieces, too few for {material.batch_rows} tracks",
                "a smaller batch.size or batch.seq_len, or more text",
            )
        return tracks

    def baseline(self, term: str, labels: Tensor, train: TokenStore) -> dict[str, Metric]:
        return unigram_baseline(train.histogram, labels)


@dataclass(frozen=True)
class Tracks(Examples):
    """The rows of `StreamedLM`: row r is segment r   tracks of track r % tracks."""

    objective: StreamedLM
    material: Material

    @property
    def tracks(self) -> int:
        """Number of parallel rows."""
        return self.material.batch_rows

    @cached_property
    def stream(self) -> np.ndarray:
        """All tokens of the split, with [SEP] after each document or sentence."""
        store, sep = self.material.store, self.material.vocabulary.sep
        ends = store.document_starts[1:] if self.objective.end_of == "document" else np.asarray(store.sentences)[1:]
        return np.insert(np.asarray(store.tokens, dtype=np.int64), ends, sep)

    @property
    def segments(self) -> int:
        """Rows per track."""
        return (len(self.stream) // self.material.batch_rows - 1) // self.material.seq_len

    def __len__(self) -> int:
        return max(0, self.segments) * self.material.batch_rows

    @property
    def tokens_per_row(self) -> float:
        return float(self.material.seq_len)

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        import torch

        tracks, length = self.material.batch_rows, self.material.seq_len
        segment, track = np.divmod(rows, tracks)
        begin = track * (len(self.stream) // tracks) + segment * length
        ids = self.stream[begin[:, None] + np.arange(length + 1)]
        inputs = {
            "input_ids": torch.from_numpy(np.ascontiguousarray(ids[:, :-1])),
            "track": torch.from_numpy(track),
            "fresh": torch.from_numpy(segment == 0),
        }
        labels = torch.from_numpy(ids[:, 1:].ravel())
        return Batch(self.material.task, inputs, {"lm": Targets(torch.arange(len(labels)), labels)}, len(labels))
