"""What a micro-batch is learnt from: the objective alone, or the objective and a teacher.

With a teacher, the student's hidden states at the targets are computed once; heads, the objective's losses and the
lesson's divergences run over them in chunks, so that logits of student and teacher never lie in memory whole. All terms
come back as they are, under names of their own: what they count for is said by `weights`, and the learner's total loss
multiplies by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from lmctl.core.types import (
    Asked,
    Batch,
    Distiller,
    LabelKind,
    LogitLesson,
    Network,
    Objective,
    StateLesson,
    Teacher,
    Terms,
    View,
)
from lmctl.distill.chunked import chunked, leaves
from lmctl.model.inside import Inside
from lmctl.run.embeddings import real_positions
from lmctl.run.nothing import nothing
from lmctl.run.reading import Known, Watched, numbered

if TYPE_CHECKING:
    from lmctl.run.learner import Learner

PREFIX = "distill_"
"""Before the names of a lesson's terms."""


class Untaught(nn.Module):
    """The objective alone."""

    progress = 0.0
    """Share of the budget that is spent."""
    shown: Sequence[str] = ()
    """What of the teacher's is compared with what of the student's, for people."""

    def terms(self, learner: Learner, network: Network, batch: Batch) -> Terms:
        """All terms of a micro-batch, each summed over what `counts` says."""
        with learner.products():
            return learner.objectives[batch.task].terms(network, batch)

    def counts(self, batch: Batch) -> dict[str, int]:
        """What the terms of the lesson are summed over, besides those of the objective."""
        return {}

    def weights(self, batch: Batch) -> dict[str, float]:
        """What each term counts for; 1 where nothing is said."""
        return {}

    def owner(self, task: str, term: str) -> str:
        """The objective's term that a term of the lesson goes with."""
        return term


class Taught(Untaught):
    """The objective, and a teacher's lesson."""

    def __init__(
        self,
        teacher: Teacher,
        rule: Distiller,
        objectives: Mapping[str, Objective],
        examples: Sequence[Batch],
        width: int,
        inside: Inside | None,
    ) -> None:
        """`examples`: a batch of every task, to know its terms; `width`: outputs of the widest head; `inside`: what
        looks into the student, if a term wants to."""
        super().__init__()
        self.teacher, self.rule, self.width = teacher, rule, width
        self.comparing = {n: t for n, t in rule.lessons.items() if isinstance(t, LogitLesson)}
        self.kinds: dict[str, LabelKind] = {name: o.label_kind or "class" for name, o in objectives.items()}
        self.owners = {
            f"{batch.task}/{self._label(name, term, batch)}": term
            for batch in examples
            for name in self.comparing
            for term in batch.targets
        }
        self.inside = inside
        self.pupils = nn.ModuleDict()
        if inside is not None:
            assert teacher.anatomy is not None
            for name, lesson in rule.lessons.items():
                if isinstance(lesson, StateLesson):
                    self.pupils[name] = lesson.pupil(inside.anatomy, teacher.anatomy)
        self.shown = self._shown()
        self._looked: tuple[Batch, View] | None = None
        self._known_heads: dict[str, list[Tensor]] = {}
        """By task, the parameters of its heads."""

    def _label(self, name: str, term: str, batch: Batch) -> str:
        """The name of a term of the lesson about the targets of `term`."""
        return f"{PREFIX}{name}" if len(batch.targets) == 1 else f"{PREFIX}{name}_{term}"

    def owner(self, task: str, term: str) -> str:
        return self.owners.get(f"{task}/{term}", term)

    def counts(self, batch: Batch) -> dict[str, int]:
        counts = batch.counts()
        answers = {self._label(name, term, batch): counts[term] for name in self.comparing for term in counts}
        return answers | {f"{PREFIX}{name}": batch.tokens for name in self.pupils}

    def weights(self, batch: Batch) -> dict[str, float]:
        weights = dict.fromkeys(batch.targets, self.rule.hard_at(self.progress))
        for name, lesson in self.comparing.items():
            weight = lesson.weight_at(self.progress)
            weights |= {self._label(name, term, batch): weight for term in batch.targets}
        inner = {f"{PREFIX}{name}": self.rule.lessons[name].weight_at(self.progress) for name in self.pupils}
        return weights | inner

    def _shown(self) -> list[str]:
        named = {name: cast(Any, pupil).shown for name, pupil in self.pupils.items()}
        return [f"{name}: {line}" for name, lines in named.items() for line in lines]

    def terms(self, learner: Learner, network: Network, batch: Batch) -> Terms:
        view, weights = self._look(batch), self.weights(batch)
        whole_rows = learner.objectives[batch.task].label_kind is not None
        read = None if whole_rows else torch.cat([target.positions for target in batch.targets.values()])
        with learner.products(), nullcontext() if self.inside is None else self.inside.watching():
            hidden = network.encode(batch.inputs, read)
        states = None if self.inside is None else self.inside.taken(real_by_stack(batch, whole_rows))
        names = [name for name in (*batch.targets, *self.counts(batch)) if name.removeprefix(PREFIX) not in self.pupils]
        if isinstance(network, Watched):  # somebody wants the logits, all of them
            everything = {term: slice(0, count) for term, count in batch.counts().items()}
            values = self._losses(learner, network, batch, view, hidden, everything)
        else:
            values = self._in_chunks(learner, network, batch, view, hidden, [weights[name] for name in names])
        terms = dict(zip(names, values.unbind(), strict=True))
        for name, pupil in self.pupils.items():
            terms[f"{PREFIX}{name}"] = self._inner(learner, pupil, states, view.states, weights[f"{PREFIX}{name}"])
        return terms

    def _inner(self, learner: Learner, pupil: nn.Module, ours: Any, theirs: Any, weight: float) -> Tensor:
        """What a comparison of states gives; where it does not count, without a backward pass."""
        with learner.products(), torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
            apart: Tensor = pupil(ours, theirs)
        return apart if weight != 0 else apart + nothing(pupil.parameters())

    def _look(self, batch: Batch) -> View:
        """What the teacher makes of `batch`, once for all passes over it."""
        if self._looked is None or self._looked[0] is not batch:
            self._looked = None  # let go of the last one before there is another
            self._looked = (batch, self.teacher.look(batch))
        return self._looked[1]

    def _losses(
        self, learner: Learner, network: Network, batch: Batch, view: View, hidden: Tensor, rows: Mapping[str, slice]
    ) -> Tensor:
        """The losses [K] of the targets `rows`, whose hidden states are `hidden` [n, H]: the objective's, then the
        lesson's."""
        known, small = Known(network, hidden), numbered(batch, rows)
        with learner.products():
            hard = learner.objectives[batch.task].terms(known, small)  # type: ignore[arg-type]  # heads, no more
        said = {
            term: (logits, view.answers(term, head, rows[term]))
            for (term, (head, logits)) in zip(batch.targets, known.heads, strict=True)
        }
        asked = Asked(self.kinds[batch.task], self.progress)
        with learner.products():  # again: what the teacher switched for itself is switched back
            soft = [
                lesson.apart(logits.float(), answers, asked)
                for lesson in self.comparing.values()
                for logits, answers in said.values()
            ]
        return torch.stack([*(hard[term].float() for term in batch.targets), *soft])

    def _in_chunks(
        self, learner: Learner, network: Network, batch: Batch, view: View, hidden: Tensor, weights: list[float]
    ) -> Tensor:
        pieces = cut(batch.counts(), self.width, self.rule.chunk_bytes)
        starts, start = {}, 0
        for term, count in batch.counts().items():
            starts[term], start = start, start + count
        places = [
            torch.cat([torch.arange(starts[t] + s.start, starts[t] + s.stop) for t, s in piece.items()]).to(
                hidden.device
            )
            for piece in pieces
        ]

        def losses(chunk: Tensor, number: int) -> Tensor:
            return self._losses(learner, network, batch, view, chunk, pieces[number])

        return chunked(losses, places, weights, hidden, self._of_heads(learner, network, batch, hidden))

    def _of_heads(self, learner: Learner, network: Network, batch: Batch, hidden: Tensor) -> list[Tensor]:
        """The parameters of the heads of the batch's task that learn."""
        if batch.task not in self._known_heads:
            device = [hidden.device] if hidden.device.type == "cuda" else []
            one = {term: slice(0, 1) for term in batch.targets}
            known = Known(network, hidden.detach()[:1].expand(len(one), -1))
            with torch.random.fork_rng(devices=device), torch.enable_grad(), learner.products():
                terms = learner.objectives[batch.task].terms(known, numbered(batch, one))  # type: ignore[arg-type]
            found = leaves(cast(Tensor, sum(terms.values())))
            self._known_heads[batch.task] = [p for p in learner.parameters() if any(p is leaf for leaf in found)]
        return self._known_heads[batch.task]


def cut(counts: Mapping[str, int], width: int, most_bytes: int) -> list[dict[str, slice]]:
    """The targets of every term in pieces, so that float32 logits `width` wide of a piece fill about `most_bytes`."""
    parts = max(1, -(-max(counts.values()) * width * 4 // most_bytes))
    return [
        {term: slice(part * count // parts, (part + 1) * count // parts) for term, count in counts.items()}
        for part in range(parts)
    ]


def real_by_stack(batch: Batch, whole_rows: bool) -> dict[str, Tensor]:
    """bool [R, L] by stack of layers: what is not padding."""
    if "decoder_input_ids" not in batch.inputs:
        return {"layers": real_positions(batch, whole_rows)}
    ids, mask = batch.inputs["decoder_input_ids"], batch.inputs.get("decoder_attention_mask")
    target = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    return {"encoder": real_positions(batch, on_rows=True), "decoder": target}
