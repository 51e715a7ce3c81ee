"""What goes with what in a lesson: the rules, before there is any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmctl.core.batch import Family
from lmctl.core.errors import ConfigError
from lmctl.core.lessons import Lesson, LogitLesson, StateLesson
from lmctl.core.suggest import did_you_mean
from lmctl.core.tasks import Objective
from lmctl.distill.on_policy import OnPolicy
from lmctl.distill.texts import TeacherTexts

TEACHER_CACHES = ("off", "build", "use", "auto")


def check_keeping(
    mode: str, k: int | None, maskings: int | None, lessons: Mapping[str, Lesson], streams: Sequence[str]
) -> None:
    """ConfigError unless `teacher_cache=mode`, `teacher_cache_k` and `maskings` go with the lessons and with the tasks
    that are streamed: only answers, and only to rows that come again, can be kept."""
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
    if mode == "off" or not lessons:
        return
    inner = [name for name, lesson in lessons.items() if isinstance(lesson, StateLesson)]
    own = [name for name, lesson in lessons.items() if isinstance(lesson, OnPolicy)]
    if not inner and not streams and not own:
        return
    reason = f"mix.tasks.{streams[0]} is streamed, so its rows do not come again" if streams else ""
    if inner:
        reason = f"{inner[0]} looks into the teacher, and only its answers are kept"
    elif own:
        reason = f"with {own[0]} the teacher is asked about texts that nobody knows beforehand"
    raise ConfigError(f"teacher_cache={mode}: {reason}", "teacher_cache=off, or distill=logits")


def check_writing(
    lessons: Mapping[str, Lesson], teachers: Sequence[str], family: Family, objectives: Mapping[str, Objective]
) -> None:
    """ConfigError unless teacher and student can write what the lessons want of them; `objectives` by task."""
    writing = [name for name, lesson in lessons.items() if isinstance(lesson, (TeacherTexts, OnPolicy))]
    if not writing:
        return
    texts = [name for name in writing if isinstance(lessons[name], TeacherTexts)]
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
    if not texts and not any(isinstance(lesson, LogitLesson) for lesson in lessons.values()):
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
