"""Events of a command: its operations on files, its training steps, and the phases that it goes through.

Counted in the forked child, by Python's audit hook and by wrappers around functions of lmctl and of its libraries, none
of which lmctl knows of. So a kill or an error can be put at the n-th event, or at the n-th of a phase; each event comes
just before the operation that it names.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fault_injection.processes import Note

START, TRAINING = "start-up", "training"
PHASES = {
    "reading": "lmctl.data.reading:fingerprint",
    "tokenizer training": "lmctl.train.prepare:_tokenizer",
    "caching": "lmctl.core.cache:cached",
    "teacher caching": "lmctl.distill.cached_teacher:fill_cache",
    "proof": "lmctl.train.precision_proof:prove",
    TRAINING: "lmctl.train.trainer:Trainer._step",
    "validation": "lmctl.train.validation_schedule:Validator._measure",
    "saving": "lmctl.train.checkpoint:Checkpoints.save",
    "export": "lmctl.train.export:export",
    "plot": "lmctl.train.loss_plot:plot_losses",
    "summary": "lmctl.train.run_record:Record.finish",
}
"""The phases of a run by name, and the function that each lasts as long as; what such a function calls is of its phase.
What is in none of them is start-up before the first step, and training after it."""

Event = Callable[[str, str], None]
"""Called with the phase and the operation just before it takes place. It may kill the process, or raise an OSError."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class _Inside(threading.local):
    told = False
    """Whether this thread is just telling of an event."""


class Events:
    """Calls `event` for every event of this process in the folders `roots`; files of other folders do not count."""

    def __init__(self, event: Event, roots: list[Path]) -> None:
        self.event = event
        self.roots = tuple(f"{root}/" for root in roots)
        self.phase = START
        self._inside = _Inside()

    def install(self) -> None:
        """From now on, and for the rest of this process's life: audit hooks cannot be removed."""
        for phase, place in PHASES.items():
            module, _, name = place.partition(":")
            replace(importlib.import_module(module), name, partial(self._during, phase))
        for module, name in (("os", "fsync"), ("torch", "save"), ("safetensors.torch", "save_file")):
            replace(importlib.import_module(module), name, partial(self._before, name))
        sys.addaudithook(self._audit)

    def happens(self, operation: str) -> None:
        """Tell of an event, unless it happens while one is told of."""
        if self._inside.told:
            return
        self._inside.told = True
        try:
            self.event(self.phase, operation)
        finally:
            self._inside.told = False

    def _audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITES and self._ours(path):
                self.happens(f"open {Path(os.fsdecode(path)).name}")
        elif name in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"):
            path, descriptor = arguments[0], arguments[1] if name in ("os.remove", "os.rmdir") else -1
            if descriptor != -1:  # of a folder that the name is below
                path = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), os.fsdecode(path))
            if self._ours(path):
                self.happens(f"{name.removeprefix('os.')} {Path(os.fsdecode(path)).name}")

    def _ours(self, path: Any) -> bool:
        return isinstance(path, str | bytes) and os.path.abspath(os.fsdecode(path)).startswith(self.roots)

    def _during(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            with self._in(phase):
                result = function(*arguments, **named)
                self.happens("end")
                return result

        return wrapped

    @contextmanager
    def _in(self, phase: str) -> Iterator[None]:
        before = self.phase
        if before in (START, TRAINING):
            self.phase = phase
        try:
            self.happens("begin")
            yield
        finally:
            self.phase = TRAINING if phase == TRAINING else before

    def _before(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.happens(name)
            return function(*arguments, **named)

        return wrapped


def counted(note: Note) -> Event:
    """Nothing but counting: the note has the number of events and the last one."""
    count = 0

    def event(phase: str, operation: str) -> None:
        nonlocal count
        count += 1
        note.write(count, f"{phase}: {operation}")

    return event


def stopped_before(phase_: str, number: int = 1) -> Event:
    """SIGKILL before the `number`-th event of a phase."""
    count = 0

    def event(phase: str, operation: str) -> None:
        nonlocal count
        count += phase == phase_
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return event


def replace(module: Any, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function, or a method `Class.name`, by what the wrapper makes of it, wherever lmctl has imported it."""
    owner, _, method = name.rpartition(".")
    place = vars(module)[owner] if owner else module
    function = vars(place)[method]
    wrapped = wrapper(function)
    setattr(place, method, wrapped)
    for other in [each for key, each in sys.modules.items() if key.partition(".")[0] == "lmctl"] if not owner else []:
        for key, value in list(vars(other).items()):
            if value is function:
                setattr(other, key, wrapped)
