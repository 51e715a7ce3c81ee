"""The plan of a training run: every config group as its component, with all checks between components done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omegaconf import DictConfig

from lmctl.config.build import read_root
from lmctl.config.groups import Run, TrainConfig
from lmctl.config.table import groups_of, rows
from lmctl.core.component import Component
from lmctl.core.errors import ConfigError, together
from lmctl.distill.checks import check_distillation
from lmctl.model.layer_selection import check_start
from lmctl.model.pretrained import TeacherModel


@dataclass(frozen=True)
class Plan(Run):
    """All components of a training run; no code after it reads a config."""

    teacher: tuple[str, ...] = ()
    """Paths or hub ids of the teachers; empty without distillation."""

    @classmethod
    def from_config(cls, cfg: DictConfig, schema: type[TrainConfig] = TrainConfig) -> Plan:
        """Build and check everything in `cfg`, whose schema is the table `schema`; all mistakes are raised as one
        `ConfigError` with their keys."""
        root = read_root(cfg, schema)
        parts: dict[str, Any] = {name: getattr(root, name) for name in rows(Run)}
        return cls(**parts | {"teacher": teachers_in(root.teacher)})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distill.terms:  # first, because a student's defaults come from its teacher
            for teacher in self.teachers:
                _ = teacher.place
        if (error := together(self._mistakes())) is not None:
            raise error

    def _mistakes(self) -> Iterator[ConfigError]:
        """Errors of all checks between components."""
        if self.checkpoint.background and self.simulated_workers is not None:
            yield ConfigError(
                "checkpoint.background=true: simulated workers are threads that take turns, and a writer takes none",
                "nearest: checkpoint.background=false",
            )
        for check in self._checks():
            try:
                yield from check(self)
            except ConfigError as error:  # a missing model stops its own check only
                yield error

    def _checks(self) -> Iterator[Callable[[Plan], Iterable[ConfigError]]]:
        """The checks of each component; those that read a teacher's config come last."""
        for name in groups_of(Run):
            component: Component = getattr(self, name)
            yield component.check
        if self.student.from_teacher is not None:
            yield check_start
        yield check_distillation

    @property
    def verb(self) -> str:
        """The verb (subcommand) of such a run."""
        return "distill" if self.teacher else "train"

    @property
    def simulated_workers(self) -> int | None:
        """Number of simulated workers in one process, from `runner` or `compression`; None: each process is a
        worker."""
        return self.compression.simulate_workers or self.runner.simulated

    def workers(self, world: int) -> int:
        """Number of data-parallel workers in `world` processes. ConfigError if that number is not possible, if rows
        cannot be shared by it, or if the compression does not work with it."""
        played = self.simulated_workers
        self.runner.check_world(world)
        if played is not None and world > 1:
            raise ConfigError(
                f"{played} simulated workers are threads of one process, and this run has {world} processes",
                "nearest: runner=ddp without compression.simulate_workers, or a single process",
            )
        workers = played or world
        if self.batch.rows % workers:
            near = max(workers, self.batch.rows // workers * workers)
            who = "processes" if workers == world else "simulated workers"
            raise ConfigError(
                f"batch.size={self.batch.rows} cannot be shared equally by {workers} {who}",
                f"nearest: batch.size={near}",
            )
        self.compression.check_use(None if played is None and world == 1 else workers, self.optim, self.clip_norm)
        return workers

    @cached_property
    def teachers(self) -> list[TeacherModel]:
        """The teacher models."""
        return [TeacherModel(path) for path in self.teacher]


def teachers_in(value: Any) -> tuple[str, ...]:
    """Paths in `teacher=`: null, one, or a list."""
    if value is None:
        return ()
    places = [value] if isinstance(value, str) else list(value)
    if not places or not all(isinstance(place, str) and place for place in places):
        raise ConfigError(f"teacher must name a run, a model directory or a hub id, or a list of them, got {value}")
    return tuple(places)
