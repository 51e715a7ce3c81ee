"""Where things lie: keys that name places, and the files of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias


class IsPlace:
    """Marks a key that says where something lies, so that its spelling decides nothing: `~` is the home directory, and
    a run goes on when what it names has moved, because contents are compared."""


Place: TypeAlias = Annotated[str, IsPlace]
"""A file, a folder, a pattern, or the id of something on a hub."""
Places: TypeAlias = Annotated[Any, IsPlace]
"""One of them, or a list."""


class IsFreeText:
    """Marks a key whose value is taken as it is typed: quotes, `${x}`, commas and all."""


FreeText: TypeAlias = Annotated[str, IsFreeText]
"""Words for a model."""


@dataclass(frozen=True)
class Paths:
    """Where the parts of a run directory lie."""

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
        """All of a model directory but the weights."""
        return self.checkpoints / "model-without-weights"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def plot(self) -> Path:
        return self.root / "plots" / "loss.png"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"


def run_of(place: Path) -> Path:
    """The run directory that `place` is, or that `place` is a checkpoint of."""
    return place.parent.parent if place.parent.name == "checkpoints" else place
