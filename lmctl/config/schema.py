"""The shape of every verb's config: fixed sections are typed here, component groups are filled from `conf/`.

A field's `help` is what `lmctl VERB --help` prints. Ranges are checked in `__post_init__`, which runs once, on
the final values, and raises `ValueError`; `lmctl.config.build` puts the key in front. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Optional

from lmctl.core.places import Place, Places

MISSING: Any = "???"  # OmegaConf's word for what has to be given; importing it takes longer than the whole help


def key(default: Any, help: str, aka: tuple[str, ...] = ()) -> Any:
    """A field with its default and one line of help; `aka`: what other tools call it, for whoever types that."""
    metadata = {"help": help, "aka": aka}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def groups_of(schema: type[Any]) -> list[str]:
    """The keys of a verb's config that components stand at. What other keys are for is said where they are declared;
    what components are for, in their own files."""
    return [f.name for f in fields(schema) if f.type in ("Any", Any) and "help" not in f.metadata]


FORMATS = ("text", "json")
FORMAT = "text for people, or json: one object per line with every field, and nothing else, on standard output"


def one_of(choices: tuple[str, ...], **values: str) -> None:
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
    """Runs are called by what is one folder, or folders, below runs/; anything else is for `run_dir`."""
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
"""The budget of a run that names none: some minutes of the default model on two CPU cores."""


@dataclass(frozen=True)
class Budget:
    """How long to train: whichever limit is reached first. The schedule follows it."""

    steps: Optional[int] = key(None, f"optimiser steps; null: {STEPS} if nothing else limits the run")
    tokens: Optional[int] = key(None, "real (non-padding) tokens seen")
    epochs: Optional[float] = key(None, "passes over the training rows")
    minutes: Optional[float] = key(None, "wall-clock minutes of training")

    def __post_init__(self) -> None:
        positive(steps=self.steps, tokens=self.tokens, epochs=self.epochs, minutes=self.minutes)

    @property
    def most_steps(self) -> Optional[int]:
        """The limit in optimiser steps, or None if only something else limits the run."""
        others = (self.tokens, self.epochs, self.minutes)
        return STEPS if self.steps is None and others == (None, None, None) else self.steps


@dataclass(frozen=True)
class BatchShape:
    """How many rows make one optimiser step, and how they are cut up."""

    size: Optional[int] = key(8, "rows per optimiser step, over all processes and micro-batches")
    tokens: Optional[int] = key(None, "instead of size: positions per optimiser step (size = tokens / seq_len)")
    micro: Optional[int] = key(None, "rows per forward pass and process; null: all of the process's rows at once")
    seq_len: int = key(128, "positions per row, special tokens included")

    def __post_init__(self) -> None:
        positive(size=self.size, tokens=self.tokens, micro=self.micro)
        if self.size is None and self.tokens is None:
            raise ValueError("give size or tokens")
        if self.seq_len < 8:
            raise ValueError(f"seq_len must be at least 8, got {self.seq_len}")
        if self.tokens is not None and self.tokens < self.seq_len:
            raise ValueError(f"tokens must be at least one row of seq_len={self.seq_len}, got {self.tokens}")

    @property
    def rows(self) -> int:
        """Rows per optimiser step."""
        if self.tokens is not None:
            return self.tokens // self.seq_len
        assert self.size is not None
        return self.size


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
    """When the whole state of the run is saved."""

    every: Optional[int] = key(None, "optimiser steps between checkpoints; null: as often as eval.every says")
    keep: int = key(2, "newest checkpoints kept; the best one is kept besides")

    def __post_init__(self) -> None:
        positive(every=self.every)
        if self.keep < 2:
            raise ValueError(f"keep must be at least 2 (the newest may turn out damaged), got {self.keep}")


@dataclass(frozen=True)
class EarlyStop:
    """Stop when validation stops getting better, and export the best model instead of the last."""

    metric: str = key("loss", "validation metric to watch: loss, or <task>/<term or metric>")
    patience: Optional[int] = key(None, "validations without improvement before stopping; null: never stop early")
    min_delta: float = key(0.0, "smallest change that counts as an improvement")

    def __post_init__(self) -> None:
        positive(patience=self.patience)
        if self.min_delta < 0:
            raise ValueError(f"min_delta must not be negative, got {self.min_delta}")


@dataclass(frozen=True)
class Logging:
    """What goes into the record between validations."""

    every: int = key(10, "optimiser steps between log points")

    def __post_init__(self) -> None:
        positive(every=self.every)


@dataclass(frozen=True)
class Student:
    """Where a student with a teacher begins."""

    from_teacher: Any = key(None, "layers of the teacher: uniform, first, last or a list; null: random weights")


@dataclass(frozen=True)
class TrainConfig:
    """Root of `lmctl train`."""

    model: Any = MISSING
    data: Any = MISSING
    augment: Any = MISSING
    mix: Any = MISSING
    tokenizer: Any = MISSING
    precision: Any = MISSING
    adversary: Any = MISSING
    compression: Any = MISSING
    distill: Any = MISSING
    optim: Any = MISSING
    schedule: Any = MISSING
    runner: Any = MISSING
    name: Optional[str] = key(None, "name of the run; null: made of verb, date and time")
    run_dir: Place = key("runs/${name}", "where the run is written")
    init_from: Optional[Place] = key(None, "start from a run, a model directory or a hub id (model=pretrained)")
    teacher: Places = key(None, "learn from a run, a model directory or a hub id, or a list of them (distill=...)")
    teacher_cache: str = key(
        "off", "teacher's answers: off (asked live), build (kept, nothing is trained), use (kept before), auto (both)"
    )
    teacher_cache_k: Optional[int] = key(50, "likeliest pieces kept per target; null: all of them, in float32")
    maskings: Optional[int] = key(None, "versions of each row, which repeat; null: another one in every epoch")
    resume: Place = key("false", "false, auto (newest good checkpoint of run_dir) or a checkpoint directory")
    seed: int = key(1, "seed of initial weights, order, masks and dropout")
    cache_dir: Optional[Place] = key(None, "token cache; null: $LMCTL_CACHE or ~/.cache/lmctl")
    budget: Budget = key(Budget, "")
    batch: BatchShape = key(BatchShape, "")
    eval: Evaluation = key(Evaluation, "")
    checkpoint: Checkpointing = key(Checkpointing, "")
    early_stop: EarlyStop = key(EarlyStop, "")
    log: Logging = key(Logging, "")
    student: Student = key(Student, "")
    clip_norm: Optional[float] = key(1.0, "gradients are scaled down to this norm; null: not at all")
    gradient_checkpointing: bool = key(False, "recompute activations in the backward pass: less memory, more time")
    compile: bool = key(False, "torch.compile the network (pays on GPUs, seldom on CPUs)")
    stages: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "runs in turn, each a list of settings; init_from may name an earlier one"},
    )
    stage: Optional[str] = key(None, "which of the stages this run is; null: the whole")
    trusted: list[str] = field(
        default_factory=list, metadata={"help": "further packages whose classes a _target_ may name"}
    )

    def __post_init__(self) -> None:
        check_name(self.name, self.run_dir)
        check_seed(self.seed)


@dataclass(frozen=True)
class DistillConfig(TrainConfig):
    """Root of `lmctl distill`: as `train`, with a teacher."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is None:
            raise ValueError("teacher is required: a run, a model directory or a hub id, as teacher=...")


@dataclass(frozen=True)
class PlanConfig(TrainConfig):
    """Root of `lmctl plan`: everything that `train` takes, and what is wanted of the plan."""

    measure: bool = key(False, "run a few real steps, too: speed, and memory beside the prediction; reads the data")
    bandwidth_gbps: float = key(10.0, "Gbit/s between processes, for the seconds that gradients take")
    gpu: Optional[str] = key(None, "plan for this card, which need not be here: h100, a100, l4, rtx4090, ...")
    gpu_memory_gib: Optional[float] = key(None, "memory of such a card in GiB, for one that has no name here")
    gpus: Optional[int] = key(None, "how many of them; null: as many as runner.processes, or 1")
    out: Optional[Place] = key(None, "write the figures to this file, as JSON; null: print them only")
    format: str = key("text", FORMAT)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(FORMATS, format=self.format)
        positive(bandwidth_gbps=self.bandwidth_gbps, gpu_memory_gib=self.gpu_memory_gib, gpus=self.gpus)


@dataclass(frozen=True)
class PrepareConfig:
    """Root of `lmctl prepare` and of `lmctl peek`'s data side."""

    model: Any = MISSING
    data: Any = MISSING
    augment: Any = MISSING
    mix: Any = MISSING
    tokenizer: Any = MISSING
    init_from: Optional[Place] = key(None, "take the tokenizer of a run, a model directory or a hub id")
    seed: int = key(1, "seed of order and masks")
    cache_dir: Optional[Place] = key(None, "token cache; null: $LMCTL_CACHE or ~/.cache/lmctl")
    batch: BatchShape = key(BatchShape, "")
    trusted: list[str] = field(
        default_factory=list, metadata={"help": "further packages whose classes a _target_ may name"}
    )

    def __post_init__(self) -> None:
        check_seed(self.seed)


@dataclass(frozen=True)
class PeekConfig(PrepareConfig):
    """Root of `lmctl peek`."""

    rows: int = key(3, "examples to show")
    split: str = key("train", "train or valid")
    epoch: int = key(0, "which epoch's masks")
    format: str = key("text", FORMAT)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(FORMATS, format=self.format)
        positive(rows=self.rows)
        if self.epoch < 0:
            raise ValueError(f"epoch must not be negative, got {self.epoch}")
        if self.split not in ("train", "valid"):
            raise ValueError(f"split must be train or valid, got {self.split!r}")


@dataclass(frozen=True)
class ProcessLauncherConfig:
    """Option `process` of Hydra's own group `hydra/launcher`: how the jobs of a sweep are run."""

    _target_: str = "hydra_plugins.lmctl.ProcessLauncher"  # Hydra takes plugins by a name below hydra_plugins only
    n_jobs: int = key(1, "jobs at the same time")
    gpus_per_job: int = key(0, "GPUs dealt out to each job; 0: every job sees all of them")
