"""`distill=none`: training without a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from lmctl.distill.base import Distiller, DistillTerm


@dataclass(frozen=True)
class NoTeacher(Distiller):
    """No distillation: the objective's own losses only."""

    terms = MappingProxyType[str, DistillTerm]({})
