"""Finding the runs that a command line names: runs, sweeps, stages, and folders of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmctl.compare.run import Row
from lmctl.config.overrides import Overrides
from lmctl.core.errors import ConfigError
from lmctl.core.files import nearest_place, path_of
from lmctl.core.paths import Paths, run_of
from lmctl.core.regular_files import read_json

DEPTH = 3
"""How many folders below one that was named are looked into: runs/GROUP/SWEEP/JOB."""


@dataclass(frozen=True)
class Found:
    """A run, and what its sweep recorded about it."""

    place: Path
    row: Row = field(default_factory=Row)


def find(words: Sequence[str]) -> list[Found]:
    """The runs in the places `words`, in order, each once. ConfigError for a place without one."""
    runs: dict[Path, Found] = {}
    for word in words:
        place = path_of(word)
        if not place.exists():
            raise ConfigError(
                f"{word}: no such directory", nearest_place(place) or "lmctl compare takes runs and sweeps"
            )
        found = list(_in(place, DEPTH))
        if not found and place != (run := run_of(place)):  # a checkpoint
            found = list(_in(run, 0))
        if not found:
            above = next((one for one in place.absolute().parents if Paths(one).config.exists()), None)
            hint = (
                "give a run's directory, a sweep's, or a folder of them" if above is None else f"did you mean {above}?"
            )
            raise ConfigError(f"{word}: there is no run in it", hint)
        for one in found:
            runs.setdefault(one.place.resolve(), one)
    return list(runs.values())


def holds_runs(place: Path) -> bool:
    """Whether it is the directory of a sweep, of stages or of runs, rather than one run or a part of one."""
    run = Paths(place)
    return place == run_of(place) and not run.config.exists() and not run.metrics.exists()


def names_of(places: Sequence[Path]) -> list[str]:
    """A name for each place: its path below the folder that all have in common."""
    if len(places) == 1:
        return [places[0].resolve().name]
    whole = [str(place.resolve()) for place in places]
    common = os.path.commonpath(whole) if whole else ""
    return [os.path.relpath(path, common) if path != common else Path(path).name for path in whole]


def _in(place: Path, depth: int) -> Iterator[Found]:
    run = Paths(place)
    if rows := _rows(run):
        yield from (Found(place / name, row) for name, row in rows.items())
    elif run.config.exists() or run.metrics.exists():
        yield Found(place)
    elif depth and place.is_dir():
        for folder in sorted(one for one in place.iterdir() if one.is_dir() and not one.name.startswith(".")):
            yield from _in(folder, depth - 1)


def _rows(run: Paths) -> dict[str, Row]:
    """The jobs that a sweep or stages recorded, by the name of their folder; {} if it is neither."""
    record = read_json(run.summary)
    if isinstance(record, dict):
        stages = record.get("stages")
        record = list(stages.values()) if isinstance(stages, dict) else []
    jobs = [job for job in record if isinstance(job, dict)] if isinstance(record, list) else []
    return {name: _row(job) for job in jobs if isinstance(name := job.get("name"), str) and Path(name).name == name}


def _row(job: Mapping[str, Any]) -> Row:
    words = job.get("overrides")
    typed = Overrides.typed(word for word in (words if isinstance(words, list) else ()) if isinstance(word, str))
    status, error = job.get("status"), job.get("error")
    return Row(
        {one.key: one.text for one in typed if one.value is not None},
        status if isinstance(status, str) else None,
        error if isinstance(error, str) else None,
    )
