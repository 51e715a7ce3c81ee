"""Commands that consist of several processes, and commands besides training: killed, stopped and begun again."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

from fault_injection.cells import CELLS
from fault_injection.events import Events, stopped_before
from fault_injection.fault import Fault, goes_on
from fault_injection.outcome import CODES, wrong_end
from fault_injection.processes import LIMIT, Child, descendants, ended_with_all, run, running, start
from fault_injection.workshop import Place, Workshop
from lmctl.core.errors import Exit

DDP, CONTROL = "ddp_topk_int8", "distill_control"
GRACE = 60.0
"""Seconds within which processes have to end when those that they belong to are gone."""
PAUSE = 3.0
"""Seconds that a worker is stopped for."""


def process_faults(workshop: Workshop) -> Iterator[Fault]:
    """Workers, launchers, parents of controls and sweeps: each killed or stopped while it trains."""
    for what, act in (("first worker killed", _kill_worker), ("second worker killed", _kill_other_worker),
                      ("launcher killed", _kill_parent), ("second worker stopped", _pause_worker),
                      ("second worker stopped for good", _stop_worker)):  # fmt: skip
        yield Fault("processes of one run", f"processes/{what}", partial(_disturbed, DDP, act, "checkpoints/latest"))
    yield Fault(
        "processes of one run",
        "processes/parent of a control killed",
        partial(_disturbed, CONTROL, _kill_parent, "../control-*/checkpoints/latest"),
    )
    yield Fault("processes of one run", "processes/parent of a sweep killed", _sweep)


def verb_faults(workshop: Workshop) -> Iterator[Fault]:
    """`prepare` and `eval`, killed at some moments."""
    for number in range(4):
        yield Fault("other verbs killed", f"verbs/prepare {number}", partial(_prepare, number))
    for number in range(4):
        yield Fault("other verbs killed", f"verbs/eval {number}", partial(_eval, number))


def _disturbed(cell: str, act: Callable[[Child, list[int]], list[str]], until: str, workshop: Workshop) -> list[str]:
    """A run is disturbed once a file is there, and gone on with."""
    workshop.reference(cell)
    place = workshop.place(f"{cell}-processes")
    with ended_with_all(workshop.start(cell, place)) as child:
        found = _wait(child, lambda: any(place.run.glob(until)))
        found += act(child, _ours(child))
    return found + goes_on(workshop, cell, place, child, CODES | {1})


def _wait(child: Child, until: Callable[[], bool]) -> list[str]:
    deadline = time.monotonic() + LIMIT
    while not until():
        if child.ended(0.01) is not None or time.monotonic() > deadline:
            return [f"ended before it could be disturbed: {child.printed[-300:]!r}"]
    return []


def _ours(child: Child) -> list[int]:
    """The processes below a command that run lmctl."""
    import psutil

    return [pid for pid in descendants(child.pid) if "lmctl" in " ".join(psutil.Process(pid).cmdline())]


def _kill_worker(child: Child, workers: list[int], which: int = 0) -> list[str]:
    os.kill(sorted(workers)[which], signal.SIGKILL)
    return [] if child.ended(GRACE) is not None and _all_end(workers) else ["outlives a worker that was killed"]


def _kill_other_worker(child: Child, workers: list[int]) -> list[str]:
    return _kill_worker(child, workers, 1)


def _kill_parent(child: Child, workers: list[int]) -> list[str]:
    child.send(signal.SIGKILL)
    return (
        []
        if child.ended(GRACE) is not None and _all_end(workers)
        else ["processes outlive the command that began them"]
    )


def _pause_worker(child: Child, workers: list[int]) -> list[str]:
    os.kill(sorted(workers)[1], signal.SIGSTOP)
    time.sleep(PAUSE)
    os.kill(sorted(workers)[1], signal.SIGCONT)
    return [] if child.ended(LIMIT) == 0 else ["did not go on after a pause"]


def _stop_worker(child: Child, workers: list[int]) -> list[str]:
    """The other worker waits for it, and its watchdog ends the run."""
    os.kill(sorted(workers)[1], signal.SIGSTOP)
    if child.ended(LIMIT) != Exit.FAILED or not _all_end(workers):
        return [f"a worker that hangs did not end the run: {child.code}"]
    return [] if "no progress for" in child.printed else ["nothing was said of a worker that hangs"]


def _all_end(pids: list[int]) -> bool:
    deadline = time.monotonic() + GRACE
    while any(running(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _sweep(workshop: Workshop) -> list[str]:
    """Two jobs; the sweep's parent is killed during the first, and the same command does both."""
    place = workshop.place("sweep")
    words = [*CELLS["mlm_fp16"], "-m", "seed=1,2", f"run_dir={place.folder.relative_to(workshop.home)}"]
    environment = workshop.environment(place)
    with ended_with_all(start(words, workshop.home, place.logs / "1.log", environment=environment)) as child:
        found = _wait(child, lambda: any(place.folder.rglob("checkpoints/latest")))
        found += _kill_parent(child, _ours(child))
    again = run(words, workshop.home, place.logs / "2.log", environment=environment)
    found += wrong_end(again, {0})
    done = [json.loads(file.read_text())["status"] for file in place.folder.glob("*/summary.json")]
    if done != ["completed", "completed"]:
        found.append(f"jobs after the second time: {done}")
    if not found:
        place.remove()
    return found


def _prepare(number: int, workshop: Workshop) -> list[str]:
    """`lmctl prepare` killed while it caches; the run that follows has the bits of one that found an empty cache."""
    cell, place = "mlm_nsp", workshop.place("prepare")
    groups = ("mix=", "model", "data", "tokenizer", "batch.seq_len")
    words = ["prepare", *(word for word in CELLS[cell] if word.startswith(groups))]
    moment = random.Random(number).randint(1, 40)

    def before() -> None:
        Events(stopped_before("caching", moment), [place.cache]).install()

    environment = workshop.environment(place)
    found = wrong_end(run(words, workshop.home, place.logs / "1.log", before, environment))
    found += wrong_end(run(words, workshop.home, place.logs / "2.log", environment=environment), {0})
    return found + goes_on(workshop, cell, place, None)


def _eval(number: int, workshop: Workshop) -> list[str]:
    """`lmctl eval` killed, or told to stop, at some moment: its results are those of before, or none."""
    place = Place(workshop.home, "mlm_nsp-finished")
    if not (place.run / "summary.json").exists():
        workshop.run("mlm_nsp", place)
    own = workshop.place("eval")
    out = own.logs / "results.json"
    words = ["eval", f"model_path={place.run}", "rows=8", f"out={out}", "runner=cpu"]
    environment = workshop.environment(place)
    child = start(words, workshop.home, own.logs / "1.log", environment=environment)
    child.ended(random.Random(number).uniform(0, 1.5))
    child.send([signal.SIGKILL, signal.SIGTERM][number % 2])
    child.ended(LIMIT)
    found = wrong_end(child)
    if out.exists():
        json.loads(out.read_text())
    found += wrong_end(run(words, workshop.home, own.logs / "2.log", environment=environment), {0})
    if not found:
        own.remove()
    return found
