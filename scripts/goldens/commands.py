"""Commands in processes of their own, which begin with the libraries imported: starting is most of a short run's time.

The processes are copies of one that has imported them (multiprocessing's fork server) and nothing of lmctl's. What is
run in each is the module `lmctl`, as `python -m lmctl` would.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import threading
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

LIBRARIES = ["torch", "torch._dynamo", "transformers.modeling_utils", "transformers.generation", "accelerate",
             "datasets", "scipy.stats", "sacrebleu", "matplotlib.pyplot", "hydra.core.plugins",
             "hydra._internal.hydra"]  # fmt: skip
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "COLUMNS": "200",
               "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "MPLBACKEND": "Agg"}  # fmt: skip


class Commands:
    """Runs lmctl in the folder `home`, with a cache there; the lmctl that PYTHONPATH or the current directory gives."""

    def __init__(self, home: Path, limit: float) -> None:
        self.home = home
        self.limit = limit
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), os.getcwd()]))
        os.environ.update(ENVIRONMENT | {"LMCTL_CACHE": str(home / "cache"), "PYTHONPATH": path})
        self._server = multiprocessing.get_context("forkserver")
        self._server.set_forkserver_preload(LIBRARIES)

        self._lock = threading.Lock()
        """For multiprocessing's list of children: two threads that ask for one child's exit code lose it."""

    def start(self, words: list[str], said: Path) -> BaseProcess:
        """Begin `lmctl words`; what it prints goes to the files SAID.out and SAID.err."""
        process = self._server.Process(target=_lmctl, args=(words, self.home, said))
        with self._lock:
            process.start()
        return process

    def ended(self, process: BaseProcess, within: float = 0.0) -> int | None:
        """The exit code, if there is one within so many seconds; below 0 the number of a signal."""
        wait([process.sentinel], within)
        with self._lock:
            return process.exitcode

    def run(self, words: list[str], said: Path) -> int | None:
        """The exit code of `lmctl words`; None if it took longer than allowed."""
        process = self.start(words, said)
        code = self.ended(process, self.limit)
        if code is None:
            process.kill()
            self.ended(process, self.limit)
        return code


def _lmctl(words: list[str], home: Path, said: Path) -> None:
    for number, suffix in ((1, "out"), (2, "err")):
        with open(f"{said}.{suffix}", "wb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(home)
    sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
    sys.argv[:] = ["lmctl", *words]
    runpy.run_module("lmctl", run_name="__main__", alter_sys=True)
