"""The config groups, as a table: each group is one field of `Run`, and a plan is this table with components in it.

To add a group: a field here, its base class in `lmctl/<group>/base.py`, its options in `conf/<group>/`. The command
line (schema, defaults, help, `lmctl list`, the identity of a run) is generated from the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from lmctl.adversary.base import Adversary
from lmctl.augment.base import Augment
from lmctl.average.base import Average
from lmctl.compression.base import GradCompressor
from lmctl.config.schema import (
    CROSS_ENTROPIES,
    FORMAT,
    FORMATS,
    KERNELS,
    NONFINITE,
    BatchShape,
    Budget,
    Checkpointing,
    EarlyStop,
    Evaluation,
    Logging,
    SpikeGuard,
    Student,
    check_name,
    check_seed,
    one_of,
    positive,
)
from lmctl.config.table import group, key, same
from lmctl.core.errors import ConfigError
from lmctl.core.extras import require
from lmctl.core.paths import Place, Places, ResultFile
from lmctl.data.base import Source
from lmctl.distill.base import Distiller
from lmctl.mix.mix import Mix
from lmctl.model.base import ModelSpec
from lmctl.optim.base import OptimSpec
from lmctl.precision.base import Precision
from lmctl.runner.base import Runner
from lmctl.schedule.base import Schedule
from lmctl.tokenizer.base import TokenizerSpec
from lmctl.tracker.base import Tracking


@dataclass(frozen=True)
class Run:
    """All config groups and keys of a training run."""

    model: ModelSpec = group("modernbert_tiny", "architecture and size")
    data: Source = group("pydocs", "where rows come from")
    augment: Augment = group("none", "how texts are changed before they are learnt from")
    tokenizer: TokenizerSpec = group("wordpiece", "how text becomes pieces")
    precision: Precision = group("fp32", "number formats")
    adversary: Adversary = group("none", "how rows are made harder to learn from")
    compression: GradCompressor = group("none", "in what form gradients cross the network")
    distill: Distiller = group("none", "what a student learns from its teacher", control=False)
    optim: OptimSpec = group("adamw", "update rule")
    schedule: Schedule = group("linear", "learning rate over the budget")
    average: Average = group("none", "averages of the weights, validated and exported in place of the newest ones")
    runner: Runner = group("auto", "on which devices, with how many workers", identity=False, control=False)
    tracker: Tracking = group("none", "where metrics go besides the record", identity=False, control=False)
    # Last in the defaults list, because a mix may override the model, data and tokenizer.
    mix: Mix = group("mlm_nsp", "what is learnt: objectives and their data")
    name: Optional[str] = key(None, "name of the run; null: made of verb, date and time", identity=False, control=False)
    run_dir: Place = key("runs/${name}", "where the run is written", identity=False, control=False)
    init_from: Optional[Place] = key(
        None, "start from a run, a model directory or a hub id (model=pretrained)", identity=False
    )
    teacher: Places = key(
        None,
        "learn from a run, a model directory or a hub id, or a list of them (distill=...)",
        identity=False,
        control=False,
    )
    teacher_cache: str = key(
        "off",
        "teacher's answers: off (asked live), build (kept, nothing is trained), use (kept before), auto (both)",
        control=False,
    )
    teacher_cache_k: Optional[int] = key(
        50, "likeliest pieces kept per target; null: all of them, in float32", control=False
    )
    maskings: Optional[int] = key(None, "versions of each row, which repeat; null: another one in every epoch")
    resume: Place = key(
        "false",
        "false, auto (newest good checkpoint of run_dir) or a checkpoint directory",
        identity=False,
        control=False,
    )
    resume_allow: list[str] = key(
        list,
        "keys and groups that may differ when the run goes on; typed resume.allow=",
        identity=False,
        control=False,
    )
    seed: int = key(1, "seed of initial weights, order, masks and dropout")
    cache_dir: Optional[Place] = key(
        None, "token cache; null: $LMCTL_CACHE or ~/.cache/lmctl", identity=False, control=False
    )
    budget: Budget = key(Budget, "", identity=False)
    batch: BatchShape = key(BatchShape, "")
    eval: Evaluation = key(Evaluation, "", identity=False)
    checkpoint: Checkpointing = key(Checkpointing, "", identity=False, control=False)
    early_stop: EarlyStop = key(EarlyStop, "", identity=False)
    log: Logging = key(Logging, "", identity=False, control=False)
    student: Student = key(Student, "")
    z_loss: float = key(
        0.0, "weight of the squared logarithm of the softmax's denominator, in losses over the vocabulary (PaLM: 1e-4)"
    )
    clip_norm: Optional[float] = key(1.0, "gradients are scaled down to this norm; null: not at all")
    on_nonfinite: str = key(
        "stop",
        "gradients or losses that are not finite: stop (exit 4), skip (the step is not taken) or rollback (to the "
        "newest checkpoint, and on with the rows that follow)",
        identity=False,
        control=False,
    )
    max_skips: int = key(
        10, "most steps skipped in a row, and most rollbacks of a run, before it stops", identity=False, control=False
    )
    spike: SpikeGuard = key(SpikeGuard, "", identity=False, control=False)
    watchdog_s: Optional[float] = key(
        3600.0,
        "seconds without a step, a validated batch or a read block after which the run ends with the stacks of all "
        "threads; null: never",
        identity=False,
        control=False,
    )
    gradient_checkpointing: bool = key(
        False, "recompute activations in the backward pass: less memory, more time", identity=False, control=False
    )
    compile: bool = key(
        False, "torch.compile the network (pays on GPUs, seldom on CPUs)", identity=False, control=False
    )
    kernels: str = key(
        "auto",
        "on CPUs: numba (compiled), torch (the same numbers, slower), or auto (compiled where numba is installed)",
        identity=False,
        control=False,
    )

    cross_entropy: str = key(
        "auto",
        "cross-entropy over a vocabulary on CPUs: fused (a kernel), torch (torch's exponential), or auto (fused where "
        "kernels are compiled)",
        identity=False,
        control=False,
    )

    def __post_init__(self) -> None:
        check_name(self.name, self.run_dir)
        check_seed(self.seed)
        if self.z_loss < 0:
            raise ValueError(f"z_loss must not be negative, got {self.z_loss}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError(f"clip_norm must be above 0, got {self.clip_norm}", "null switches clipping off")
        one_of(NONFINITE, on_nonfinite=self.on_nonfinite)
        one_of(KERNELS, kernels=self.kernels)
        one_of(CROSS_ENTROPIES, cross_entropy=self.cross_entropy)
        if self.kernels == "numba":
            require("kernels=numba", ("numba",))
        positive(max_skips=self.max_skips, watchdog_s=self.watchdog_s)


@dataclass(frozen=True)
class TrainConfig(Run):
    """Root config of `lmctl train`: one run, or several stages in sequence."""

    stages: dict[str, Any] = key(
        dict, "runs in turn, each a list of settings; init_from may name an earlier one", control=False
    )
    stage: Optional[str] = key(None, "which of the stages this run is; null: the whole", control=False)
    trusted: list[str] = key(list, "further packages whose classes a _target_ may name", identity=False, control=False)


@dataclass(frozen=True)
class DistillConfig(TrainConfig):
    """Root config of `lmctl distill`: as `train`, with a teacher."""

    distill: Distiller = group("logits", "what a student learns from its teacher", control=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is None:
            raise ValueError("teacher is required: a run, a model directory or a hub id, as teacher=...")


@dataclass(frozen=True)
class PlanConfig(TrainConfig):
    """Root config of `lmctl plan`: all of `train`'s, and options of the plan."""

    measure: bool = key(False, "run a few real steps, too: speed, and memory beside the prediction; reads the data")
    bandwidth_gbps: float = key(10.0, "Gbit/s between processes, for the seconds that gradients take")
    latency_us: float = key(20.0, "microseconds per message between processes, for the same")
    gpu: Optional[str] = key(None, "plan for this card, which need not be here: h100, a100, l4, rtx4090, ...")
    gpu_memory_gib: Optional[float] = key(None, "memory of such a card in GiB, for one that has no name here")
    gpus: Optional[int] = key(None, "how many of them; null: as many as runner.processes, or 1")
    out: Optional[ResultFile] = key(None, "write the figures to this file, as JSON; null: print them only")
    format: str = key("text", FORMAT)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(FORMATS, format=self.format)
        positive(
            bandwidth_gbps=self.bandwidth_gbps,
            latency_us=self.latency_us,
            gpu_memory_gib=self.gpu_memory_gib,
            gpus=self.gpus,
        )


@dataclass(frozen=True)
class PrepareConfig:
    """Root config of `lmctl prepare` and of `lmctl peek`'s data."""

    model: ModelSpec = same(Run, "model")
    data: Source = same(Run, "data")
    augment: Augment = same(Run, "augment")
    tokenizer: TokenizerSpec = same(Run, "tokenizer")
    mix: Mix = same(Run, "mix")
    init_from: Optional[Place] = key(None, "take the tokenizer of a run, a model directory or a hub id")
    seed: int = key(1, "seed of order and masks")
    cache_dir: Optional[Place] = key(None, "token cache; null: $LMCTL_CACHE or ~/.cache/lmctl")
    batch: BatchShape = key(BatchShape, "")
    trusted: list[str] = key(list, "further packages whose classes a _target_ may name")

    def __post_init__(self) -> None:
        check_seed(self.seed)


@dataclass(frozen=True)
class PeekConfig(PrepareConfig):
    """Root config of `lmctl peek`."""

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
