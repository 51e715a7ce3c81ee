"""How fast two forms of one model are: forward passes over the same rows, taken in turns.

A busy machine slows whatever happens to run. So the rows are few, both sides pass over them again and again, the one
that begins changes with every round, and what is reported is the median of the rounds.
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
from lmctl.inference.likelihood import rectangle, vocabulary_logits
from lmctl.inference.load import Loaded
from lmctl.inference.nbest import read_lists
from lmctl.inference.pairs import read_pairs
from lmctl.inference.suites.job import Job

ROUNDS, FEWEST = 11, 3
"""Rounds, and rounds where a single batch takes long."""
SECONDS = 0.5
"""Rows are taken until a pass of both sides over them has taken so long."""


@dataclass(frozen=True)
class Batch:
    """What the forward pass is given, and which positions of the answer are real."""

    inputs: dict[str, Any]
    real: Tensor
    """bool [R, L]; of the decoder's side, where there are two."""
    tokens: int
    """Real pieces, of both sides."""


@dataclass(frozen=True)
class Speed:
    """Seconds of each round, first the one side's, then the other's; and how far their logits are apart."""

    tokens: int
    rounds: list[tuple[float, float]]
    decibel: float | None
    """Signal-to-noise ratio of the other's logits against the one's; None: they are equal to the bit."""
    products: Counter[str]
    """Low-precision products of the other's first pass, by kind."""

    def per_second(self, side: int) -> float:
        """Tokens per second of a side, the median over the rounds."""
        return self.tokens / statistics.median(seconds[side] for seconds in self.rounds)

    @property
    def ratios(self) -> list[float]:
        """How many times as fast the other one was, by round."""
        return [one / other for one, other in self.rounds]

    @property
    def ratio(self) -> float:
        """The median of `ratios`."""
        return statistics.median(self.ratios)

    @property
    def middle_half(self) -> tuple[float, float]:
        """Between these lie half of the `ratios`."""
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high


def measure(name: str, job: Job, other: Loaded) -> Speed:
    """The speeds of `job.loaded` and `other` on the first rows of what suite `name` reads."""
    one, batches = job.loaded, _batches(name, job)
    kept = [next(batches)]
    with one.numerics.products(one.device):
        expected = _logits(one, kept[0])
    decibel, products = _proof(expected, other, kept[0])
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


def _proof(expected: Tensor, other: Loaded, batch: Batch) -> tuple[float | None, Counter[str]]:
    """How far the logits of a first pass are from those `expected`, in decibel, and its low-precision products."""
    with other.numerics.proven(other.model, other.device) as products:
        found = _logits(other, batch)
    noise = float((found - expected).norm() / expected.norm())
    if noise == 0 and other.numerics.lossy:
        raise LmctlError(f"{other.numerics.name}: the first batch was computed as before, to the bit")
    return (None if noise == 0 else -20 * math.log10(noise)), products


def _forward(loaded: Loaded, batch: Batch) -> Any:
    with torch.no_grad():
        return loaded.model(**loaded.arguments(batch.inputs))


def _logits(loaded: Loaded, batch: Batch) -> Tensor:
    """Those of real positions, float32 [n]."""
    logits = vocabulary_logits(_forward(loaded, batch)).float()
    return logits[batch.real].flatten() if logits.shape[:2] == batch.real.shape else logits.flatten()


def _seconds(loaded: Loaded, batches: list[Batch]) -> float:
    """Of one pass over `batches`."""
    start = time.perf_counter()
    with loaded.numerics.products(loaded.device):
        for batch in batches:
            _forward(loaded, batch)
    if loaded.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _batches(name: str, job: Job) -> Iterator[Batch]:
    for rows in in_pools(_texts(name, job), job.config.batch):
        yield _framed(job.loaded, rows, job.length)


def _texts(name: str, job: Job) -> Iterator[list[str]]:
    """What the suite reads, as rows of one text or two."""
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


def _framed(loaded: Loaded, rows: list[list[str]], length: int) -> Batch:
    two_sides = loaded.family == "seq2seq" and not loaded.classifies
    second = [texts[1] for texts in rows] if len(rows[0]) > 1 and not two_sides else None
    inputs: dict[str, Any] = dict(loaded.framed([texts[0] for texts in rows], second, length))
    real = inputs["attention_mask"].bool()
    tokens = int(real.sum())
    if two_sides:  # without a target (denoising), the text itself
        targets = [[*ids[: length - 1], loaded.end] for ids in loaded.pieces([texts[-1] for texts in rows])]
        start = loaded.model.config.decoder_start_token_id
        ids, mask = rectangle([[loaded.pad if start is None else start, *t[:-1]] for t in targets], loaded.pad)
        inputs["decoder_input_ids"], real = ids.to(loaded.device), mask.bool().to(loaded.device)
        tokens += int(real.sum())
    return Batch({**inputs, "use_cache": False}, real, tokens)
