"""Teacher logits from a cache (`lmctl.distill.logit_cache`): computed once, after which the teacher need not be loaded.

They are the logits of the live teacher for the same rows. With `teacher_cache_k=null` they differ by rounding only,
because rows were batched with other rows. With k tokens per target they also lack what `lmctl.distill.compact_logits`
leaves out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmctl.core import progress
from lmctl.core.batch import Batch
from lmctl.core.cache import root_of
from lmctl.distill.base import Teacher, TeacherLogits, TeacherOutput
from lmctl.distill.logit_cache import CachedLogits, Maskings, build, find, identity
from lmctl.distill.shared_vocabulary import SharedPieces
from lmctl.distill.teacher import (
    TeacherEnsemble,
    check_labels,
    fingerprint,
    needs_teacher,
    target_positions,
    teacher_of,
    vocabularies,
)
from lmctl.mix.order import rows_draws
from lmctl.model.network import LANGUAGE
from lmctl.objective.base import Examples, Objective, Prediction
from lmctl.parallel.strategy import Strategy
from lmctl.plan import Plan
from lmctl.train.build_parts import examples_of
from lmctl.train.prepare import Prepared
from lmctl.train.static_masking import versions_of

MOST_BYTES = 1 << 27
"""Limit of logits in memory while the cache is filled."""


class CachedTeacher(Teacher):
    """Teacher outputs from the cache instead of a forward pass."""

    def __init__(
        self, tasks: Mapping[str, Maskings], shared: SharedPieces, fingerprints: dict[str, str], device: torch.device
    ) -> None:
        self.tasks, self.shared, self.fingerprints, self.device = tasks, shared, fingerprints, device

    def outputs(self, batch: Batch, predictions: Mapping[str, Prediction]) -> CachedOutput:
        maskings = self.tasks[batch.task]
        return CachedOutput({term: maskings.answers(batch, term) for term in batch.targets}, self.shared, self.device)


@dataclass(frozen=True)
class CachedOutput(TeacherOutput):
    """Cached logits of one micro-batch; hidden states are not cached."""

    logits: Mapping[str, CachedLogits]
    """By term."""
    shared: SharedPieces
    device: torch.device

    def answers(self, term: str, head: str, rows: slice) -> TeacherLogits:
        logits, places = self.logits[term].of(rows, self.device), self.shared.of_student
        if head not in LANGUAGE or head == "pair" or len(places) == len(self.shared.to_teacher):
            return TeacherLogits(logits)
        return TeacherLogits(logits, torch.from_numpy(places).to(self.device).expand(len(logits), -1))


def teacher_in_training(
    plan: Plan, prepared: Prepared, examples: Mapping[str, Examples], device: torch.device, strategy: Strategy
) -> Teacher | None:
    """The teacher that a run asks: cached, or with `teacher_cache=off` loaded. None if no loss needs one."""
    if not needs_teacher(plan):
        return None
    if plan.teacher_cache == "off":
        return teacher_of(plan, prepared, device, strategy)
    return cached_teacher(plan, prepared, examples, device)


def cached_teacher(
    plan: Plan, prepared: Prepared, examples: Mapping[str, Examples], device: torch.device
) -> CachedTeacher:
    """Open the cached teacher of `plan`; ConfigError if the cache has no logits for these rows."""
    keys = keys_of(plan, prepared, examples)
    tasks = {task: Maskings([find(_root(plan), key) for key in some]) for task, some in keys.items()}
    _, shared = vocabularies(plan.teachers[0], prepared)
    check_labels(plan, prepared, plan.teachers[0])
    return CachedTeacher(tasks, shared, {"teacher": json.dumps([fingerprint(one) for one in plan.teachers])}, device)


def fill_cache(plan: Plan, prepared: Prepared, device: torch.device, say: Callable[[str], None]) -> None:
    """Compute and cache the teacher's logits for all rows of a run of `plan`, unless they are cached already."""
    live = _LiveTeacher(plan, prepared, device)
    examples = examples_of(plan.mix, plan.model.family, plan.batch, prepared, "train", augmented=True)
    for task, keys in keys_of(plan, prepared, examples).items():
        draws = rows_draws(plan.seed, task)
        for number, key in enumerate(keys, start=1):
            what = f"teacher: {task}, masking {number} of {len(keys)}"
            at_once = max(1, MOST_BYTES // (plan.batch.seq_len * 4 * prepared.vocabulary.size))
            with progress.stage(what, len(examples[task]), "rows") as asked:
                masking, hit = build(_root(plan), key, examples[task], draws, min(64, at_once), live, asked.reach, say)
            targets = max(1, sum(masking.targets.values()))
            say(
                f"{what}: {masking.rows:,} rows, {masking.bytes / 2**20:,.1f} MiB "
                f"({masking.bytes / targets:,.0f} bytes per target), cache {'hit' if hit else 'miss: asked'}"
            )


class _LiveTeacher:
    """The teacher as the function that fills the cache. It is loaded when it is first asked: of several processes by
    the one that has the lock of the entry."""

    def __init__(self, plan: Plan, prepared: Prepared, device: torch.device) -> None:
        self.plan, self.prepared, self.device = plan, prepared, device
        self.objectives: dict[str, Objective] = {name: task.objective for name, task in plan.mix.tasks.items()}

    @cached_property
    def live(self) -> TeacherEnsemble:
        return teacher_of(self.plan, self.prepared, self.device)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        batch, objective = batch.to(self.device), self.objectives[batch.task]
        heads = {term: objective.head(batch.task, term) for term in batch.targets}
        view = self.live.read(
            batch, {term: (batch.inputs, at) for term, at in target_positions(objective, batch).items()}
        )
        return {term: view.answers(term, heads[term], slice(0, count)).logits for term, count in batch.counts().items()}


def keys_of(plan: Plan, prepared: Prepared, examples: Mapping[str, Examples]) -> dict[str, list[dict[str, Any]]]:
    """Cache keys of each task's rows, one per masking (epoch)."""
    versions = versions_of(plan, examples)
    assert versions is not None
    teachers = [
        {"weights": fingerprint(model), "vocabulary": _mapping_hash(vocabularies(model, prepared)[1])}
        for model in plan.teachers
    ]
    keys: dict[str, list[dict[str, Any]]] = {}
    for name, task in plan.mix.tasks.items():
        k = plan.teacher_cache_k if task.objective.label_kind is None else None
        parts = {
            "teacher": teachers,
            "teacher_precision": repr(plan.distill.teacher_precision),
            "task": name,
            "text": prepared.fingerprints[name],
            "tokenizer": prepared.fingerprints["tokenizer"],
            "objective": repr(task.objective),
            "augment": repr(task.augment),
            "family": plan.model.family,
            "seq_len": plan.batch.seq_len,
            "seed": plan.seed,
        }
        if task.objective.carries_state:
            parts["batch.size"] = plan.batch.rows  # how the text is cut into rows depends on it
        keys[name] = [identity(masking, k, **parts) for masking in range(versions)]
    return keys


def _mapping_hash(shared: SharedPieces) -> str:
    """Hash of the mapping between the two vocabularies, the only part of them that the logits depend on."""
    return hashlib.sha256(shared.to_teacher.tobytes()).hexdigest()


def _root(plan: Plan) -> Path:
    return root_of(plan.cache_dir)
