"""Sample batches of the shape that a run will have.

The objectives make some rows, from the real text if it is known and from a synthetic one otherwise; a larger batch is
scaled from these. Where rows differ in length the longest are taken, because the run will have such batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmctl.core.batch import Batch, Targets
from lmctl.core.counter_rng import CounterRng
from lmctl.cost.known_data import STANDIN_ROWS, Known
from lmctl.objective.base import Examples
from lmctl.plan import Plan
from lmctl.train.build_parts import examples_of

ROWS = 32
"""Number of rows that are really collated."""
PROGRESS = tuple(np.linspace(0, 1, 21).tolist())
"""Shares of the budget at which curves over it are looked at."""
DRAWN = 64
"""Number of batches drawn to count their shapes."""
CARRIED = ("track", "fresh")
"""Inputs whose values a recurrent network reads, to carry its state: two vectors per row, left out here."""


@dataclass(frozen=True)
class Sample:
    """Sample rows of one task."""

    batch: Batch
    """A batch on the CPU, of at most ROWS rows."""
    rows: int
    """Rows of the task's largest micro-batch in one process."""
    rows_per_step: float
    """Rows of the task per step in all processes; the mean over the budget."""
    tokens_per_row: float
    """Mean number of tokens without padding."""
    shapes: int = 1
    """Number of different shapes of DRAWN micro-batches."""

    @property
    def scale(self) -> float:
        """Rows of the micro-batch relative to those of `batch`."""
        return self.rows / len(self.batch.inputs["input_ids"])

    @property
    def bytes(self) -> int:
        """Bytes of the collated micro-batch."""
        tensors = [*self.batch.inputs.values(), *(t for target in self.batch.targets.values() for t in _both(target))]
        return int(self.scale * sum(tensor.nbytes for tensor in tensors))

    def shaped(self, make: Callable[[tuple[int, ...], torch.dtype], Tensor], rows: int | None = None) -> Batch:
        """A batch of `rows` (None: the micro-batch's) whose tensors are made by `make(shape, dtype)`."""
        scale = self.scale if rows is None else rows / len(self.batch.inputs["input_ids"])

        def larger(tensor: Tensor) -> Tensor:
            return make((round(scale * len(tensor)), *tensor.shape[1:]), tensor.dtype)

        inputs = {name: larger(tensor) for name, tensor in self.batch.inputs.items() if name not in CARRIED}
        targets = {name: Targets(larger(t.positions), larger(t.labels)) for name, t in self.batch.targets.items()}
        return Batch(self.batch.task, inputs, targets, round(scale * self.batch.tokens))


def _both(target: Targets) -> tuple[Tensor, Tensor]:
    return target.positions, target.labels


def examples_for(plan: Plan, known: Known) -> dict[str, Examples]:
    """The rows of every task, as long as they become; the number of rows per step, and so of tracks, is limited to
    STANDIN_ROWS / 2."""
    whole: dict[str, Any] = {"ramp": None, "length_ramp": None}
    batch = replace(plan.batch, size=min(plan.batch.rows, STANDIN_ROWS // 2), tokens=None, **whole)
    return examples_of(plan.mix, plan.model.family, batch, known.prepared, "train", augmented=False)


def samples(plan: Plan, examples: dict[str, Examples], world: int) -> dict[str, Sample]:
    """Sample rows of every task, for each of `world` processes."""
    per_step = _rows_per_step(plan, examples)
    made = {}
    for task, some in examples.items():
        most, mean = per_step[task]
        rows = min(ceil(most), max(1, plan.batch.rows // world if len(examples) > 1 else ceil(most / world)))
        rows = min(rows, plan.batch.micro or rows)
        count = min(rows, ROWS, len(some))
        lengths = some.lengths
        if lengths is not None:
            numbers = np.argsort(-lengths, kind="stable")[:count]
        else:
            numbers = np.arange(count) * (1 if some.tracks is not None else max(1, len(some) // count))
        draws = CounterRng(plan.seed, f"{task}/rows")
        batch = max((one.collate(numbers, np.zeros_like(numbers), draws) for one in _moments(some)), key=_targets)
        tokens = float(some.tokens_per_row)
        if plan.mix.tasks[task].objective.cuts_rows:
            tokens *= _mean_over_budget(plan, lambda progress: plan.batch.seq_len_at(progress) / plan.batch.seq_len)
        made[task] = Sample(batch, rows, mean, tokens, _shapes(some, count, plan.seed))
    return made


def _moments(some: Examples) -> list[Examples]:
    """The rows at moments of the budget, if these make a difference."""
    return [some] if some.at(0.0) is some else [some.at(progress) for progress in PROGRESS]


def _targets(batch: Batch) -> int:
    return sum(batch.counts().values())


def _mean_over_budget(plan: Plan, curve: Callable[[float], float]) -> float:
    """The mean per step of something that changes with progress, of which a budget of steps spends equal parts in each
    step, and any other budget in proportion to it."""
    values = np.array([curve(progress) for progress in PROGRESS])
    return float(values.mean() if plan.budget.most_steps is not None else 1 / (1 / values).mean())


def _shapes(some: Examples, count: int, seed: int) -> int:
    """Number of different shapes of DRAWN batches of `count` rows."""
    if some.tracks is not None:
        return 1
    found = set()
    for number, generator in enumerate(map(np.random.default_rng, range(DRAWN))):
        rows = generator.integers(0, len(some), count)
        now = some.at((number + 0.5) / DRAWN)
        batch = now.collate(rows, np.full(count, number), CounterRng(seed, "shapes"))
        found.add((*(t.shape for t in batch.inputs.values()), *batch.counts().values()))
    return len(found)


def _rows_per_step(plan: Plan, examples: dict[str, Examples]) -> dict[str, tuple[float, float]]:
    """Per task the largest number of rows per step, and the mean over the budget: `MixStream` without data."""
    mix, rows = plan.mix, plan.batch.rows
    if len(examples) == 1:
        ((task, some),) = examples.items()
        lengths = some.lengths
        if plan.batch.tokens is None or lengths is None:
            return {task: (float(rows), _mean_over_budget(plan, plan.batch.rows_at))}
        # Rows that fill the tokens: fewest if they are longest, which costs most, because attention is quadratic.
        longest, mean = max(1, int(lengths.max())), max(1.0, float(lengths.mean()))
        return {task: (float(max(1, plan.batch.tokens // longest)), plan.batch.tokens / mean)}
    sizes = {task: len(some) for task, some in examples.items()}
    found: dict[str, list[float]] = {task: [] for task in examples}
    for progress in PROGRESS:
        wanted = mix.shares(progress, sizes)
        if mix.sampling.unit == "tokens":
            wanted = {task: share / float(examples[task].tokens_per_row) for task, share in wanted.items()}
        for task, part in wanted.items():
            found[task].append(rows * part / sum(wanted.values()))
    part = _mean_over_budget(plan, plan.batch.rows_at) / rows
    return {task: (max(shares), part * float(np.mean(shares))) for task, shares in found.items()}
