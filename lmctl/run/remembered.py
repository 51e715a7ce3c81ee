"""A teacher that need not be there: its answers, asked for once, come from the cache (`lmctl.distill.cache`).

They are those of the live teacher to the same rows. With `teacher_cache_k=null` they differ from them by no more than the
rounding of products of other shapes (rows come in other company than they were asked in); with k pieces per target, by
what `lmctl.distill.compact` leaves out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmctl.core.cache import default_root, found
from lmctl.core.draws import Draws
from lmctl.core.types import Answers, Batch, Examples, Objective, States
from lmctl.distill.cache import KIND, Maskings, build, find, identity
from lmctl.distill.vocabulary import SharedPieces
from lmctl.mix.stream import collated
from lmctl.model.network import LANGUAGE
from lmctl.plan import Plan
from lmctl.run.assemble import heads_of
from lmctl.run.prepare import Prepared
from lmctl.run.reading import Known, numbered
from lmctl.run.teacher import fingerprint, shared_with, teacher_of
from lmctl.run.versions import versions_of

MOST_BYTES = 1 << 27
"""Of logits that are in memory at a time while the teacher is asked."""
SECONDS = 20
"""Between lines that say how far it is."""


class RememberedTeacher:
    """Answers from the cache."""

    def __init__(self, tasks: Mapping[str, Maskings], shared: SharedPieces, prints: dict[str, str]) -> None:
        self.tasks, self.shared, self.fingerprints = tasks, shared, prints

    def look(self, batch: Batch) -> Recalled:
        maskings = self.tasks[batch.task]
        return Recalled({term: maskings.answers(batch, term) for term in batch.targets}, self.shared)


@dataclass(frozen=True)
class Recalled:
    """What it makes of one micro-batch."""

    logits: dict[str, Tensor]
    """By term [N, V], in the host's memory."""
    shared: SharedPieces

    def answers(self, term: str, head: str, rows: slice) -> Answers:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        logits = self.logits[term][rows].to(device)
        places = self.shared.of_student
        if head not in LANGUAGE or head == "pair" or len(places) == len(self.shared.to_teacher):
            return Answers(logits)
        return Answers(logits, torch.from_numpy(places).to(device).expand(len(logits), -1))

    @property
    def states(self) -> States:
        raise NotImplementedError("answers are kept, nothing of the inside")
