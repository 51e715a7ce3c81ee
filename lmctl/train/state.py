"""All that a stopped run needs to go on as if it had never stopped, besides weights and optimiser."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass
class TrainState:
    """Where a run is. `step` counts optimiser steps taken; a skipped fp16 step uses up data all the same."""

    step: int = 0
    skipped: int = 0
    tokens: int = 0
    """Real tokens seen, over all processes."""
    seconds: float = 0.0
    """Wall-clock seconds of training, validation and saving included, interruptions not."""
    cpu_seconds: float = 0.0
    """CPU seconds of this process in the same time."""
    task_tokens: dict[str, int] = field(default_factory=dict)
    """The same by task."""
    position: dict[str, Any] = field(default_factory=dict)
    """Where the data stands: a `Position` of lmctl/mix/stream.py."""
    bytes_sent: int = 0
    """Bytes of gradients that one worker has sent to the others."""
    bytes_dense: int = 0
    """What it would have sent in float32, uncompressed."""
    micro_batches: int = 0
    """Micro-batches that the first process has learnt from."""
    passes: int = 0
    """Passes forward and backward that it took for them."""
    best: dict[str, Any] | None = None
    """`{"step", "metric", "value"}` of the best validation so far."""
    stale: int = 0
    """Validations since then."""
    valid: dict[str, float] = field(default_factory=dict)
    """The newest validation."""
    validated: dict[str, Any] = field(default_factory=dict)
    """Which weights and rows it is of: `{"window", "step", "rows": {task: rows}}`."""
    aside_seconds: float = 0.0
    """Of `seconds`, those of the first process that went into validating, saving and drawing."""
    train: dict[str, float] = field(default_factory=dict)
    """The newest logged training losses."""
    cosines: dict[str, float] = field(default_factory=dict)
    """The newest cosines of the tasks' gradients since the last log point, by `conflict/<task>|<task>`."""
    pending: dict[str, list[float]] = field(default_factory=dict)
    """This process's sums, and the counts of all processes, per term since the last log point."""
    metrics_bytes: int = 0
    """Length of metrics.jsonl; what lies beyond it was written after the checkpoint and will be written again."""

    @property
    def window(self) -> int:
        """Windows of data used up."""
        return self.step + self.skipped

    def shared(self) -> dict[str, Any]:
        """What is the same in every process."""
        return {name: value for name, value in asdict(self).items() if name not in OWN}

    def own(self) -> dict[str, Any]:
        """What is this process's alone."""
        return {name: value for name, value in asdict(self).items() if name in OWN}


OWN = ("cpu_seconds", "pending")


def seed_everything(seed: int) -> None:
    """Seed every global generator."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Every generator's state, as tensors and lists that `torch.load(weights_only=True)` takes."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
