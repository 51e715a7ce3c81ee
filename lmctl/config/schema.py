"""The fixed sections of a config, and rules shared by several verbs; the config groups are in `groups.py`.

A field's `help` is what `lmctl VERB --help` prints. Ranges are checked in `__post_init__`, which runs once, on the
final values, and raises `ValueError`; `lmctl.config.build` puts the key in front. No torch here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Optional

from lmctl.config.table import key
from lmctl.core.piecewise import check_curve, curve_at, points_of

FORMATS = ("text", "json")
FORMAT = "text for people, or json: one object per line with every field, and nothing else, on standard output"


def one_of(choices: Collection[str], **values: str) -> None:
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def check_seed(seed: int) -> None:
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"seed must be from 0 to 2**63 - 1, got {seed}")


def check_name(name: str | None, run_dir: str) -> None:
    """ValueError unless the name of a run is a relative path that stays below runs/; other places are set by
    `run_dir`."""
    if not run_dir.strip():
        raise ValueError("run_dir must not be empty")
    if name is None:
        return
    if not name.strip():
        raise ValueError("name must not be empty; null, or no name at all, makes one of verb, date and time")
    if run_dir == f"runs/{name}" and (
        name.startswith("/") or not {".", "..", ""}.isdisjoint(name.rstrip("/").split("/"))
    ):
        raise ValueError(f"name must stay below runs/, got {name!r}; for other places give run_dir=...")


STEPS = 3600
"""Default budget in steps: some minutes of the default model on two CPU cores."""


@dataclass(frozen=True)
class Budget:
    """Training budget: whichever limit is reached first. The learning-rate schedule spans it."""

    steps: Optional[int] = key(None, f"optimiser steps; null: {STEPS} if nothing else limits the run")
    tokens: Optional[int] = key(None, "real (non-padding) tokens seen")
    epochs: Optional[float] = key(None, "passes over the training rows")
    minutes: Optional[float] = key(None, "wall-clock minutes of training")

    def __post_init__(self) -> None:
        positive(steps=self.steps, tokens=self.tokens, epochs=self.epochs, minutes=self.minutes)

    @property
    def most_steps(self) -> Optional[int]:
        """The limit in optimiser steps, or None if only another unit limits the run."""
        others = (self.tokens, self.epochs, self.minutes)
        return STEPS if self.steps is None and others == (None, None, None) else self.steps


@dataclass(frozen=True)
class BatchShape:
    """Rows per optimiser step, micro-batches and sequence length."""

    size: Optional[int] = key(8, "rows per optimiser step, over all processes and micro-batches")
    tokens: Optional[int] = key(None, "instead of size: positions per optimiser step (size = tokens / seq_len)")
    micro: Optional[int] = key(
        None, "rows per forward pass and process; null: all of the process's rows at once", identity=False
    )
    seq_len: int = key(128, "positions per row, special tokens included")
    ramp: Any = key(
        None,
        "batch size warm-up: the share of size that a step has, as points [[progress, share], ...] over the budget "
        "(Smith et al. 2018; McCandlish et al. 2018)",
    )
    length_ramp: Any = key(
        None,
        "sequence length warm-up: the share of seq_len that a row of mlm, rtd or clm has, as such points (Li et al. "
        "2022)",
    )

    def __post_init__(self) -> None:
        positive(size=self.size, tokens=self.tokens, micro=self.micro)
        if self.size is None and self.tokens is None:
            raise ValueError("give size or tokens")
        if self.seq_len < 8:
            raise ValueError(f"seq_len must be at least 8, got {self.seq_len}")
        if self.tokens is not None and self.tokens < self.seq_len:
            raise ValueError(f"tokens must be at least one row of seq_len={self.seq_len}, got {self.tokens}")
        for name, curve in (("ramp", self.ramp), ("length_ramp", self.length_ramp)):
            if curve is not None:
                check_curve(name, curve, "linear")
                if not all(0 < share <= 1 for _, share in points_of(name, curve)):
                    raise ValueError(f"{name} has shares above 0, up to 1, got {curve}")
        if self.ramp is not None and self.tokens is not None:
            raise ValueError(f"ramp needs a number of rows: size={self.rows} instead of tokens={self.tokens}")

    @property
    def rows(self) -> int:
        """Rows per optimiser step."""
        if self.tokens is not None:
            return self.tokens // self.seq_len
        assert self.size is not None
        return self.size

    def rows_at(self, progress: float) -> int:
        """Rows of a step when `progress` of the budget is spent, however many workers share them; `rows` at most."""
        return self.rows if self.ramp is None else max(1, round(self.rows * _share("ramp", self.ramp, progress)))

    def seq_len_at(self, progress: float) -> int:
        """Positions per row of full rows when `progress` of the budget is spent: a multiple of 8, so that there are few
        shapes, or `seq_len`."""
        share = 1.0 if self.length_ramp is None else _share("length_ramp", self.length_ramp, progress)
        return self.seq_len if share == 1 else min(self.seq_len, max(8, 8 * round(share * self.seq_len / 8)))


def _share(name: str, curve: Any, progress: float) -> float:
    return curve_at(points_of(name, curve), progress, "linear")


@dataclass(frozen=True)
class Evaluation:
    """Validation during training, on fixed rows with fixed masks."""

    every: Optional[int] = key(
        None, "optimiser steps between validations; null: ten times in the budget, fewer in short ones"
    )
    rows: Optional[int] = key(512, "validation rows used each time; null: all of them")

    def __post_init__(self) -> None:
        positive(every=self.every, rows=self.rows)


@dataclass(frozen=True)
class Checkpointing:
    """When checkpoints with the whole training state are saved."""

    every: Optional[int] = key(None, "optimiser steps between checkpoints; null: as often as eval.every says")
    keep: int = key(2, "newest checkpoints kept; the best one is kept besides")
    on_error: str = key("stop", "where one cannot be written: stop (exit 6) or warn, and go on without it")
    background: bool = key(False, "write copies while training goes on: faster, and twice the memory of what is saved")

    def __post_init__(self) -> None:
        positive(every=self.every)
        one_of(("stop", "warn"), on_error=self.on_error)
        if self.keep < 2:
            raise ValueError(f"keep must be at least 2 (the newest may turn out damaged), got {self.keep}")


@dataclass(frozen=True)
class EarlyStop:
    """Early stopping on a validation metric; the best model is exported instead of the last."""

    metric: str = key("loss", "validation metric to watch: loss, or <task>/<term or metric>")
    patience: Optional[int] = key(None, "validations without improvement before stopping; null: never stop early")
    min_delta: float = key(0.0, "smallest change that counts as an improvement")

    def __post_init__(self) -> None:
        positive(patience=self.patience)
        if self.min_delta < 0:
            raise ValueError(f"min_delta must not be negative, got {self.min_delta}")


@dataclass(frozen=True)
class Logging:
    """Training metrics in the record between validations."""

    every: int = key(10, "optimiser steps between log points")

    def __post_init__(self) -> None:
        positive(every=self.every)


NONFINITE = ("stop", "skip", "rollback")
KERNELS = ("auto", "numba", "torch")
CROSS_ENTROPIES = ("auto", "fused", "torch")
SPIKE = ("none", "warn", "skip", "rollback")


@dataclass(frozen=True)
class SpikeGuard:
    """Detection of loss spikes: a step whose loss or gradient norm is far above those of the steps before."""

    action: str = key("none", "none, warn, skip (the step is not taken) or rollback (to the newest checkpoint)")
    sigma: float = key(6.0, "standard deviations above the mean that make a spike")
    steps: int = key(128, "steps that mean and deviation are of; half as many must be there")

    def __post_init__(self) -> None:
        one_of(SPIKE, action=self.action)
        positive(sigma=self.sigma)
        if self.steps < 8:
            raise ValueError(f"steps must be at least 8, got {self.steps}")


@dataclass(frozen=True)
class Student:
    """How a student with a teacher is initialised."""

    from_teacher: Any = key(None, "layers of the teacher: uniform, first, last or a list; null: random weights")


@dataclass(frozen=True)
class ProcessLauncherConfig:
    """Option `process` of Hydra's own group `hydra/launcher`: how the jobs of a sweep are run."""

    _target_: str = "hydra_plugins.lmctl.ProcessLauncher"  # Hydra accepts plugins only below the package hydra_plugins
    n_jobs: int = key(1, "jobs at the same time")
    gpus_per_job: int = key(0, "GPUs dealt out to each job; 0: every job sees all of them")
