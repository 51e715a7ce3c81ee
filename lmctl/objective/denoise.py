"""Span denoising: restore removed spans of text (T5's span corruption, BART's text infilling).

`style: t5` (Raffel et al. 2020, section 3.1.4): every removed span is replaced by a sentinel of its own, and the target
is the removed text, each span after its sentinel. `style: bart` (Lewis et al. 2020, section 2.2, "text infilling"):
every span, its length drawn from a Poisson distribution, is replaced by one [MASK], and the target is the whole text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmctl.core.batch import Batch, Family, Kind
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError
from lmctl.core.ragged import Ragged, joined, within
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
        sources, targets = [ids[:0]] * len(rows), [ids[:0]] * len(rows)
        for length in np.unique(lengths):  # one, unless an augmentation has shortened some
            here = np.flatnonzero(lengths == length)
            texts = self._corrupted(ids[here, :length], draws.generators(epochs[here], rows[here]))
            for place, before, after in zip(here, *texts, strict=True):
                sources[place], targets[place] = before, after
        pad, sep = self.material.vocabulary.pad, self.material.vocabulary.sep
        source, target = (joined([Ragged.of(side), sep], len(rows), pad) for side in (sources, targets))
        return seq2seq_batch(self.material, *source, *target)

    def _corrupted(
        self, pieces: np.ndarray, generators: Iterable[np.random.Generator]
    ) -> tuple[Iterable[np.ndarray], Iterable[np.ndarray]]:
        """Source and target of each row of `pieces` int64 [R, n], which is drawn with its own generator."""
        vocabulary, rule = self.material.vocabulary, self.objective
        if rule.style == "bart":
            return infill(pieces, rule.noise_rate, rule.mean_span, vocabulary.mask, generators).rows(), pieces
        sentinels = vocabulary.sentinels
        noise = span_mask(pieces.shape[1], rule.noise_rate, rule.mean_span, len(sentinels) - 1, generators)
        return sentinelled(pieces, noise, sentinels), removed(pieces, noise, sentinels)


def span_mask(
    length: int, rate: float, mean_span: float, most_spans: int, generators: Iterable[np.random.Generator]
) -> np.ndarray:
    """bool [R, length]: the removed positions of rows that are drawn with one generator each: round(rate * length)
    tokens in round(that / mean_span) spans (at least one of each), with random span and gap lengths, starting with a
    gap (`random_spans_noise_mask` of T5)."""
    if length < 2:
        return np.zeros((sum(1 for _ in generators), length), dtype=bool)
    noise = min(max(round(length * rate), 1), length - 1)
    spans = min(max(round(noise / mean_span), 1), noise, length - noise, most_spans)
    totals = (length - noise, noise)
    cuts = [[g.choice(total - 1, size=spans - 1, replace=False) for total in totals] for g in generators]
    sides = zip(zip(*cuts, strict=True), totals, strict=True)
    gaps, holes = (_composition(np.stack(some), total) for some, total in sides)
    sizes = np.stack([gaps, holes], axis=2)
    return np.repeat(np.tile([False, True], gaps.size), sizes.ravel()).reshape(-1, length)


def _composition(cuts: np.ndarray, total: int) -> np.ndarray:
    """int64 [R, n + 1]: `total` cut behind the distinct places `cuts` int64 [R, n], from 0 to `total` - 2: uniformly
    random compositions into parts of at least 1 if the places are."""
    return np.diff(np.sort(cuts, axis=1) + 1, axis=1, prepend=0, append=total)


def _starts(noise: np.ndarray) -> np.ndarray:
    """bool [R, n]: the first position of each span."""
    return noise & ~np.pad(noise[:, :-1], ((0, 0), (1, 0)))


def sentinelled(pieces: np.ndarray, noise: np.ndarray, sentinels: np.ndarray) -> np.ndarray:
    """`pieces` int64 [R, n] with the i-th span of `noise` bool [R, n] replaced by the i-th sentinel; each row has as
    many spans and removed positions."""
    starts = _starts(noise)
    replaced = np.where(starts, sentinels[np.maximum(starts.cumsum(axis=1) - 1, 0)], pieces)
    return replaced[~noise | starts].reshape(len(pieces), -1)


def removed(pieces: np.ndarray, noise: np.ndarray, sentinels: np.ndarray) -> np.ndarray:
    """The removed spans of each row, each after its sentinel, and a final sentinel; arguments as of `sentinelled`."""
    rows, number = len(pieces), _starts(noise).cumsum(axis=1)
    spans, holes = int(number[0, -1]) if noise.size else 0, pieces[noise].reshape(rows, -1)
    places = np.arange(holes.shape[1]) + number[noise].reshape(rows, -1)
    target = np.tile(sentinels[:1], (rows, holes.shape[1] + spans + 1))
    between = np.ones(target.shape, dtype=bool)
    np.put_along_axis(between, places, False, axis=1)
    target[between] = np.tile(sentinels[: spans + 1], rows)
    np.put_along_axis(target, places, holes, axis=1)
    return target


def infill(
    pieces: np.ndarray, rate: float, mean_span: float, mask: int, generators: Iterable[np.random.Generator]
) -> Ragged:
    """`pieces` int64 [R, n] without round(rate * n) of each row (at least one), each removed span replaced by one
    `mask`; rows are drawn with one generator each.

    Span lengths are drawn from Poisson(mean_span) until they cover the number to remove (the last one is cut); then the
    spans are placed, every arrangement of kept tokens and masks equally likely. An empty span inserts a mask.
    (`add_whole_word_mask` of fairseq, except that spans overlap there and so remove less.)
    """
    rows, width = pieces.shape
    wanted = max(1, round(rate * width))
    kept, spans, slots = width - wanted, [], []
    for generator in generators:
        spans.append(_poisson_spans(wanted, mean_span, generator))
        slots.append(generator.choice(kept + len(spans[-1]), size=len(spans[-1]), replace=False))
    lengths, counts = Ragged.of(spans)
    first, row = counts.cumsum() - counts, np.repeat(np.arange(rows), counts)
    slot = np.sort(Ragged.of(slots).flat + row * 2 * width) - row * 2 * width  # sorted in each row
    # Before a span there are as many kept tokens as slots that are no span's, and the tokens of the spans before it.
    begins = row * width + slot - within(first * 0, counts) + lengths.cumsum() - lengths - row * wanted
    stays = np.ones(pieces.size, dtype=bool)
    stays[within(begins, begins + lengths)] = False
    sizes = kept + counts
    out, free = np.full(sizes.sum(), mask, dtype=np.int64), np.ones(sizes.sum(), dtype=bool)
    free[np.repeat(sizes.cumsum() - sizes, counts) + slot] = False
    out[free] = pieces.reshape(-1)[stays]
    return Ragged(out, sizes)


def _poisson_spans(total: int, mean: float, generator: np.random.Generator) -> np.ndarray:
    """int64 [spans]: lengths that sum to `total`, in random order; at most `total` of them, so that no row grows."""
    lengths = generator.poisson(mean, size=total)
    while lengths.sum() < total:
        lengths = np.append(lengths, generator.poisson(mean, size=total))
    covered = lengths.cumsum()
    last = int(np.searchsorted(covered, total))
    lengths = lengths[: last + 1]
    lengths[last] -= covered[last] - total
    if len(lengths) > total:
        lengths = np.delete(lengths, np.flatnonzero(lengths == 0)[: len(lengths) - total])
    return generator.permutation(lengths)
