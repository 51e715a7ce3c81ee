"""Worker processes that try tasks at the same time, each in a folder of its own; and the record of what they found."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from fault_injection.processes import descendants
from fault_injection.workshop import Workshop

Line = dict[str, Any]
"""A line of the record: the name of a task, its kind, problems and seconds, and what its kind adds."""


class Task(Protocol):
    """Something to try."""

    @property
    def name(self) -> str: ...

    def try_it(self, workshop: Workshop) -> Line: ...


def try_all(tasks: Iterable[Task], home: Path, jobs: int) -> Iterator[Line]:
    """Try the tasks, so many at a time, and give what each found as soon as it is known. The next task is asked for
    when a worker is free."""
    fork = multiprocessing.get_context("fork")
    waiting, busy = iter(tasks), 0
    workers = {}
    for number in range(jobs):
        ours, theirs = fork.Pipe()
        process = fork.Process(target=_work, args=(theirs, home / f"worker-{number}"))
        process.start()
        theirs.close()
        workers[ours] = process
    try:
        for connection in workers:
            busy += _give(connection, waiting)
        while busy:
            for ready in wait(list(workers)):
                assert isinstance(ready, Connection)
                line: Line = ready.recv()
                yield line
                busy += _give(ready, waiting) - 1
    finally:
        for connection, process in workers.items():
            connection.close()
            for pid in [*descendants(process.pid or 0), process.pid or 0]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.join()


def _give(connection: Connection, waiting: Iterator[Task]) -> int:
    """Send the next task to a worker; how many were sent."""
    for task in waiting:
        connection.send(task)
        return 1
    return 0


def _work(connection: Connection, home: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for all of them
    workshop = Workshop(home)
    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        began = time.monotonic()
        try:
            line = task.try_it(workshop)
        except Exception:  # the harness's own, or a command that hangs: a problem as any other
            line = {"kind": "failed", "problems": [traceback.format_exc()[-1500:]]}
        connection.send({"name": task.name, "seconds": round(time.monotonic() - began, 2), **line})


def read_record(file: Path, commit: str) -> list[Line]:
    """What was found at a commit. A last line that is cut off does not count."""
    if not file.exists():
        return []
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return [line for line in lines if line["commit"] == commit]


def append_record(file: Path, line: Line) -> None:
    with open(file, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(line) + "\n")
