"""The folder in which cells are run: their inputs, the models that they read, and an undisturbed run of each."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from goldens.figures import Figures
from goldens.inputs import write_inputs

from fault_injection.cells import CELLS, TEACHER_LINES, write_small_mixes
from fault_injection.events import Event, Events, replace
from fault_injection.outcome import bits
from fault_injection.processes import Child, run, start


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run of a cell left, and took."""

    bits: dict[str, Figures]
    seconds: float
    events: list[str]
    """Its events in order, as `phase: operation`."""
    run_bytes: int
    """What its directory holds at the end."""
    cache_bytes: int

    def count(self, phase: str) -> int:
        """Its events in a phase."""
        return sum(event.startswith(f"{phase}: ") for event in self.events)


@dataclass(frozen=True)
class Place:
    """Where a run is: its directory, a folder around it, where a control may lie as well, and a cache of its own."""

    home: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.home / "runs" / self.name

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def cache(self) -> Path:
        return self.home / "caches" / self.name

    @property
    def logs(self) -> Path:
        return self.home / "logs" / self.name

    def remove(self) -> None:
        for folder in (self.folder, self.cache, self.logs):
            shutil.rmtree(folder, ignore_errors=True)


class Workshop:
    """Runs commands in one folder, which nobody else uses."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._references: dict[str, Reference] = {}
        self._numbers = itertools.count()
        write_inputs(home)
        write_small_mixes(home)

    def place(self, name: str) -> Place:
        """A new one."""
        return Place(self.home, f"{name}-{next(self._numbers)}")

    def words(self, cell: str, place: Place) -> list[str]:
        """The command of a cell that goes on in a place as often as it is given."""
        return [*CELLS[cell], f"run_dir={place.run.relative_to(self.home)}", "resume=auto"]

    def start(self, cell: str, place: Place, event: Event | None = None,
              before: Callable[[], None] = lambda: None) -> Child:  # fmt: skip
        """Begin the command of a cell in a place; `event` is told of its events."""
        log = place.logs / f"{next(self._numbers)}.log"
        return start(self.words(cell, place), self.home, log, self._arm(place, event, before), self.environment(place))

    def run(self, cell: str, place: Place, event: Event | None = None,
            before: Callable[[], None] = lambda: None) -> Child:  # fmt: skip
        """The command of a cell to its end."""
        log = place.logs / f"{next(self._numbers)}.log"
        return run(self.words(cell, place), self.home, log, self._arm(place, event, before), self.environment(place))

    def finish(self, cell: str, place: Place) -> Child:
        """As `run`, undisturbed and for the last time; no curve is drawn, which nobody looks at."""
        return self.run(cell, place, before=_without_curves)

    def environment(self, place: Place) -> dict[str, str]:
        return {"LMCTL_CACHE": str(place.cache)}

    def _arm(self, place: Place, event: Event | None, before: Callable[[], None]) -> Callable[[], None]:
        def arm() -> None:
            before()
            if event is not None:
                Events(event, [place.folder, place.cache]).install()

        return arm

    def reference(self, cell: str) -> Reference:
        """An undisturbed run of a cell; made once."""
        if cell not in self._references:
            self._make_models(cell)
            place, events = self.place(f"{cell}-reference"), self.home / "events.txt"
            began = time.monotonic()
            child = self.run(cell, place, recorded(events))
            if child.code != 0:
                raise RuntimeError(f"{cell} does not run undisturbed:\n{child.printed[-2000:]}")
            seconds = time.monotonic() - began
            run_bytes, cache_bytes = (_size(folder) for folder in (place.folder, place.cache))
            lines = events.read_text().splitlines()
            self._references[cell] = Reference(bits(place.folder), seconds, lines, run_bytes, cache_bytes)
            events.unlink()
            place.remove()
        return self._references[cell]

    def _make_models(self, cell: str) -> None:
        """The runs that a cell reads, if they are not there."""
        for name, words in TEACHER_LINES.items():
            if not any(name in word for word in CELLS[cell]) or (self.home / name / "summary.json").exists():
                continue
            place = self.place("teacher")
            words = [*words, f"run_dir={place.run.relative_to(self.home)}"]
            child = run(words, self.home, place.logs / "log", environment=self.environment(place))
            if child.code != 0:
                raise RuntimeError(f"{name} cannot be trained:\n{child.printed[-2000:]}")
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            os.rename(place.run, self.home / name)
            place.remove()


def _without_curves() -> None:
    replace(importlib.import_module("lmctl.train.loss_plot"), "plot_losses", lambda function: lambda *_: None)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def recorded(file: Path) -> Event:
    """Every event as a line of a file."""
    handle = open(file, "w", buffering=1)  # noqa: SIM115

    def event(phase: str, operation: str) -> None:
        handle.write(f"{phase}: {operation}\n")

    return event
