"""Speed comparison of two versions of a model: alternating forward passes over the same rows.

On a busy machine the load varies during the measurement. So both process a few rows again and again, the first one
alternates between rounds, and the median over rounds is reported.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmctl.core.batch import whole_text
from lmctl.core.errors import LmctlError
from lmctl.inference.input_lines import lines_of
from lmctl.inference.length_batches import in_pools
from lmctl.inference.likelihood import pad_texts, vocabulary_logits
from lmctl.inference.load import Loaded
from lmctl.inference.nbest import read_lists
from lmctl.inference.pairs import read_pairs
from lmctl.inference.suites.job import SuiteJob

ROUNDS, FEWEST = 11, 3
"""Number of rounds; number of rounds if a single batch takes long."""
SECONDS = 0.5
"""Rows are added until a pass of both models over them takes this long."""


@dataclass(frozen=True)
class TimedBatch:
    """Inputs of the forward pass, and which output positions are no padding."""

    inputs: dict[str, Any]
    real: Tensor
    """bool [R, L]; of the decoder in an encoder-decoder."""
    tokens: int
    """Tokens without padding, of both sides."""


@dataclass(frozen=True)
class Speed:
    """Seconds of each round for both models, and the difference of their logits."""

    tokens: int
    rounds: list[tuple[float, float]]
    decibel: float | None
    """Signal-to-noise ratio of the second model's logits against the first's; None: they are bitwise equal."""
    products: Counter[str]
    """Low-precision products in the second model's first pass, by kind."""

    def per_second(self, side: int) -> float:
        """Tokens per second of a model, the median over the rounds."""
        return self.tokens / statistics.median(seconds[side] for seconds in self.rounds)

    @property
    def ratios(self) -> list[float]:
        """Speed of the second relative to the first, by round."""
        return [one / other for one, other in self.rounds]

    @property
    def ratio(self) -> float:
        """The median of `ratios`."""
        return statistics.median(self.ratios)

    @property
    def middle_half(self) -> tuple[float, float]:
        """The interquartile range of the `ratios`."""
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high


def measure(name: str, job: SuiteJob, other: Loaded) -> Speed:
    """Measure `job.loaded` and `other` on the first rows that suite `name` reads."""
    one, batches = job.loaded, _batches(name, job)
    kept = [next(batches)]
    with one.numerics.products(one.device):
        expected = _logits(one, kept[0])
    decibel, products = _first_pass(expected, other, kept[0])
    spent = _seconds(one, kept) + _seconds(other, kept)
    for batch in batches:
        if spent > SECONDS:
            break
        kept.append(batch)
        spent += _seconds(one, [batch]) + _seconds(other, [batch])
    rounds = []
    for number in range(ROUNDS if spent < 6 * SECONDS else FEWEST):
        if number % 2:
            late = _seconds(other, kept)
            rounds.append((_seconds(one, kept), late))
        else:
            rounds.append((_seconds(one, kept), _seconds(other, kept)))
    return Speed(sum(batch.tokens for batch in kept), rounds, decibel, products)


def _first_pass(expected: Tensor, other: Loaded, batch: TimedBatch) -> tuple[float | None, Counter[str]]:
    """Signal-to-noise ratio in dB of the logits of a first pass against `expected`, and its low-precision products."""
    with other.numerics.proven(other.model, other.device) as products:
        found = _logits(other, batch)
    noise = float((found - expected).norm() / expected.norm())
    if noise == 0 and other.numerics.lossy:
        raise LmctlError(f"{other.numerics.name}: the first batch was computed as before, to the bit")
    return (None if noise == 0 else -20 * math.log10(noise)), products


def _forward(loaded: Loaded, batch: TimedBatch) -> Any:
    with torch.no_grad():
        return loaded.model(**loaded.arguments(batch.inputs))


def _logits(loaded: Loaded, batch: TimedBatch) -> Tensor:
    """Logits at positions without padding, float32 [n]."""
    logits = vocabulary_logits(_forward(loaded, batch)).float()
    return logits[batch.real].flatten() if logits.shape[:2] == batch.real.shape else logits.flatten()


def _seconds(loaded: Loaded, batches: list[TimedBatch]) -> float:
    """Seconds of one pass over `batches`."""
    start = time.perf_counter()
    with loaded.numerics.products(loaded.device):
        for batch in batches:
            _forward(loaded, batch)
    if loaded.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _batches(name: str, job: SuiteJob) -> Iterator[TimedBatch]:
    for rows in in_pools(_texts(name, job), job.config.batch):
        yield _framed(job.loaded, rows, job.length)


def _texts(name: str, job: SuiteJob) -> Iterator[list[str]]:
    """The suite's texts as rows of one text or two."""
    file = job.config.file
    if name == "minimal_pairs":
        assert file is not None
        yield from ([side] for pair in read_pairs(lines_of(file), file) for side in pair)
    elif name == "nbest":
        assert file is not None
        yield from ([text] for utterance in read_lists(lines_of(file), file) for text in utterance.texts)
    else:
        for row in job.rows():
            yield [whole_text(row.texts)] if job.yields == "documents" else list(row.texts)


def _framed(loaded: Loaded, rows: list[list[str]], length: int) -> TimedBatch:
    two_sides = loaded.family == "seq2seq" and not loaded.classifies
    second = [texts[1] for texts in rows] if len(rows[0]) > 1 and not two_sides else None
    inputs: dict[str, Any] = dict(loaded.framed([texts[0] for texts in rows], second, length))
    real = inputs["attention_mask"].bool()
    tokens = int(real.sum())
    if two_sides:  # the text itself if there is no target (denoising)
        targets = [[*ids[: length - 1], loaded.end] for ids in loaded.pieces([texts[-1] for texts in rows])]
        start = loaded.model.config.decoder_start_token_id
        ids, mask = pad_texts([[loaded.pad if start is None else start, *t[:-1]] for t in targets], loaded.pad)
        inputs["decoder_input_ids"], real = ids.to(loaded.device), mask.bool().to(loaded.device)
        tokens += int(real.sum())
    return TimedBatch({**inputs, "use_cache": False}, real, tokens)
