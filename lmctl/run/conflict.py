"""Whether the tasks of a mix pull the shared weights in the same direction (Yu et al. 2020, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from lmctl.core.batch import Batch
from lmctl.run.learner import Learner


def gradient_cosines(learner: Learner, batches: Sequence[Batch]) -> dict[str, float]:
    """Cosine of the gradients of each two tasks, `{"a|b": from -1 to 1}`, over the weights that both use; each
    gradient is that of the first of `batches` of its task. Leaves gradients and random numbers as they were."""
    first: dict[str, Batch] = {}
    for batch in batches:
        first.setdefault(batch.task, batch)
    device = learner.device
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.enable_grad():
        gradients = {task: _gradient(learner, batch.to(device)) for task, batch in first.items()}
    return {f"{a}|{b}": _cosine(gradients[a], gradients[b]) for a, b in combinations(sorted(gradients), 2)}


def _gradient(learner: Learner, batch: Batch) -> list[Tensor | None]:
    counts, weights = learner.counts(batch), learner.teaching.weights(batch)
    terms = learner(batch)
    loss = sum(value * (weights.get(name, 1.0) / max(1, counts[name])) for name, value in terms.items())
    parameters = [p for p in learner.network.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, parameters, allow_unused=True))


def _cosine(a: list[Tensor | None], b: list[Tensor | None]) -> float:
    both = [(x.float(), y.float()) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    dot, left, right = (
        sum(float((x * y).sum()) for x, y in pairs)
        for pairs in (both, [(x, x) for x, _ in both], [(y, y) for _, y in both])
    )
    return dot / (left * right) ** 0.5 if left and right else 0.0
