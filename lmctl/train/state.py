"""Training state: counters, data position and random generators, for bit-exact resuming."""

from __future__ import annotations

import math
import random
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import torch

from lmctl.config.table import without_none
from lmctl.mix.stream import Position


@dataclass
class TrainState:
    """Progress of a run. `step` counts optimiser steps taken; a step that fp16 skips uses data without being
    counted."""

    step: int = 0
    skipped: int = 0
    tokens: int = 0
    """Tokens seen, without padding, over all processes."""
    seconds: float = 0.0
    """Wall-clock seconds, with validation and saving, without interruptions."""
    cpu_seconds: float = 0.0
    """CPU seconds of this process in the same time."""
    task_tokens: dict[str, int] = field(default_factory=dict)
    """Tokens by task."""
    position: dict[str, Any] = field(default_factory=dict)
    """Data position: a `Position` of lmctl/mix/stream.py."""
    bytes_sent: int = 0
    """Bytes of gradients that one worker has sent."""
    bytes_dense: int = 0
    """Bytes that it would have sent uncompressed, in float32."""
    micro_batches: int = 0
    """Micro-batches of rank 0."""
    passes: int = 0
    """Forward and backward passes of rank 0 for them."""
    best: dict[str, Any] | None = None
    """`{"step", "metric", "value"}` of the best validation so far."""
    stale: int = 0
    """Number of validations since the best one."""
    valid: dict[str, float] = field(default_factory=dict)
    """Metrics of the newest validation."""
    validated: dict[str, Any] = field(default_factory=dict)
    """Weights and rows of the newest validation: `{"window", "step", "rows": {task: rows}}`."""
    validation_waits: bool = False
    """Whether a validation is due and waits for weights that all workers have in common."""
    aside_seconds: float = 0.0
    """Part of `seconds` that rank 0 spent on validation, saving and plots."""
    train: dict[str, float] = field(default_factory=dict)
    """Training losses of the newest log point."""
    cosines: dict[str, float] = field(default_factory=dict)
    """Newest cosines of the tasks' gradients since the last log point, by `conflict/<task>|<task>`."""
    pending: dict[str, list[float]] = field(default_factory=dict)
    """Sums of this process, and counts of all processes, per term since the last log point."""
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    """Returns to an earlier checkpoint: `{"from": step, "to": step, "why": words}`."""
    precision: dict[str, Any] = field(default_factory=dict)
    """The precision's dtype table and proof, of the run's first start."""
    metrics_bytes: int = 0
    """Size of metrics.jsonl; what follows was written after the checkpoint and will be written again."""

    metrics_sha256: str = ""
    """Checksum of these bytes of metrics.jsonl, in hex; empty in checkpoints of older versions."""

    resumed: list[dict[str, Any]] = field(default_factory=list)
    """Where the run went on with other settings (`resume.allow`): `{"step", "changed": {key: what}}`."""

    @classmethod
    def from_state(cls, shared: Mapping[str, Any], own: Mapping[str, Any]) -> TrainState:
        """The state that a checkpoint has, of the run and of this process. ValueError if any of it is not of the type
        that it has here, is negative, or is not known."""
        given, hints = {**shared, **own}, get_type_hints(cls)
        for name, value in given.items():
            if name not in hints or not _fits(value, hints[name]):
                raise ValueError(f"{name[:40]} is {reprlib.repr(value)}")
        state = cls(**given)
        try:
            Position.from_state(state.position)
        except TypeError:
            raise ValueError(f"position is {reprlib.repr(state.position)}") from None
        match state.best:
            case None | {"step": int(), "metric": str(), "value": int() | float()}:
                return state
        raise ValueError(f"best is {reprlib.repr(state.best)}")

    @property
    def window(self) -> int:
        """Number of windows (steps, taken or skipped) so far."""
        return self.step + self.skipped

    def shared(self) -> dict[str, Any]:
        """The part that is the same in every process."""
        return {name: value for name, value in asdict(self).items() if name not in OWN}

    def own(self) -> dict[str, Any]:
        """The part of this process alone."""
        return {name: value for name, value in asdict(self).items() if name in OWN}


OWN = ("cpu_seconds", "pending")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from a checkpoint is of the type `hint`; numbers count or measure, so they are not negative."""
    plain = without_none(hint)
    if value is None:
        return plain is not hint
    if get_origin(plain) in (dict, list):
        *_, inner = get_args(plain)
        entries = value.values() if isinstance(value, dict) else value
        return isinstance(value, get_origin(plain)) and all(_fits_inside(entry, inner) for entry in entries)
    if plain is int:
        return type(value) is int and 0 <= value < 1 << 63
    if plain is float:
        return type(value) in (int, float) and 0 <= value < math.inf
    return isinstance(value, plain)


def _fits_inside(value: Any, hint: Any) -> bool:
    """The same for an entry of a mapping or a list, where a number is a figure of any size."""
    if hint is float:
        return type(value) in (int, float)
    return hint is Any or _fits(value, hint)


def seed_everything(seed: int) -> None:
    """Seed all global random generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
