"""A fault: what is done to a run, and how it is judged. Every module of faults has functions that yield these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fault_injection.outcome import FAULT_CODES, differences, leftovers, unsound, wrong_end
from fault_injection.processes import Child
from fault_injection.workshop import Place, Workshop


@dataclass(frozen=True)
class Fault:
    """One fault in one cell; `try_it` returns what was wrong, and nothing if all went as it must."""

    family: str
    """The row of the table that it is counted in."""
    name: str
    """Unique, and the same each time."""
    try_it: Callable[[Workshop], list[str]]


def goes_on(
    workshop: Workshop, cell: str, place: Place, first: Child | None, codes: set[int] = FAULT_CODES
) -> list[str]:
    """What is wrong after a fault: `first` is the command that met with it; after it the same command, which nothing
    disturbs, must end with the bits of the undisturbed run. The place is removed if all is well."""
    found = (wrong_end(first, codes) if first is not None else []) + unsound(place.folder)
    last = workshop.finish(cell, place)
    found += wrong_end(last, {0}) or differences(workshop.reference(cell).bits, place.folder)
    found += unsound(place.folder) + leftovers(place.folder, place.cache)
    if not found:
        place.remove()
    return found
