"""Kills: a run is ended again and again, at random moments and at chosen events, until it is complete.

A round is one run directory with a cache of its own. Its command is started, ended by signals and started again; at the
last it is left alone, and must then have the bits of the undisturbed run.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from fault_injection.cells import LAUNCHED
from fault_injection.events import PHASES, START, Event, counted
from fault_injection.outcome import differences, leftovers, unsound, wrong_end
from fault_injection.processes import LIMIT, Child, Note
from fault_injection.workshop import Place, Reference, Workshop

KILLS, KILLS_OF_PROCESSES = 9, 2
"""Kills of one run, and of one whose command is started as a process, which takes seconds."""
SIGNALS = {"KILL": 9, "TERM": 4, "INT": 3, "USR1": 2, "STOP KILL": 2, "TERM INT": 2, "INT KILL": 1}
"""How a command is ended, and how often; a second signal follows the first soon."""
SOON = 0.15
"""Seconds between two signals, at the most."""
STARTING = 5.0
"""Seconds in which a process of its own begins."""


@dataclass
class Kill:
    """A command that was ended, and what it was doing."""

    signals: str
    phase: str
    code: int | None
    how: str
    """`clock`, `event`, or `command` where it was no forked child."""


@dataclass
class Round:
    """What became of one run."""

    cell: str
    number: int
    kills: list[Kill] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def record(self) -> dict[str, Any]:
        return {"kind": "kills", **asdict(self)}


def kill_round(workshop: Workshop, cell: str, number: int, seed: int, real: bool = False) -> Round:
    """One round; what is drawn depends on cell, number and seed alone. `real`: by the command, while it begins."""
    draw = random.Random(f"{cell}/{number}/{seed}/{real}")
    reference = workshop.reference(cell)
    found = Round(cell, number)
    place = workshop.place(cell)
    processes = real or cell in LAUNCHED
    for phase in _phases(draw, reference, KILLS_OF_PROCESSES if processes else KILLS):
        signals = draw.choices(list(SIGNALS), list(SIGNALS.values()))[0]
        if real:
            kill, child = _kill_command(workshop, cell, place, signals, draw)
        elif processes or draw.random() < 0.5:
            kill, child = _kill_by_clock(workshop, cell, place, signals, draw, reference)
        else:
            most = reference.count(phase) if not found.kills else max(1, reference.count(phase) // 4)
            kill, child = kill_at(workshop, cell, place, signals, Moment(phase, draw.randint(1, most)), draw)
        found.problems += wrong_end(child) + unsound(place.folder)
        if child.code == 0:
            break
        found.kills.append(kill)
    finish(workshop, cell, place, reference, found)
    return found


def kill_at_event(workshop: Workshop, cell: str, number: int) -> Round:
    """A round with one SIGKILL, just before the `number`-th event of a run."""
    reference = workshop.reference(cell)
    found = Round(cell, number)
    place = workshop.place(cell)
    kill, child = kill_at(workshop, cell, place, "KILL", Moment(None, number), random.Random(0))
    found.problems += wrong_end(child) + unsound(place.folder)
    if child.code != 0:
        found.kills.append(kill)
    finish(workshop, cell, place, reference, found)
    return found


def finish(workshop: Workshop, cell: str, place: Place, reference: Reference, found: Round) -> None:
    """The last start, which nothing disturbs, and what is wrong with its end."""
    last = workshop.finish(cell, place)
    found.problems += wrong_end(last, {0}) or differences(reference.bits, place.folder)
    found.problems += unsound(place.folder) + leftovers(place.folder, place.cache)
    if not found.problems:
        place.remove()


@dataclass(frozen=True)
class Moment:
    """The `number`-th event of a phase, or of all."""

    phase: str | None
    number: int


def kill_at(
    workshop: Workshop, cell: str, place: Place, signals: str, moment: Moment, draw: random.Random
) -> tuple[Kill, Child]:
    """Start the command, and end it just before an event: the first signal is its own."""
    first, *others = [signal.Signals[f"SIG{name}"] for name in signals.split()]
    note, fired = Note(), Note()
    child = workshop.start(cell, place, _at(moment, first, note, fired))
    while child.ended(0.002) is None and not fired.read()[0]:
        pass
    _end(child, others, draw)
    return Kill(signals, _phase(note), child.code, "event"), child


def _at(moment: Moment, first: signal.Signals, note: Note, fired: Note) -> Event:
    count, told = 0, counted(note)

    def event(phase: str, operation: str) -> None:
        nonlocal count
        told(phase, operation)
        count += moment.phase in (None, phase)
        if count == moment.number and not fired.read()[0]:
            fired.write(1, "")
            os.kill(os.getpid(), first)

    return event


def _kill_by_clock(
    workshop: Workshop, cell: str, place: Place, signals: str, draw: random.Random, reference: Reference
) -> tuple[Kill, Child]:
    note = Note()
    child = workshop.start(cell, place, counted(note))
    child.ended(draw.uniform(0, reference.seconds))
    phase = _phase(note)
    _end(child, [signal.Signals[f"SIG{name}"] for name in signals.split()], draw, everything=cell in LAUNCHED)
    return Kill(signals, phase, child.code, "clock"), child


def _kill_command(workshop: Workshop, cell: str, place: Place, signals: str, draw: random.Random) -> tuple[Kill, Child]:
    """A process of its own, `python -m lmctl`, which is ended in its first seconds."""
    words = [sys.executable, "-m", "lmctl", *workshop.words(cell, place)]
    child = workshop.start(cell, place, before=lambda: os.execv(sys.executable, words))
    child.ended(draw.uniform(0, STARTING))
    _end(child, [signal.Signals[f"SIG{name}"] for name in signals.split()], draw)
    return Kill(signals, START, child.code, "command"), child


def _end(child: Child, signals: list[signal.Signals], draw: random.Random, everything: bool = False) -> None:
    """Send the signals and wait; `everything`: a SIGKILL is for whatever the command started as well."""
    for number in signals:
        if everything and number == signal.SIGKILL:
            child.kill_all()
        child.send(number)
        child.ended(draw.uniform(0, SOON))
    if child.ended(LIMIT) is None:
        child.kill_all()
        raise TimeoutError(f"did not end within {LIMIT:g} s of {signals}: {child.printed[-400:]!r}")


def _phase(note: Note) -> str:
    return note.read()[1].partition(":")[0] or START


def _phases(draw: random.Random, reference: Reference, count: int) -> list[str]:
    """Phases that a run goes through, each as likely as the others, in the order of its life."""
    there = [phase for phase in (START, *PHASES) if reference.count(phase)]
    return sorted(draw.choices(there, k=count), key=there.index)
