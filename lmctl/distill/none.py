"""`distill=none`: there is no teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lmctl.distill.base import Distiller, Lesson


@dataclass(frozen=True)
class NoTeacher(Distiller):
    """The text says all."""

    @property
    def lessons(self) -> Mapping[str, Lesson]:
        return {}
