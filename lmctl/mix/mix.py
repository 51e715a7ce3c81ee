"""A mix is a mapping of named tasks. `objective` and `data` may be written as the name of an option of their group."""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.core.types import Objective, Source


@dataclass(frozen=True)
class Task:
    """One objective on one source of text."""

    objective: Objective
    data: Source
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"weight must be above 0, got {self.weight}")


@dataclass(frozen=True)
class Mix:
    """The tasks of a run, by name."""

    tasks: dict[str, Task]

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks must name at least one task")
