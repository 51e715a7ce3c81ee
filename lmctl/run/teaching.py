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

from lmctl.core.batch import Batch, LabelKind, Terms
from lmctl.core.lessons import Asked, Distiller, LogitLesson, StateLesson, Teacher, View
from lmctl.core.tasks import Network, Objective
from lmctl.distill.chunked import chunked, leaves
from lmctl.model.inside import Inside
from lmctl.run.nothing import nothing
from lmctl.run.reading import Known, Watched, numbered, real_by_stack

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
        inside: Inside | None,
    ) -> None:
        """`examples`: a batch of every task, to know its terms; `inside`: what looks into the student, if a term
        wants to."""
        super().__init__()
        self.teacher, self.rule = teacher, rule
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
        self._known_heads: dict[str, tuple[list[Tensor], int]] = {}
        """By `<task>/<term>`, the parameters of its head and the number of its outputs."""

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
        weights = dict.fromkeys(batch.targets, 0.0 if batch.own else self.rule.hard_at(self.progress))
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
        if isinstance(network, Watched):  # somebody wants the logits, all of them
            every = {term: slice(0, count) for term, count in batch.counts().items()}
            losses = self._losses(learner, network, batch, view, hidden, every)
        else:
            losses = self._in_chunks(learner, network, batch, view, hidden, weights)
        terms = {
            name: value
            for term, values in losses.items()
            for name, value in zip(self._names(batch, term), values.unbind(), strict=True)
        }
        for name, pupil in self.pupils.items():
            terms[f"{PREFIX}{name}"] = self._inner(pupil, states, view.states, weights[f"{PREFIX}{name}"])
        return terms

    def _inner(self, pupil: nn.Module, ours: Any, theirs: Any, weight: float) -> Tensor:
        """What a comparison of states gives, in float32 whatever the states are; where it does not count, without a
        backward pass."""
        with torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
            apart: Tensor = pupil(ours, theirs)
        return apart if weight != 0 else apart + nothing(pupil.parameters())

    def _look(self, batch: Batch) -> View:
        """What the teacher makes of `batch`, once for all passes over it."""
        if self._looked is None or self._looked[0] is not batch:
            self._looked = None  # let go of the last one before there is another
            self._looked = (batch, self.teacher.look(batch))
        return self._looked[1]

    def _names(self, batch: Batch, term: str) -> list[str]:
        """Of the losses about the targets of `term`: the objective's own, then the lesson's."""
        return [term, *(self._label(name, term, batch) for name in self.comparing)]

    def _losses(
        self, learner: Learner, network: Network, batch: Batch, view: View, hidden: Tensor, rows: Mapping[str, slice]
    ) -> dict[str, Tensor]:
        """By term, the losses [K] of its targets `rows`, named by `_names`; `hidden` [n, H] are the states of all of
        these targets."""
        known, small = Known(network, hidden), numbered(batch, rows)
        with learner.products():
            hard = learner.objectives[batch.task].terms(known, small)  # type: ignore[arg-type]  # heads, no more
        said = {
            term: (logits, view.answers(term, head, rows[term]))
            for (term, (head, logits)) in zip(batch.targets, known.heads, strict=True)
        }
        asked = Asked(self.kinds[batch.task], self.progress)
        with learner.products():  # again: what the teacher switched for itself is switched back
            return {
                term: torch.stack(
                    [hard[term].float(), *(one.apart(logits.float(), taught, asked) for one in self.comparing.values())]
                )
                for term, (logits, taught) in said.items()
            }

    def _in_chunks(
        self,
        learner: Learner,
        network: Network,
        batch: Batch,
        view: View,
        hidden: Tensor,
        weights: Mapping[str, float],
    ) -> dict[str, Tensor]:
        """The same for all targets, chunk by chunk. Terms by themselves, because each is divided by a count of its
        own."""
        counts, losses = batch.counts(), {}
        parts = hidden.split(list(counts.values()))
        for (term, count), states in zip(counts.items(), parts, strict=True):
            nobody = dict.fromkeys(counts, slice(0, 0))
            heads, width = self._of_head(learner, network, batch, term, states)
            pieces = cut(count, width, self.rule.chunk_bytes)

            def of_piece(chunk: Tensor, number: int, term: str = term, pieces: list[slice] = pieces) -> Tensor:
                rows = nobody | {term: pieces[number]}  # noqa: B023  # the same for all terms
                return self._losses(learner, network, batch, view, chunk, rows)[term]

            weighed = [weights[name] for name in self._names(batch, term)]
            losses[term] = chunked(of_piece, pieces, weighed, states, heads)
        return losses

    def _of_head(
        self, learner: Learner, network: Network, batch: Batch, term: str, hidden: Tensor
    ) -> tuple[list[Tensor], int]:
        """The parameters of the head of a term that learn, and the number of its outputs."""
        name = f"{batch.task}/{term}"
        if name not in self._known_heads:
            device = [hidden.device] if hidden.device.type == "cuda" else []
            one = {other: slice(0, other == term) for other in batch.targets}
            known, small = Known(network, hidden.detach()[:1]), numbered(batch, one)
            with torch.random.fork_rng(devices=device), torch.enable_grad(), learner.products():
                terms = learner.objectives[batch.task].terms(known, small)  # type: ignore[arg-type]
            found = leaves(terms[term])
            learning: list[Tensor] = [p for p in learner.parameters() if any(p is leaf for leaf in found)]
            said = dict(zip(batch.targets, known.heads, strict=True))
            self._known_heads[name] = (learning, int(said[term][1].shape[-1]))
        return self._known_heads[name]


def cut(count: int, width: int, most_bytes: int) -> list[slice]:
    """`count` targets in chunks, so that float32 logits `width` wide of a chunk fill about `most_bytes`."""
    parts = max(1, -(-count * width * 4 // most_bytes))
    return [slice(part * count // parts, (part + 1) * count // parts) for part in range(parts)]
