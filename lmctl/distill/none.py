"""`distill=none`: there is no teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lmctl.core.lessons import Lesson
from lmctl.precision.base import Precision


@dataclass(frozen=True)
class NoTeacher:
    """The text says all."""

    lessons: ClassVar[Mapping[str, Lesson]] = {}
    teacher_precision: ClassVar[Precision | None] = None
    chunk_bytes: ClassVar[int] = 0
    control: ClassVar[bool] = False

    def hard_at(self, progress: float) -> float:
        return 1.0
