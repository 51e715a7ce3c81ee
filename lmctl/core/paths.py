"""Paths: markers for config keys that are paths, and the layout of a run directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias


class IsPlace:
    """Marks a key whose value is a path: `~` is expanded, and a resumed run may have another path to the same contents,
    because contents are compared, not spelling."""


class IsResult:
    """Marks a key whose value is a file that the verb writes at its end; it is tried before any work."""


Place: TypeAlias = Annotated[str, IsPlace]
"""A file, a folder, a glob pattern, or an id on a hub."""
ResultFile: TypeAlias = Annotated[str, IsPlace, IsResult]
"""A file that is written."""
Places: TypeAlias = Annotated[Any, IsPlace]
"""One path, or a list of paths."""


class IsFreeText:
    """Marks a key whose value is taken literally: quotes, `${x}`, commas and all."""


FreeText: TypeAlias = Annotated[str, IsFreeText]
"""Literal text for a model, such as a prompt."""


@dataclass(frozen=True)
class Paths:
    """File layout of a run directory."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def template(self) -> Path:
        """A model directory without its weights."""
        return self.checkpoints / "model-without-weights"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def plot(self) -> Path:
        return self.root / "plots" / "loss.png"

    @property
    def tracked(self) -> Path:
        """The id by which trackers know the run."""
        return self.root / "tracked.json"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    def stacks(self, rank: int) -> Path:
        """Stacks of all threads of process `rank`, which made no progress."""
        return self.root / f"stacks-rank-{rank}.txt"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def log(self) -> Path:
        """What a job of a sweep printed."""
        return self.root / "log.txt"

    @property
    def job(self) -> Path:
        """The cluster's job that a run was submitted as."""
        return self.root / "job.json"

    @property
    def submitted(self) -> Path:
        """What submitit writes: the job's script and its output."""
        return self.root / "job"

    @property
    def results(self) -> Path:
        """What `lmctl eval` measured."""
        return self.root / "eval.json"


def is_folder_name(name: str) -> bool:
    """Whether a name from a config can be that of a folder in a run's: it leads nowhere else, and hides nothing."""
    return re.fullmatch(r"[\w+=,-][\w.+=,-]{0,99}", name) is not None


def run_of(place: Path) -> Path:
    """The run directory of `place`, which is a run directory or one of its checkpoints."""
    return place.parent.parent if place.parent.name == "checkpoints" else place
