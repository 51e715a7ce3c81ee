"""Weights and optimiser states that a worker has for itself, where workers train apart (`Strategy.replicates`).

They belong to the worker's own file of a checkpoint; the weights of the checkpoint are those that all workers have in
common. The optimiser states of the first worker are in the shared file, as everywhere: with them begins a worker that
was not there before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lmctl.average.weights import trainable
from lmctl.train.step import TrainStep


def replica_state(step: TrainStep) -> dict[str, Any]:
    """The state of this worker's replica; empty where all workers have the same."""
    if step.strategy.replicates:
        return {}
    kept: dict[str, Any] = {"weights": {name: p.detach() for name, p in trainable(step.learner).items()}}
    return kept if step.strategy.processes.first else kept | {"optimizer": step.optimizer.state_dict()}


@torch.no_grad()
def load_replica(step: TrainStep, state: Mapping[str, Any]) -> None:
    """Go on from what `replica_state` returned, after everything that workers share was loaded. ValueError if it is of
    another network."""
    if step.strategy.replicates or not state:
        return
    weights, parameters = state["weights"], trainable(step.learner)
    if {n: p.shape for n, p in parameters.items()} != {n: w.shape for n, w in weights.items()}:
        raise ValueError("a worker's own weights are not of this network")
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
    if "optimizer" in state:
        step.optimizer.load_state_dict(state["optimizer"])
