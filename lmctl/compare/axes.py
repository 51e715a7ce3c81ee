"""What differs between the configs of runs: axes, each with its value in every run, and cells of equal values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmctl.compare.run import Run

SEED = "seed"


@dataclass(frozen=True)
class Axis:
    """A setting that differs."""

    name: str
    values: tuple[str | None, ...]
    """By run; None where it is not known, or where the chosen option has no such key."""
    also: tuple[str, ...] = ()
    """Further keys that differ with it: those of the chosen options."""


def axes_of(runs: Sequence[Run]) -> list[Axis]:
    """The settings in which the runs differ, but for the seed. Keys that follow from another one are named with it:
    what a sweep varied comes first, then groups, then keys."""
    known = [place for place, run in enumerate(runs) if run.config]
    found: list[Axis] = []
    for name, values in _candidates(runs):
        if len(set(values)) < 2:
            continue
        for place, axis in enumerate(found):
            if _follows(name, values, axis, known):
                found[place] = Axis(axis.name, axis.values, (*axis.also, name))
                break
        else:
            found.append(Axis(name, values))
    return found


def cells_of(runs: Sequence[Run], axes: Sequence[Axis]) -> list[int]:
    """The number of each run's cell: runs of a cell differ in their seed only. Runs without any setting that is known
    are cells of their own."""
    numbers: dict[tuple[object, ...], int] = {}
    cells = []
    for place, run in enumerate(runs):
        values: tuple[object, ...] = tuple(axis.values[place] for axis in axes)
        key = values if run.config or run.overrides else (place,)
        cells.append(numbers.setdefault(key, len(numbers)))
    return cells


def differing_keys(runs: Sequence[Run]) -> dict[str, tuple[str | None, ...]]:
    """Every key whose value differs between the runs' configs, the seed included."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    found = {key: tuple(run.config.get(key) for run in runs) for key in keys}
    known = [bool(run.config) for run in runs]
    return {
        key: values for key, values in found.items() if len({v for v, k in zip(values, known, strict=True) if k}) > 1
    }


def _candidates(runs: Sequence[Run]) -> Iterator[tuple[str, tuple[str | None, ...]]]:
    """Settings with their values by run: overrides of sweeps, options of groups, keys."""
    keys = dict.fromkeys(key for run in runs for key in run.overrides if key != SEED)
    # An override may name an option and a config its class, so they are not mixed.
    swept = [key for key in keys if all(key in run.overrides for run in runs if run.config)]
    for key in swept:
        yield key, tuple(run.overrides.get(key) for run in runs)
    differing = [(key, values) for key, values in differing_keys(runs).items() if key != SEED and key not in swept]
    yield from sorted(differing, key=lambda one: "." in one[0])


def _follows(name: str, values: tuple[str | None, ...], axis: Axis, known: Sequence[int]) -> bool:
    """Whether values follow from those of an axis: the same distinctions, or coarser ones if it is the group of this
    key."""
    pairs = {(axis.values[place], values[place]) for place in known}
    if len(pairs) != len({axis.values[place] for place in known}):
        return False  # one value of the axis goes with several of these
    if not known:
        return False
    return len(pairs) == len({values[place] for place in known}) or name.startswith(f"{axis.name}.")
