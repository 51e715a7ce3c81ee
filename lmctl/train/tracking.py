"""Sending the metrics of a run to its trackers: each has a thread, so that training waits for no network.

A tracker that fails is told of in one line, and costs nothing but its own figures: the record of the run is
metrics.jsonl. What is sent are the numbers of the record and the run's config without secrets.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from queue import SimpleQueue
from typing import Any

from omegaconf import OmegaConf

from lmctl.config.saved import resolved
from lmctl.core.files import write_json
from lmctl.core.paths import Paths
from lmctl.core.regular_files import read_json
from lmctl.core.secrets import masked
from lmctl.tracker.base import TrackedRun, Tracker, Tracking

LAST_SECONDS = 20.0
"""How long the end of a run waits for its trackers. Schedulers kill 30 s after a stop signal, some sooner."""


class Trackers:
    """The trackers of a run, in its first process."""

    def __init__(self, tracking: Tracking, paths: Paths, say: Callable[[str], None]) -> None:
        self.paths, self.say = paths, say
        self._senders = [Sender(name, tracker, say) for name, tracker in tracking.to.items()]

    def begin(self, config: dict[str, Any], step: int) -> None:
        """Begin, or go on after `step`. `config`: the contents of config.yaml. What goes back to a checkpoint begins
        again."""
        if not self._senders:
            if self.paths.tracked.exists():
                self.say("tracker: none now; name the one of before to go on there: tracker=...")
            return
        folder = self.paths.root
        name = str(config.get("name") or folder.name)
        run = TrackedRun(run_id(self.paths), name, folder, flat(config), step)
        for sender in self._senders:
            sender.open(run)

    def log(self, line: Mapping[str, Any]) -> None:
        """Send the numbers in a line of metrics.jsonl: `loss` of its split valid is called valid/loss."""
        split, step = line["split"], line["step"]
        numbers = {
            f"{split}/{key}": value
            for key, value in line.items()
            if key != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        for sender in self._senders:
            sender.log(numbers, step)

    def finish(self, status: str) -> None:
        """Close all of them, and wait `LAST_SECONDS` at most."""
        for sender in self._senders:
            sender.close(status)
        until = time.monotonic() + LAST_SECONDS
        for sender in self._senders:
            sender.join(until - time.monotonic())


class Sender:
    """One tracker, and the thread that speaks with it."""

    def __init__(self, name: str, tracker: Tracker, say: Callable[[str], None]) -> None:
        self.name, self.tracker, self.say = name, tracker, say
        self._opened: Any = None
        self._warned = False
        self._calls = SimpleQueue[Callable[[], None] | None]()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def open(self, run: TrackedRun) -> None:
        """Begin, or go on with, the tracker's run."""
        self._calls.put(partial(self._reopen, run))
        if not self._thread.is_alive():
            self._thread.start()

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._calls.put(partial(self._log, numbers, step))

    def close(self, status: str) -> None:
        self._calls.put(partial(self._close, status))
        self._calls.put(None)

    def join(self, seconds: float) -> None:
        """Wait until all is sent."""
        if self._thread.ident is None:  # the run failed before it began
            return
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._warn(f"has not taken everything within {LAST_SECONDS:.0f} s; what is left is in the record only")

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:
                said = next(iter(str(error).strip().splitlines()), "")
                self._warn(f"{type(error).__name__}: {said[:200]}; the run goes on, and its record is complete")

    def _reopen(self, run: TrackedRun) -> None:
        self._close("stopped")
        self._opened = self.tracker.open(run)

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        if self._opened is not None:
            self._opened.log(dict(numbers), step=step)

    def _close(self, status: str) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            self.tracker.close(opened, status)

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self.say(f"warning: tracker {self.name}: {text}")


def run_id(paths: Paths) -> str:
    """The id that the trackers of a run know it by: made once, and kept in the run directory."""
    match read_json(paths.tracked, follow=False):
        case {"id": str(kept)} if re.fullmatch("[0-9a-f]{32}", kept):
            return kept
    made = secrets.token_hex(16)
    write_json(paths.tracked, {"id": made})
    return made


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """A config by dotted keys. What it reads from the environment is not read, and tokens and passwords are masked."""
    found: dict[str, Any] = {}

    def add(key: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for name, one in value.items():
                add(f"{key}.{name}" if key else str(name), one)
        elif isinstance(value, dict | list):
            found[key] = masked(json.dumps(value, ensure_ascii=False))
        else:
            found[key] = masked(value) if isinstance(value, str) else value

    add("", resolved(OmegaConf.create(config)))
    return found
