"""What a micro-batch is learnt from besides its labels: nothing, or what a teacher makes of the same rows.

A teacher is asked about exactly what the student's predictions encoded. Its answers are compared with the student's
where the student's heads run (`losses.py`); hidden states and attention are compared here, as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lmctl.core.batch import Batch, LabelKind
from lmctl.distill.activation_recorder import Inside
from lmctl.distill.base import Asked, Distiller, LogitLesson, StateLesson, States, Teacher, TeacherOutput
from lmctl.objective.base import Objective, Prediction
from lmctl.train.losses import zero_loss
from lmctl.train.rows import real_positions

PREFIX = "distill_"
"""Before the names of a lesson's terms."""

LogitLoss: TypeAlias = Callable[[Tensor, slice], Tensor]
"""(the student's logits [n, C] at the targets `rows`, which these are) -> a loss, summed over them."""


@dataclass(frozen=True)
class Lessons:
    """What is learnt from one micro-batch besides its labels."""

    task_weight: float = 1.0
    """What the objective's own losses count for."""
    logits: Mapping[str, Mapping[str, tuple[float, LogitLoss]]] = field(default_factory=dict)
    """By term of the objective: by name what is learnt from its logits, and what it counts for."""
    states: Mapping[str, tuple[float, Tensor]] = field(default_factory=dict)
    """By name: how far inner states are apart, summed over real positions, and what that counts for."""


class NoDistillation(nn.Module):
    """The labels say all."""

    shown: Sequence[str] = ()
    """What of the teacher's is compared with what of the student's, for people."""
    chunk_bytes: int | None = None

    def counts(self, batch: Batch) -> dict[str, int]:
        """What the terms of the lessons are summed over, besides those of the objective."""
        return {}

    def recording(self) -> AbstractContextManager[Any]:
        """Inside it, what a forward pass of the student does is recorded, if a lesson looks there."""
        return nullcontext()

    def recorded(self, batch: Batch) -> States | None:
        """What was recorded last."""
        return None

    def lessons(
        self, batch: Batch, predictions: Mapping[str, Prediction], states: States | None, progress: float
    ) -> Lessons:
        """What a teacher adds to the losses of `batch`, when `progress` of the budget is spent."""
        return Lessons()


class Distillation(NoDistillation):
    """A teacher's lesson, as a distiller words it."""

    def __init__(
        self,
        teacher: Teacher,
        rule: Distiller,
        objectives: Mapping[str, Objective],
        inside: Inside | None,
    ) -> None:
        """`inside`: what records the student's layers, if a term looks at them."""
        super().__init__()
        self.teacher, self.rule, self.inside = teacher, rule, inside
        self.chunk_bytes = rule.chunk_bytes
        self.kinds: dict[str, LabelKind] = {name: o.label_kind or "class" for name, o in objectives.items()}
        self.comparing = {n: t for n, t in rule.lessons.items() if isinstance(t, LogitLesson)}
        self.pupils = nn.ModuleDict()
        self.shown = []
        for name, lesson in rule.lessons.items():
            if inside is not None and isinstance(lesson, StateLesson):
                assert teacher.anatomy is not None
                self.pupils[name] = pupil = lesson.pupil(inside.anatomy, teacher.anatomy)
                self.shown += [f"{name}: {line}" for line in pupil.shown]
        self._looked: tuple[Any, TeacherOutput] | None = None

    def _label(self, name: str, term: str, batch: Batch) -> str:
        """The name of a term of the lesson about the targets of `term`."""
        return f"{PREFIX}{name}" if len(batch.targets) == 1 else f"{PREFIX}{name}_{term}"

    def counts(self, batch: Batch) -> dict[str, int]:
        counts = batch.counts()
        answers = {self._label(name, term, batch): counts[term] for name in self.comparing for term in counts}
        return answers | {f"{PREFIX}{name}": batch.tokens for name in self.pupils}

    def recording(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.inside is None else self.inside.watching()

    def recorded(self, batch: Batch) -> States | None:
        return None if self.inside is None else self.inside.taken(real_by_stack(batch))

    def lessons(
        self, batch: Batch, predictions: Mapping[str, Prediction], states: States | None, progress: float
    ) -> Lessons:
        output = self._look(batch, predictions)
        asked = Asked(self.kinds[batch.task], progress)

        def compared(lesson: LogitLesson, term: str, head: str) -> LogitLoss:
            return lambda logits, rows: lesson.apart(logits.float(), output.answers(term, head, rows), asked)

        logits = {
            term: {
                self._label(name, term, batch): (lesson.weight_at(progress), compared(lesson, term, prediction.head))
                for name, lesson in self.comparing.items()
            }
            for term, prediction in predictions.items()
        }
        inner = {}
        for name, pupil in self.pupils.items():
            weight = self.rule.lessons[name].weight_at(progress)
            inner[f"{PREFIX}{name}"] = weight, _apart(pupil, states, output.states, weight)
        return Lessons(0.0 if batch.own else self.rule.hard_at(progress), logits, inner)

    def _look(self, batch: Batch, predictions: Mapping[str, Prediction]) -> TeacherOutput:
        """What the teacher makes of what was encoded, once for all passes over the same."""
        inputs = [prediction.inputs for prediction in predictions.values()]
        known = self._looked
        if known is not None and len(known[0]) == len(inputs) and all(map(_same, known[0], inputs)):
            return known[1]
        self._looked = None  # let go of the last one before there is another
        output = self.teacher.look(batch, predictions)
        self._looked = inputs, output
        return output


def _same(one: object, other: object) -> bool:
    return one is other


def _apart(pupil: nn.Module, ours: Any, theirs: Any, weight: float) -> Tensor:
    """What a comparison of states gives, in float32 whatever the states are; where it does not count, without a
    backward pass."""
    with torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
        apart: Tensor = pupil(ours, theirs)
    return apart if weight != 0 else apart + zero_loss(pupil.parameters())


def real_by_stack(batch: Batch) -> dict[str, Tensor]:
    """bool [R, L] by stack of layers: what is not padding."""
    if "decoder_input_ids" not in batch.inputs:
        return {"layers": real_positions(batch)}
    ids, mask = batch.inputs["decoder_input_ids"], batch.inputs.get("decoder_attention_mask")
    target = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    return {"encoder": real_positions(batch), "decoder": target}
