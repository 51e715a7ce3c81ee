"""A run, fully decided: every group option has become its component, and every rule about two of them holds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from omegaconf import DictConfig

from lmctl.config.build import build, check_root, section
from lmctl.config.schema import (
    BatchShape,
    Budget,
    Checkpointing,
    EarlyStop,
    Evaluation,
    Logging,
    Student,
    TrainConfig,
)
from lmctl.core.batch import Family
from lmctl.core.errors import ConfigError
from lmctl.core.lessons import Distiller, StateLesson
from lmctl.core.numerics import Precision
from lmctl.core.passes import Adversary
from lmctl.core.places import Where
from lmctl.core.sources import Augment, Source, TokenizerSpec, streamed
from lmctl.core.steps import GradCompressor, OptimSpec, Schedule
from lmctl.core.tasks import ModelSpec
from lmctl.distill.rules import check_keeping, check_writing
from lmctl.mix.mix import Mix
from lmctl.model.layers_kept import check_keep
from lmctl.model.pretrained import TeacherModel

COMPONENTS = {
    "model": ModelSpec,
    "data": Source,
    "augment": Augment,
    "mix": Mix,
    "tokenizer": TokenizerSpec,
    "precision": Precision,
    "adversary": Adversary,
    "compression": GradCompressor,
    "distill": Distiller,
    "optim": OptimSpec,
    "schedule": Schedule,
    "runner": Where,
}
SECTIONS = {
    "budget": Budget,
    "batch": BatchShape,
    "eval": Evaluation,
    "checkpoint": Checkpointing,
    "early_stop": EarlyStop,
    "log": Logging,
    "student": Student,
}


@dataclass(frozen=True)
class Plan:
    """What a training run is made of. After this nobody sees a config."""

    model: ModelSpec
    data: Source
    augment: Augment
    mix: Mix
    tokenizer: TokenizerSpec
    precision: Precision
    adversary: Adversary
    compression: GradCompressor
    distill: Distiller
    optim: OptimSpec
    schedule: Schedule
    runner: Where
    budget: Budget
    batch: BatchShape
    eval: Evaluation
    checkpoint: Checkpointing
    early_stop: EarlyStop
    log: Logging
    student: Student
    name: str | None
    run_dir: str
    resume: str
    init_from: str | None
    teacher: tuple[str, ...]
    """Where the teachers lie; none: there is none."""
    teacher_cache: str
    teacher_cache_k: int | None
    maskings: int | None
    seed: int
    cache_dir: str | None
    clip_norm: float | None
    gradient_checkpointing: bool
    compile: bool

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Plan:
        """Check and build everything in `cfg`; the first mistake ends in a `ConfigError` that names its key."""
        check_root(cfg, TrainConfig)
        trusted = ("lmctl.", *(f"{package}." for package in cfg.trusted))
        settings = {key: cfg[key] for key in cls.__dataclass_fields__ if key not in COMPONENTS | SECTIONS}
        return cls(
            **{key: build(cfg[key], kind, trusted=trusted) for key, kind in COMPONENTS.items()},
            **{key: section(cfg[key], kind) for key, kind in SECTIONS.items()},
            **settings | {"teacher": teachers_in(cfg.teacher)},
        )

    def __post_init__(self) -> None:
        if self.distill.lessons:  # first, because a student's defaults come from its teacher
            for teacher in self.teachers:
                _ = teacher.place
        check_rows(self.mix, self.model, self.batch)
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError(f"clip_norm must be above 0, got {self.clip_norm}", "null switches clipping off")
        if self.adversary.needs_dropout and drops_nothing(self.model):
            raise no_dropout(self)
        self._check_streams()
        objectives = {name: task.objective for name, task in self.mix.tasks.items()}
        check_writing(self.distill.lessons, self.teacher, self.model.family, objectives)
        streams = [name for name, task in self.mix.tasks.items() if streamed(task.data) is not None]
        check_keeping(self.teacher_cache, self.teacher_cache_k, self.maskings, self.distill.lessons, streams)
        self._check_teacher()  # last, because it reads the teacher's config
        reason = self.precision.refuse_run(self)
        if reason is not None:
            raise ConfigError(f"precision: {reason}")
        if self.init_from is not None and getattr(self.model, "init_from", None) is None:
            raise ConfigError(
                f"init_from={self.init_from} is of no use to {type(self.model).__name__}, which starts from scratch",
                "leave model= out, or give model=pretrained",
            )

    @property
    def verb(self) -> str:
        """The verb that such a run is typed with."""
        return "distill" if self.teacher else "train"

    @cached_property
    def teachers(self) -> list[TeacherModel]:
        """The models that teach."""
        return [TeacherModel(path) for path in self.teacher]

    def _check_teacher(self) -> None:
        """Teacher and student must read the same rows."""
        if self.student.from_teacher is not None:
            self._check_start()
        if not self.distill.lessons:
            if self.teacher and self.student.from_teacher is None:
                raise ConfigError(
                    f"teacher={self.teacher[0]}: with distill=none nothing is learnt from it", "distill=logits"
                )
            return
        if not self.teacher:
            raise ConfigError(
                "distill: there is no teacher", "teacher=RUN, a model directory or a hub id; or distill=none"
            )
        inner = [name for name, lesson in self.distill.lessons.items() if isinstance(lesson, StateLesson)]
        if inner and len(self.teacher) > 1:
            raise ConfigError(
                f"distill: {inner[0]} looks into the teacher, and there are {len(self.teacher)}",
                f"teacher={self.teacher[0]}, or distill=logits, which averages the answers of several",
            )
        if inner and self.compile:
            raise ConfigError(
                f"distill: {inner[0]} looks into layers, which compiled code does not let anybody do",
                "compile=false, or distill=logits",
            )
        for teacher in self.teachers:
            if teacher.max_positions is not None and self.batch.seq_len > teacher.max_positions:
                raise ConfigError(
                    f"batch.seq_len={self.batch.seq_len} is longer than the {teacher.max_positions} positions of "
                    f"teacher={teacher.init_from}",
                    f"batch.seq_len={teacher.max_positions}",
                )
            for name, task in self.mix.tasks.items():
                objective = task.objective
                if teacher.family in (self.model.family, *(objective.families if objective.label_kind else ())):
                    continue
                raise ConfigError(
                    f"teacher={teacher.init_from} is {_A[teacher.family]}, and mix.tasks.{name} trains "
                    f"{_A[self.model.family]}",
                    f"nearest: model={NEAREST_MODEL[teacher.family]} {NEAREST_MIX[teacher.family]}, or a teacher that "
                    f"is {_A[self.model.family]}",
                )

    def _check_start(self) -> None:
        """A student that begins with layers of its teacher."""
        check_keep(self.student.from_teacher)
        if not self.teacher:
            raise ConfigError("student.from_teacher: there is no teacher", "teacher=RUN, a model directory or a hub id")
        if getattr(self.model, "init_from", None) is not None:
            raise ConfigError(
                "student.from_teacher and init_from both say where the student's weights come from", "leave one out"
            )

    def _check_streams(self) -> None:
        """What needs to know how many rows there are, or to have them in order."""
        for name, task in self.mix.tasks.items():
            if streamed(task.data) is None:
                continue
            what = f"mix.tasks.{name} is streamed"
            if self.budget.epochs is not None:
                raise ConfigError(
                    f"budget.epochs={self.budget.epochs:g}: {what}, so nobody knows how long an epoch is",
                    "give budget.steps or budget.tokens, or data.streaming=false",
                )
            if self.mix.sampling.alpha > 0:
                raise ConfigError(
                    f"mix.sampling.alpha={self.mix.sampling.alpha:g} goes by the sizes of the tasks, and {what}",
                    "mix.sampling.alpha=0 and weights, or data.streaming=false",
                )
            if getattr(task.objective, "carries_state", False):
                raise ConfigError(
                    f"{what}, in shuffled blocks, and {type(task.objective).__name__} carries a state from row to row",
                    "nearest: objective clm (a decoder such as model=gpt2_tiny), or data.streaming=false",
                )


def check_rows(mix: Mix, model: ModelSpec, batch: BatchShape) -> None:
    """ConfigError unless the model reads the rows of every task, and rows of that length."""
    longest = model.max_positions
    if longest is not None and batch.seq_len > longest:
        raise ConfigError(
            f"batch.seq_len={batch.seq_len} is longer than the model's {longest} positions",
            f"set batch.seq_len={longest} or model.max_positions={batch.seq_len}",
        )
    for name, task in mix.tasks.items():
        if model.family not in task.objective.families:
            raise ConfigError(
                f"mix.tasks.{name}: {type(task.objective).__name__} needs {_either(task.objective.families)}, and "
                f"{type(model).__name__} is {_A[model.family]}",
                f"nearest: model={NEAREST_MODEL[task.objective.families[0]]}, or for this model "
                f"{getattr(model, 'nearest_mix', NEAREST_MIX[model.family])}",
            )
        carries = getattr(task.objective, "carries_state", False)
        if carries and not getattr(model, "carries_state", False):
            raise ConfigError(
                f"mix.tasks.{name}: {type(task.objective).__name__} carries a state from row to row, and "
                f"{type(model).__name__} has none",
                "nearest: mix=clm, or for this mix model=lstm_tiny",
            )


def teachers_in(value: Any) -> tuple[str, ...]:
    """`teacher=`: nothing, one place, or a list of them."""
    if value is None:
        return ()
    places = [value] if isinstance(value, str) else list(value)
    if not places or not all(isinstance(place, str) and place for place in places):
        raise ConfigError(f"teacher must name a run, a model directory or a hub id, or a list of them, got {value}")
    return tuple(places)


def drops_nothing(model: Any) -> bool:
    """Whether all rates that a model's settings give are 0; of those that are not given nothing is known."""
    rates = [getattr(model, field.name) for field in fields(model) if "drop" in field.name]
    return bool(rates) and all(rate == 0 for rate in rates)


def no_dropout(plan: Plan) -> ConfigError:
    """The error for an adversary that lives on dropout, and a model without."""
    return ConfigError(
        f"adversary: {type(plan.adversary).__name__} needs dropout, and {type(plan.model).__name__} as configured "
        "drops nothing out",
        "a dropout of the model above 0 (model.dropout=0.1, model.attention_dropout=0.1), or adversary=smart",
    )


_A = {"encoder": "an encoder", "decoder": "a decoder", "seq2seq": "an encoder with a decoder (seq2seq)"}
NEAREST_MODEL = {"encoder": "bert_tiny", "decoder": "gpt2_tiny", "seq2seq": "t5_tiny"}
NEAREST_MIX = {"encoder": "mix=mlm", "decoder": "mix=clm", "seq2seq": "mix=denoise"}


def _either(families: tuple[Family, ...]) -> str:
    return " or ".join(_A[family] for family in families)
