"""Gradient conflict: cosine similarity of the tasks' gradients (Yu et al. 2020, "PCGrad", section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from lmctl.mix.stream import Window
from lmctl.parallel.deterministic import deterministic
from lmctl.parallel.processes import Processes
from lmctl.train.learner import Pass, Share
from lmctl.train.step import TrainStep


def gradient_cosines(
    step: TrainStep, window: Window, counts: Mapping[str, float], progress: float, processes: Processes
) -> dict[str, float]:
    """Cosine similarity of the gradients of each pair of tasks, `{"a|b": from -1 to 1}`, over the weights both use.

    Gradients are those of the whole step, over all micro-batches and processes, without an adversary. `counts`: targets
    of the step by `<task>/<term>`. Pairs with a zero or non-finite gradient are left out. Gradients, random generators
    and recurrent states are restored. A collective operation: every process must call it.
    """
    learner = step.learner
    network, device, scale = learner.network, learner.device, step.scaler.value
    weights = [p for p in network.parameters() if p.requires_grad]
    gradients = {task: _Sum(weights) for task in sorted(learner.objectives)}
    memory = network.memory()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        for batch in (batch.to(device) for batch in window.batches):
            share = Share(counts, window.factors[batch.task], progress, scale)
            total = learner([Pass(batch)], share).total
            with deterministic(device):
                found = torch.autograd.grad(total, weights, allow_unused=True)
            gradients[batch.task].add(found)
    network.recall(memory)
    for gradient in gradients.values():
        gradient.share(processes)
    cosines = {f"{a}|{b}": gradients[a].cosine(gradients[b]) for a, b in combinations(gradients, 2)}
    return {pair: cosine for pair, cosine in cosines.items() if cosine is not None}


class _Sum:
    """A task's gradient in float32, and which weights it uses."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        device = weights[0].device
        self.parts = [torch.zeros(p.shape, device=device) for p in weights]
        self.used = torch.zeros(len(weights), device=device)

    def add(self, gradient: Sequence[Tensor | None]) -> None:
        for place, (part, more) in enumerate(zip(self.parts, gradient, strict=True)):
            if more is not None:
                part += more
                self.used[place] = 1.0

    def share(self, processes: Processes) -> None:
        """All-reduce over all processes."""
        for part in (*self.parts, self.used):
            processes.all_reduce(part)

    def cosine(self, other: _Sum) -> float | None:
        both = ((self.used > 0) & (other.used > 0)).tolist()
        pairs = [(a, b) for a, b, used in zip(self.parts, other.parts, both, strict=True) if used]
        dot, left, right = (
            sum(float((x.double() * y).sum()) for x, y in some)
            for some in (pairs, [(a, a) for a, _ in pairs], [(b, b) for _, b in pairs])
        )
        scale = (left * right) ** 0.5
        return dot / scale if 0 < scale < float("inf") else None
