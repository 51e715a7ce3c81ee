"""Launcher of the processes of this machine, by torch's elastic launcher (torchrun).

Where a run has several nodes, each has its launcher; they meet at an address, and the user numbers them, so that rank 0
is where he expects it. The launcher only starts and monitors. Stop signals are forwarded to the workers, which save a
checkpoint together and exit with code 75. A worker's exit code becomes the command's; the worker itself has printed its
message.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

import psutil

from lmctl.core import child_process, progress, signals
from lmctl.core.command_words import setting
from lmctl.core.errors import Exit, LmctlError
from lmctl.runner.base import Node

ALONE = Node()
"""The only machine of a run."""


class WorkersFailed(LmctlError):
    """Exit code of failed workers. Those that exited have printed their error; only one killed by a signal needs a
    message."""

    def __init__(self, codes: list[int]) -> None:
        own = [code for code in codes if code > 0]
        killed = "" if own else f"a worker was killed by {signal.Signals(-codes[0]).name}"
        super().__init__(killed, "out of memory? resume=auto goes on from the last checkpoint" if killed else None)
        # The first failure closes the connections of the other workers, which then exit with 1.
        code = max(own, key=lambda code: code != Exit.FAILED, default=Exit.FAILED)
        self.code = Exit(code) if code in set(Exit) else Exit.FAILED


class NotMet(LmctlError):
    """The launchers of the nodes did not find each other, or lost each other."""

    def __init__(self, node: Node, wait_s: float, why: str) -> None:
        where, reason = node.rendezvous, " ".join(why.split())[:200]
        if "EADDRINUSE" in why:
            super().__init__(f"{where} is in use, by another run?", "choose another port: runner.rendezvous=HOST:PORT")
        elif "waiting for clients" in why or "timed out" in why.lower() or "timeout" in why.lower():
            super().__init__(
                f"not all of the {node.nodes} nodes came to {where} within {progress.duration(wait_s)}",
                "is the same command running on each, with its own runner.node_rank?",
            )
        else:
            super().__init__(f"the nodes of this run do not reach each other at {where}: {reason}")


def is_worker() -> bool:
    """Whether a launcher (lmctl's, torchrun, accelerate launch) started this process as one of several."""
    return others() or "LOCAL_RANK" in os.environ


def is_launched() -> bool:
    """Whether lmctl's own launcher started this process."""
    return signals.is_child() and "LOCAL_RANK" in os.environ


def others() -> bool:
    """Whether there is more than one worker."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this is rank 0 (or the only process)."""
    return int(os.environ.get("RANK", "0")) == 0


def launch(processes: int, name: str | None, words: Sequence[str] = (), node: Node = ALONE, wait_s: float = 60) -> None:
    """Run this command again in `processes` processes of this node, with the same run name, and wait for them;
    WorkersFailed if one of them exits with an error. `words`: overrides that replace those of the same keys. `wait_s`:
    how long other nodes are waited for."""
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    keys = {word.partition("=")[0] for word in words}
    arguments = [word for word in sys.argv[1:] if word.partition("=")[0] not in keys] + list(words)
    if name and not any(word.startswith("name=") for word in arguments):  # a default name has the time: share it
        arguments.append(setting("name", name))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    several = node.nodes > 1
    config = LaunchConfig(
        min_nodes=node.nodes,
        max_nodes=node.nodes,
        nproc_per_node=processes,
        run_id="lmctl" if several else f"lmctl-{os.getpid()}",
        rdzv_backend="static" if several else "c10d",  # c10d would number the nodes by itself
        rdzv_endpoint=node.rendezvous,
        rdzv_configs={"rank": node.rank, "timeout": math.ceil(wait_s)} if several else {},
        max_restarts=0,
        monitor_interval=0.1,
        # After any other signal torch kills workers within 30 seconds; these are forwarded, and saving may take longer.
        signals_to_handle="SIGQUIT",
    )
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a failed worker prints its own error
    python, *words = child_process.command(*arguments)
    forwarded: set[int] = set()

    def pass_on(number: int, frame: FrameType | None) -> None:
        children = psutil.Process().children()
        if not children:  # none has been started yet
            raise signals.Interrupted(signal.Signals(number).name)
        forwarded.add(number)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    try:
        with child_process.in_environment(), signals.handled_by(pass_on):
            elastic_launch(config, python)(*words)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        if all(-code in forwarded for code in codes):  # in the last moment, when Python has dropped its handlers
            raise signals.Interrupted(signal.Signals(-codes[0]).name, "interrupted") from None
        raise WorkersFailed(codes) from None
    except DistError as error:
        raise NotMet(node, wait_s, str(error)) from None
