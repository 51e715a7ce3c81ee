"""Feature distillation losses on hidden states and attention, as modules, because some have trainable projections.

Shapes as in `States`: R rows, L positions, H units, A heads. All losses are sums over the real positions of the student
(which are the teacher's).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmctl.distill.base import AttentionInputs, States

Pairs = Mapping[str, Sequence[tuple[int, int]]]
"""(teacher's layer, student's layer) by stack."""


class HiddenStateLoss(nn.Module):
    """Hidden state loss over layer pairs: mean squared error or cosine distance."""

    def __init__(self, pairs: Pairs, ours: int, theirs: int, metric: str) -> None:
        super().__init__()
        self.pairs, self.metric = pairs, metric
        self.number = sum(map(len, pairs.values()))
        differ = ours != theirs
        self.projections = nn.ModuleDict(
            {f"{stack}_{t}_{s}": nn.Linear(ours, theirs) for stack, some in pairs.items() for t, s in some if differ}
        )
        learned = f", projected {ours} -> {theirs}" if differ else ""
        self.shown = [
            f"{stack} {_layer(t):>10} [R, L, {theirs}]  ->  {_layer(s):>10} [R, L, {ours}]{learned}"
            for stack, some in pairs.items()
            for t, s in some
        ]

    def forward(self, student: States, teacher: States) -> Tensor:
        total = torch.zeros((), device=next(iter(student.real.values())).device)
        for stack, some in self.pairs.items():
            real = student.real[stack]
            for t, s in some:
                ours, theirs = student.hidden[stack][s].float(), teacher.hidden[stack][t].float()
                name = f"{stack}_{t}_{s}"
                if name in self.projections:
                    ours = self.projections[name](ours).float()
                if self.metric == "mse":
                    apart = ((ours - theirs) ** 2).mean(dim=-1)
                else:
                    apart = 1 - F.cosine_similarity(ours, theirs, dim=-1)
                total = total + apart.masked_fill(~real, 0.0).sum()
        return total / self.number


class AttentionLoss(nn.Module):
    """Attention loss per head over layer pairs: on attention maps or on scores."""

    def __init__(self, pairs: Pairs, metric: str, values: bool) -> None:
        super().__init__()
        self.pairs, self.metric, self.values = pairs, metric, values
        self.number = sum(map(len, pairs.values()))
        what = f"{'scores' if metric == 'scores' else 'maps'} [R, A, L, L]{' and values' if values else ''}"
        self.shown = _table(pairs, what)

    def forward(self, student: States, teacher: States) -> Tensor:
        total = torch.zeros((), device=next(iter(student.real.values())).device)
        for ours, theirs, real in _matched(self.pairs, student, teacher):
            allowed = _allowed(ours, real) & _allowed(theirs, real)
            scores = _scores(ours), _scores(theirs)
            if self.metric == "kl":
                total = total + _divergence(*scores, allowed, real)
            else:
                one, other = scores
                if self.metric == "mse":
                    one, other = _logs(one, allowed).exp(), _logs(other, allowed).exp()
                squared = ((one - other) ** 2).masked_fill(~allowed, 0.0).sum(dim=-1)
                total = total + _over_positions(squared / allowed.sum(dim=-1).clamp_min(1), real)
            if self.values:
                one, other = (_products(a.value, a.value) * a.value.shape[-1] ** -0.5 for a in (ours, theirs))
                total = total + _divergence(one, other, allowed, real)
        return total / self.number


class RelationLoss(nn.Module):
    """KL divergence of self-attention relations in relation heads (MiniLM)."""

    def __init__(self, pairs: Pairs, relations: Sequence[str], heads: int) -> None:
        super().__init__()
        self.pairs, self.relations, self.heads = pairs, relations, heads
        what = f"{', '.join(relations)} in {heads} relation heads"
        self.shown = _table(pairs, what)

    def forward(self, student: States, teacher: States) -> Tensor:
        total = torch.zeros((), device=next(iter(student.real.values())).device)
        for ours, theirs, real in _matched(self.pairs, student, teacher):
            allowed = _shared(ours, real) & _shared(theirs, real)
            for relation in self.relations:
                one, other = self._related(ours, relation), self._related(theirs, relation)
                total = total + _divergence(one, other, allowed, real)
        return total / len(self.pairs)

    def _related(self, one: AttentionInputs, relation: str) -> Tensor:
        """Scaled products of the relation, [R, heads, L, L], before the softmax."""
        left = one.query if relation == "attention" else getattr(one, relation)
        right = one.key if relation == "attention" else left
        left, right = self._cut(left), self._cut(right)
        return _products(left, right) * left.shape[-1] ** -0.5

    def _cut(self, vectors: Tensor) -> Tensor:
        """Split all heads into relation heads: [R, A, L, D] -> [R, heads, L, A D / heads]."""
        rows, _, length, _ = vectors.shape
        return vectors.transpose(1, 2).reshape(rows, length, self.heads, -1).transpose(1, 2)


def _matched(
    pairs: Pairs, student: States, teacher: States
) -> Iterator[tuple[AttentionInputs, AttentionInputs, Tensor]]:
    """Attention inputs of student and teacher per layer pair, and real positions, bool [R, L]."""
    for stack, some in pairs.items():
        for t, s in some:
            yield student.attended[stack][s - 1], teacher.attended[stack][t - 1], student.real[stack]


def _table(pairs: Pairs, what: str) -> list[str]:
    """Layer pairs as text, for people."""
    return [f"{stack} {_layer(t):>10}  ->  {_layer(s):>10}: {what}" for stack, some in pairs.items() for t, s in some]


def _layer(number: int) -> str:
    return f"layer {number}" if number else "embeddings"


def _products(left: Tensor, right: Tensor) -> Tensor:
    return left.float() @ right.float().transpose(-1, -2)


def _scores(one: AttentionInputs) -> Tensor:
    """Attention scores before mask and softmax: float32 [R, A, L, L]."""
    scores = _products(one.query, one.key) * one.scale
    return scores if one.bias is None else scores + one.bias.float()


def _allowed(one: AttentionInputs, real: Tensor) -> Tensor:
    """Attention mask bool [R, A or 1, L, L], without padding as key."""
    keys = real[:, None, None, :].expand(-1, 1, real.shape[1], -1)
    return keys if one.allowed is None else keys & one.allowed


def _shared(one: AttentionInputs, real: Tensor) -> Tensor:
    """Union of the masks of all heads, bool [R, 1, L, L]."""
    return _allowed(one, real).any(dim=1, keepdim=True)


def _logs(scores: Tensor, allowed: Tensor) -> Tensor:
    return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).log_softmax(dim=-1)


def _divergence(student: Tensor, teacher: Tensor, allowed: Tensor, real: Tensor) -> Tensor:
    """KL(teacher, student) of each position's attention distribution, from scores before the softmax."""
    ours, theirs = _logs(student, allowed), _logs(teacher, allowed)
    apart = (theirs.exp() * (theirs - ours)).masked_fill(~allowed, 0.0).sum(dim=-1)
    return _over_positions(apart, real)


def _over_positions(values: Tensor, real: Tensor) -> Tensor:
    """[R, A, L] -> sum over real positions of the mean over heads."""
    return values.mean(dim=1).masked_fill(~real, 0.0).sum()
