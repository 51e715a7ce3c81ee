"""Commands in forked children: `lmctl WORDS` without the seconds that the imports of a new process take.

The process that forks has imported the libraries and lmctl once and runs on one thread. A child has a session of its
own, writes what it prints to a file, and calls the entry point of lmctl as the console script does; what is to be
injected is put in place in the child before. So a kill is a kill of a real process, and lmctl knows nothing of it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import mmap
import multiprocessing.process
import os
import pkgutil
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = ["torch", "torch._dynamo", "transformers.modeling_utils", "transformers.generation", "accelerate",
             "datasets", "scipy.stats", "matplotlib.pyplot", "hydra.core.plugins", "hydra._internal.hydra"]  # fmt: skip
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "COLUMNS": "200",
               "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "MPLBACKEND": "Agg"}  # fmt: skip
LIMIT = 180.0
"""Seconds that a command may take; a longer one has hung."""


def load_libraries() -> None:
    """Import everything that a command may import. Nothing is computed, so that there is no thread but this one."""
    for name in LIBRARIES:
        with suppress(ImportError):  # an extra that is not installed
            importlib.import_module(name)
    import lmctl

    for module in pkgutil.walk_packages(lmctl.__path__, "lmctl."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # collecting garbage in a child would copy every page


class Note:
    """A number and a word that a child shares with its parent: the last event, and how many there were."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 256)

    def write(self, count: int, word: str) -> None:
        """In the child; bytes are written at once, so that they are there however the child ends."""
        self._memory[:256] = struct.pack("<I252s", count, word.encode()[:252])

    def read(self) -> tuple[int, str]:
        """In the parent."""
        count, word = struct.unpack("<I252s", self._memory[:256])
        return count, word.rstrip(b"\0").decode()


@dataclass
class Child:
    """A command that runs in a process of its own."""

    pid: int
    log: Path
    code: int | None = None
    """Its exit code, once it has one; below 0 the number of the signal that ended it."""

    def ended(self, within: float = 0.0) -> int | None:
        """The exit code, if there is one within so many seconds."""
        deadline = time.monotonic() + within
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= deadline:
                break
            else:
                time.sleep(0.002)
        return self.code

    def send(self, number: signal.Signals) -> None:
        if self.ended() is None:
            os.kill(self.pid, number)

    def kill_all(self) -> None:
        """SIGKILL to the command and whatever it started, as when a machine is taken away."""
        for pid in [*descendants(self.pid), self.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.ended(LIMIT)

    @property
    def printed(self) -> str:
        return self.log.read_text(errors="replace")


def start(
    words: list[str],
    home: Path,
    log: Path,
    before: Callable[[], object] = lambda: None,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Begin `lmctl WORDS` in the folder `home`; `before` is called in the child, and may change it as it likes."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, log)
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(home)
        _redirect(log)
        os.environ.update(environment or {})
        sys.argv = ["lmctl", *words]
        multiprocessing.process._children.clear()  # type: ignore[attr-defined]  # they are the parent's
        before()
        code = _main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run(words: list[str], home: Path, log: Path, before: Callable[[], None] = lambda: None,
        environment: Mapping[str, str] | None = None) -> Child:  # fmt: skip
    """`lmctl WORDS` to its end; one that hangs is killed, and its code is -9."""
    child = start(words, home, log, before, environment)
    if child.ended(LIMIT) is None:
        child.kill_all()
    return child


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def running(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def ended_with_all(child: Child) -> Iterator[Child]:
    """Whatever the command started is ended after the block."""
    try:
        yield child
    finally:
        child.kill_all()


def _main(words: list[str]) -> int:
    from lmctl.cli.main import main

    code = main(words)
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does after the script's sys.exit
    atexit._run_exitfuncs()
    return int(code)


def _redirect(log: Path) -> None:
    for path, flags, number in ((os.devnull, os.O_RDONLY, 0), (log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1)):
        descriptor = os.open(path, flags, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.dup2(1, 2)
