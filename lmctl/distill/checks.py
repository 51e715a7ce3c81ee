"""Compatibility checks of distillation: terms, teacher, student, tasks and cache; before any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lmctl.core.batch import Family
from lmctl.core.errors import ConfigError
from lmctl.core.suggest import did_you_mean
from lmctl.distill.base import DistillTerm, FeatureLoss, LogitLoss
from lmctl.distill.on_policy import OnPolicy
from lmctl.distill.texts import TeacherTexts
from lmctl.model.base import A_FAMILY, NEAREST_MIX, NEAREST_MODEL, ModelSpec
from lmctl.objective.base import Objective

if TYPE_CHECKING:
    from lmctl.plan import Plan

TEACHER_CACHES = ("off", "build", "use", "auto")


def check_distillation(plan: Plan) -> Iterator[ConfigError]:
    """Errors if the distillation terms do not work with teacher, student, tasks or cache."""
    check_cache(plan.teacher_cache, plan.teacher_cache_k, plan.maskings, plan.distill.terms, plan.mix.streams)
    if not plan.distill.terms:
        if plan.teacher and plan.student.from_teacher is None:
            yield ConfigError(
                f"teacher={plan.teacher[0]}: with distill=none nothing is learnt from it", "distill=logits"
            )
        return
    if not plan.teacher:
        yield ConfigError("distill: there is no teacher", "teacher=RUN, a model directory or a hub id; or distill=none")
        return
    if plan.distill.teacher_precision is not None and plan.distill.teacher_precision.chooses:
        yield ConfigError(
            "distill.teacher_precision=auto: auto measures what learns, and a teacher does not",
            "distill.teacher_precision=bf16, or another by name",
        )
    objectives = {name: task.objective for name, task in plan.mix.tasks.items()}
    check_generation(plan.distill.terms, plan.teacher, plan.model.family, objectives)
    inner = [name for name, term in plan.distill.terms.items() if isinstance(term, FeatureLoss)]
    if inner and len(plan.teacher) > 1:
        yield ConfigError(
            f"distill: {inner[0]} looks into the teacher, and there are {len(plan.teacher)}",
            f"teacher={plan.teacher[0]}, or distill=logits, which averages the answers of several",
        )
    if inner and plan.compile:
        yield ConfigError(
            f"distill: {inner[0]} looks into layers, which compiled code does not let anybody do",
            "compile=false, or distill=logits",
        )
    for teacher in plan.teachers:
        yield from check_teacher(plan, teacher.starts_from, teacher)


def check_teacher(plan: Plan, place: str | None, teacher: ModelSpec) -> Iterator[ConfigError]:
    """Errors if the teacher at `place` cannot read the student's rows."""
    if teacher.max_positions is not None and plan.batch.seq_len > teacher.max_positions:
        yield ConfigError(
            f"batch.seq_len={plan.batch.seq_len} is longer than the {teacher.max_positions} positions of "
            f"teacher={place}",
            f"batch.seq_len={teacher.max_positions}",
        )
    student = A_FAMILY[plan.model.family]
    for name, task in plan.mix.tasks.items():
        if teacher.family in (plan.model.family, *(task.objective.families if task.objective.label_kind else ())):
            continue
        yield ConfigError(
            f"teacher={place} is {A_FAMILY[teacher.family]}, and mix.tasks.{name} trains {student}",
            f"nearest: model={NEAREST_MODEL[teacher.family]} {NEAREST_MIX[teacher.family]}, or a teacher that is "
            f"{student}",
        )


def check_cache(
    mode: str, k: int | None, maskings: int | None, terms: Mapping[str, DistillTerm], streams: Sequence[str]
) -> None:
    """ConfigError unless `teacher_cache=mode`, `teacher_cache_k` and `maskings` work with the terms and streamed tasks:
    only logits can be cached, and only for rows that are repeated."""
    if mode not in TEACHER_CACHES:
        raise ConfigError(f"teacher_cache={mode} is none of its values{did_you_mean(mode, TEACHER_CACHES)}")
    for name, value in (("teacher_cache_k", k), ("maskings", maskings)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be above 0, got {value}")
    if streams and maskings is not None:
        raise ConfigError(
            f"maskings={maskings}: mix.tasks.{streams[0]} is streamed, so its rows do not come again",
            "data.streaming=false, or maskings=null",
        )
    if mode == "off" or not terms:
        return
    inner = [name for name, term in terms.items() if isinstance(term, FeatureLoss)]
    own = [name for name, term in terms.items() if isinstance(term, OnPolicy)]
    if not inner and not streams and not own:
        return
    reason = f"mix.tasks.{streams[0]} is streamed, so its rows do not come again" if streams else ""
    if inner:
        reason = f"{inner[0]} looks into the teacher, and only its answers are kept"
    elif own:
        reason = f"with {own[0]} the teacher is asked about texts that nobody knows beforehand"
    raise ConfigError(f"teacher_cache={mode}: {reason}", "teacher_cache=off, or distill=logits")


def check_generation(
    terms: Mapping[str, DistillTerm], teachers: Sequence[str], family: Family, objectives: Mapping[str, Objective]
) -> None:
    """ConfigError unless teacher and student can generate the texts that the terms need; `objectives` by task."""
    writing = [name for name, term in terms.items() if isinstance(term, (TeacherTexts, OnPolicy))]
    if not writing:
        return
    texts = [name for name in writing if isinstance(terms[name], TeacherTexts)]
    if family == "encoder":
        raise ConfigError(
            f"distill: {writing[0]} is about texts that are written, and an encoder writes none",
            "a decoder or seq2seq student (model=gpt2_tiny, model=t5_tiny), or distill=logits",
        )
    if texts and len(teachers) > 1:
        raise ConfigError(
            f"distill: {texts[0]} learns what one teacher writes, and there are {len(teachers)}",
            f"teacher={teachers[0]}, or distill=logits, which averages the answers of several",
        )
    if not texts and not any(isinstance(term, LogitLoss) for term in terms.values()):
        raise ConfigError(
            f"distill: {writing[0]} has the student write, and no term says what to learn from that",
            "distill=on_policy has one; or distill=[logits,on_policy]",
        )
    for name, objective in objectives.items():
        written = objective.reads == "parallel" or (family == "decoder" and objective.reads == "documents")
        if not written or objective.carries_state:
            raise ConfigError(
                f"distill: {writing[0]} does not know how to write for mix.tasks.{name}: {type(objective).__name__}",
                "nearest: mix=clm (a decoder), mix=translate (seq2seq)",
            )
