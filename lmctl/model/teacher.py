"""A teacher: a model that was trained before, as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmctl.model.pretrained import Pretrained


@dataclass(frozen=True)
class TeacherModel(Pretrained):
    """Like `model=pretrained`, in its messages called by the key that names it."""

    key: ClassVar[str] = "teacher"
