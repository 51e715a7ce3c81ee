"""Several processes on this machine, started by torch's own elastic launcher (torchrun).

The launcher only starts, watches and reports. Stop signals are passed on to the workers, which save together and
end with exit code 75; a worker's own exit code becomes the command's, and its message has been printed by it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

import psutil

from lmctl.core.command_words import setting
from lmctl.core.errors import Exit, LmctlError
from lmctl.core.signals import SIGNALS


class WorkersFailed(LmctlError):
    """Workers that ended by themselves have said why, so only their exit code is passed on; of one that was killed
    nobody else would tell."""

    def __init__(self, codes: list[int]) -> None:
        own = [code for code in codes if code > 0]
        killed = "" if own else f"a worker was killed by {signal.Signals(-codes[0]).name}"
        super().__init__(killed, "out of memory? resume=auto goes on from the last checkpoint" if killed else None)
        # Whoever failed first closes the others' connections, which then end with 1.
        code = max(own, key=lambda code: code != Exit.FAILED, default=Exit.FAILED)
        self.code = Exit(code) if code in set(Exit) else Exit.FAILED


def is_worker() -> bool:
    """Whether some launcher (ours, torchrun, accelerate launch) has started this process as one of several."""
    return others() or "LOCAL_RANK" in os.environ


def is_launched() -> bool:
    """Whether the launcher was ours."""
    return "LMCTL_LAUNCHED" in os.environ


def others() -> bool:
    """Whether there are other workers."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this is the first of the workers, or the only process."""
    return int(os.environ.get("RANK", "0")) == 0


def launch(processes: int, name: str | None) -> None:
    """Run this very command in `processes` processes, as a run of that name, and wait for them; WorkersFailed if one
    of them ends with an error."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    arguments = sys.argv[1:]
    if name and not any(word.startswith("name=") for word in arguments):  # made up of the time: they must share it
        arguments.append(setting("name", name))
    os.environ["LMCTL_LAUNCHED"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"lmctl-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        # Of the others torch would end the workers after 30 seconds; we pass them on, and wait as long as saving takes.
        signals_to_handle="SIGHUP,SIGQUIT",
    )
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a failed worker speaks for itself
    for number in SIGNALS:
        signal.signal(number, _pass_on)
    try:
        elastic_launch(config, sys.executable)("-m", "lmctl", *arguments)
    except ChildFailedError as error:
        raise WorkersFailed([failure.exitcode for failure in error.failures.values()]) from None


def _pass_on(number: int, frame: FrameType | None) -> None:
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            child.send_signal(number)
