"""The commands that start a run of several processes, by lmctl's launcher, torchrun and accelerate launch."""

from __future__ import annotations

import shlex
from collections.abc import Container, Iterator, Sequence

from lmctl.runner.base import Runner
from lmctl.runner.places import PORT, Launched

OF_LAUNCHERS = ("runner.processes", "runner.nodes", "runner.node_rank", "runner.rendezvous")
"""Keys that torchrun and accelerate have flags for."""


def start_lines(runner: Runner, typed: Sequence[str], of_plan: Container[str]) -> tuple[str, ...]:
    """Commands that start the run which `typed`, the words of `lmctl plan`, describe; `of_plan`: keys that only a plan
    has. Empty for a single process."""
    if not isinstance(runner, Launched) or runner.world() == 1:
        return ()
    words = [word for word in typed if word.partition("=")[0] not in of_plan]
    return tuple(_lines(runner, words))


def _lines(runner: Launched, words: Sequence[str]) -> Iterator[str]:
    if runner.submits():
        yield f"lmctl train {shlex.join(words)}"
        return
    nodes, each = runner.nodes, runner.per_node()
    host, _, port = (runner.rendezvous or f"HOST:{PORT}").rpartition(":")
    own = [word for word in words if not word.startswith(("runner.node_rank=", "runner.rendezvous="))]
    if nodes > 1:
        own += ["runner.node_rank=R", f"runner.rendezvous={host}:{port}"]
    yield f"lmctl train {shlex.join(own)}"
    rest = shlex.join([word for word in words if word.partition("=")[0] not in OF_LAUNCHERS])
    where = f"--nnodes={nodes} --node-rank=R --master-addr={host} --master-port={port}" if nodes > 1 else "--standalone"
    yield f"torchrun {where} --nproc-per-node={each} -m lmctl train {rest}"
    if not runner.on_cpu():
        where = f"--machine_rank=R --main_process_ip={host} --main_process_port={port} " if nodes > 1 else ""
        yield (
            f"accelerate launch --multi_gpu --num_machines={nodes} --num_processes={nodes * each} {where}"
            f"-m lmctl train {rest}"
        )


def notes(runner: Runner) -> Iterator[str]:
    """What the commands leave open."""
    if isinstance(runner, Launched) and runner.nodes > 1 and not runner.submits():
        yield f"on each node, R being 0 to {runner.nodes - 1}, and HOST the node where it is 0; one run_dir for all"
    if isinstance(runner, Launched) and runner.world() > 1 and runner.on_cpu() and not runner.submits():
        yield "accelerate launch starts several processes on GPUs only"
