"""Span denoising: restore removed spans of text (T5's span corruption, BART's text infilling).

`style: t5` (Raffel et al. 2020, section 3.1.4): every removed span is replaced by a sentinel of its own, and the target
is the removed text, each span after its sentinel. `style: bart` (Lewis et al. 2020, section 2.2, "text infilling"):
every span, its length drawn from a Poisson distribution, is replaced by one [MASK], and the target is the whole text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmctl.core.batch import Batch, Family, Kind, pad_rows
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import NO_PIECE, Vocabulary
from lmctl.objective.base import Examples, Material, Metric, Objective
from lmctl.objective.packed_rows import PackedRows
from lmctl.objective.text_rows import mean_tokens
from lmctl.objective.translate import seq2seq_batch
from lmctl.objective.unigram_baseline import unigram_baseline

if TYPE_CHECKING:
    from torch import Tensor

STYLES = ("t5", "bart")
SENTINELS = 100
"""Number of sentinel tokens, as in T5."""


@dataclass(frozen=True)
class Denoise(Objective):
    """Remove spans of the text and predict them."""

    style: str = "t5"
    noise_rate: float = 0.15
    mean_span: float = 3.0

    reads: ClassVar[Kind] = "documents"
    families: ClassVar[tuple[Family, ...]] = ("seq2seq",)

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ValueError(f"style must be one of {', '.join(STYLES)}, got {self.style!r}")
        if not 0 < self.noise_rate < 1:
            raise ValueError(f"noise_rate is a share of the tokens between 0 and 1, got {self.noise_rate}")
        if self.mean_span < 1:
            raise ValueError(f"mean_span must be at least 1, got {self.mean_span}")

    @property
    def pieces(self) -> tuple[str, ...]:
        return tuple(f"<extra_id_{i}>" for i in range(SENTINELS)) if self.style == "t5" else ()

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        return {"lm": vocabulary.size}

    def examples(self, material: Material) -> CorruptedRows:
        if self.style == "bart" and material.vocabulary.mask == NO_PIECE:
            raise ConfigError("the tokenizer has no mask piece for style=bart", "objective.style=t5")
        return CorruptedRows(self, material, PackedRows(material.store, material.vocabulary, material.seq_len - 1))

    def baseline(self, term: str, labels: Tensor, train: TokenStore) -> dict[str, Metric]:
        return unigram_baseline(train.histogram, labels)


@dataclass(frozen=True)
class CorruptedRows(Examples):
    """The rows of `Denoise`."""

    objective: Denoise
    material: Material
    rows: PackedRows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens_per_row(self) -> float:
        return mean_tokens(self.objective, self.material)

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        ids, lengths = self.rows.gather(rows, epochs, self.material.rewrite, draws)
        pairs = [
            self._corrupted(ids[place, : lengths[place]], draws.generator(epoch, row))
            for place, (row, epoch) in enumerate(zip(rows.tolist(), epochs.tolist(), strict=True))
        ]
        pad = self.material.vocabulary.pad
        return seq2seq_batch(
            self.material, *pad_rows([source for source, _ in pairs], pad), *pad_rows([t for _, t in pairs], pad)
        )

    def _corrupted(self, pieces: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        vocabulary, rule = self.material.vocabulary, self.objective
        if rule.style == "bart":
            source = infill(pieces, rule.noise_rate, rule.mean_span, vocabulary.mask, generator)
            return np.append(source, vocabulary.sep), np.append(pieces, vocabulary.sep)
        noise = span_mask(len(pieces), rule.noise_rate, rule.mean_span, len(vocabulary.sentinels) - 1, generator)
        return (
            np.append(sentinelled(pieces, noise, vocabulary.sentinels), vocabulary.sep),
            np.concatenate([*removed(pieces, noise, vocabulary.sentinels), [vocabulary.sep]]),
        )


def span_mask(
    length: int, rate: float, mean_span: float, most_spans: int, generator: np.random.Generator
) -> np.ndarray:
    """bool [length]: the removed positions: round(rate * length) tokens in round(that / mean_span) spans (at least one
    of each), with random span and gap lengths, starting with a gap (`random_spans_noise_mask` of T5)."""
    if length < 2:
        return np.zeros(length, dtype=bool)
    noise = min(max(round(length * rate), 1), length - 1)
    spans = min(max(round(noise / mean_span), 1), noise, length - noise, most_spans)
    gaps, holes = _random_composition(length - noise, spans, generator), _random_composition(noise, spans, generator)
    return np.repeat(np.tile([False, True], spans), np.stack([gaps, holes], axis=1).ravel())


def _random_composition(total: int, parts: int, generator: np.random.Generator) -> np.ndarray:
    """int64 [parts]: a uniformly random composition of `total` into parts of at least 1."""
    cuts = np.sort(generator.choice(total - 1, size=parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def sentinelled(pieces: np.ndarray, noise: np.ndarray, sentinels: np.ndarray) -> np.ndarray:
    """`pieces` with the i-th span of `noise` replaced by the i-th sentinel."""
    starts = noise & ~np.concatenate([[False], noise[:-1]])
    replaced = np.where(starts, sentinels[np.maximum(starts.cumsum() - 1, 0)], pieces)
    return replaced[~noise | starts]


def removed(pieces: np.ndarray, noise: np.ndarray, sentinels: np.ndarray) -> list[np.ndarray]:
    """The removed spans, each after its sentinel, and a final sentinel."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], noise, [False]]).astype(np.int8)))
    parts = []
    for number, (begin, end) in enumerate(edges.reshape(-1, 2)):
        parts += [sentinels[number : number + 1], pieces[begin:end]]
    return [*parts, sentinels[len(edges) // 2 : len(edges) // 2 + 1]]


def infill(pieces: np.ndarray, rate: float, mean_span: float, mask: int, generator: np.random.Generator) -> np.ndarray:
    """`pieces` int64 [n] without round(rate * n) of them (at least one), each removed span replaced by one `mask`.

    Span lengths are drawn from Poisson(mean_span) until they cover the number to remove (the last one is cut); then the
    spans are placed, every arrangement of kept tokens and masks equally likely. An empty span inserts a mask.
    (`add_whole_word_mask` of fairseq, except that spans overlap there and so remove less.)
    """
    wanted = max(1, round(rate * len(pieces)))
    lengths = _poisson_spans(wanted, mean_span, generator)
    spans, kept = len(lengths), len(pieces) - wanted
    slots = np.sort(generator.choice(kept + spans, size=spans, replace=False))
    begins = slots - np.arange(spans) + lengths.cumsum() - lengths
    edges = np.zeros(len(pieces) + 1, dtype=np.int64)
    np.add.at(edges, begins, 1)
    np.add.at(edges, begins + lengths, -1)
    out = np.full(kept + spans, mask, dtype=np.int64)
    stays = np.ones(len(out), dtype=bool)
    stays[slots] = False
    out[stays] = pieces[edges.cumsum()[:-1] == 0]
    return out


def _poisson_spans(total: int, mean: float, generator: np.random.Generator) -> np.ndarray:
    """int64 [spans]: lengths that sum to `total`, in random order; at most `total` of them, so that no row grows."""
    lengths = np.empty(0, dtype=np.int64)
    while lengths.sum() < total:
        lengths = np.append(lengths, generator.poisson(mean, size=total))
    covered = lengths.cumsum()
    last = int(np.searchsorted(covered, total))
    lengths = lengths[: last + 1]
    lengths[last] -= covered[last] - total
    surplus = np.flatnonzero(lengths == 0)[: max(0, len(lengths) - total)]
    return generator.permutation(np.delete(lengths, surplus))
