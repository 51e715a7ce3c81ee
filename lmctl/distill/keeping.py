"""When a teacher's answers can be kept (`teacher_cache=`): the rules, before there is any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmctl.core.errors import ConfigError
from lmctl.core.suggest import did_you_mean
from lmctl.core.types import Lesson, StateLesson

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
    if not inner and not streams:
        return
    reason = f"mix.tasks.{streams[0]} is streamed, so its rows do not come again" if streams else ""
    if inner:
        reason = f"{inner[0]} looks into the teacher, and only its answers are kept"
    raise ConfigError(f"teacher_cache={mode}: {reason}", "teacher_cache=off, or distill=logits")
