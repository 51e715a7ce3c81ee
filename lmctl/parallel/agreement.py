"""What all processes of a run must have in common, compared when it starts: versions, config, data, run directory.

Otherwise the nodes of a run would average gradients of different models or texts without a word, or wait for each other
forever. No clock is compared and none counts: the run's name is that of rank 0.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from lmctl import __version__
from lmctl.config.groups import TrainConfig
from lmctl.config.keys import keys_of
from lmctl.core.errors import ConfigError
from lmctl.core.paths import IsPlace, Paths
from lmctl.parallel.disks import Disks
from lmctl.parallel.processes import Processes

OF_A_NODE = (
    *("name", "run_dir", "cache_dir"),
    *("runner.node_rank", "runner.rendezvous", "runner.processes"),
)
"""Keys that each node may set in its own way: what counts is said by rank 0, or by the launcher."""
OF_RANK_0 = "tracker."
"""Keys that rank 0 alone uses."""
SEEN_SECONDS = 10.0
"""How long a file that another node wrote may take to appear: network file systems keep listings for some seconds."""
LOCAL_SECONDS = 1.0
"""The same where the folder is said to be the node's own."""


def check_config(processes: Processes, config: Mapping[str, Any]) -> None:
    """ConfigError, in all processes, if they do not have the same versions and the same resolved `config`. Paths are
    not compared: their contents are, by `check_data`. A collective operation."""
    _compare(processes, versions(), "install the same versions on all nodes")
    _compare(processes, settings(config), "start the same command on all nodes")


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers and messages."""
    libraries = {"torch": torch.__version__.partition("+")[0], "transformers": transformers.__version__}
    return {"lmctl": __version__, "Python": ".".join(platform.python_version_tuple()[:2]), **libraries}


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a resolved config that all processes must share, as JSON by their dotted keys."""
    trusted = tuple(map(str, config.get("trusted") or ()))
    keys = [key for key in keys_of(config, TrainConfig, trusted) if IsPlace not in key.marks]
    own = {key.name: json.dumps(key.value) for key in keys if not isinstance(key.value, dict) or not key.value}
    own["resume"] = json.dumps(config.get("resume"))
    return {name: value for name, value in own.items() if name not in OF_A_NODE and not name.startswith(OF_RANK_0)}


def check_data(processes: Processes, fingerprints: Mapping[str, str]) -> None:
    """ConfigError, in all processes, if they do not have the same tokenizer and texts, by their `fingerprints`."""
    words = {name: "the tokenizer" if name == "tokenizer" else f"the text of {name}" for name in fingerprints}
    mine = {words[name]: value for name, value in fingerprints.items()}
    _compare(processes, mine, "all nodes need the same files (data.path=... may differ)")


def find_disks(processes: Processes, paths: Paths, shared: bool) -> Disks:
    """Which processes see what rank 0 writes into the run directory. ConfigError, in all of them, if it must be
    `shared` and a node does not see it. A collective operation."""
    nodes = processes.gathered(node())
    if len(set(nodes)) == 1:
        return Disks()
    token = processes.broadcast(secrets.token_hex(8) if processes.first else None)
    seen = paths.root / f".shared-{token}"
    processes.first_does(seen.touch)
    found = processes.gathered(_appears(seen, SEEN_SECONDS if shared else LOCAL_SECONDS))
    processes.first_does(lambda: seen.unlink(missing_ok=True))
    seeing = {nodes[rank] for rank, sees in enumerate(found) if sees}
    blind = dict[str, list[int]]()
    for rank, where in enumerate(nodes):
        if where not in seeing:
            blind.setdefault(where, []).append(rank)
    if blind and shared:
        raise ConfigError(
            f"run_dir={paths.root}: {next(iter(blind))} does not see what {nodes[0]} writes there",
            "choose a run_dir=... on a file system that all nodes share, or runner.shared_run_dir=false",
        )
    return Disks(processes.rank, {ranks[0]: ranks for ranks in blind.values()}, processes.new_group())


def _appears(file: Path, seconds: float) -> bool:
    """Whether `file` is there, or appears in time."""
    end = time.monotonic() + seconds
    while True:
        folder = file.parent
        if folder.is_dir() and file.name in os.listdir(folder):  # listing asks the server again, a look-up may not
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.2)


def node() -> str:
    """This node, for messages."""
    return f"node {os.environ.get('GROUP_RANK', '0')} ({socket.gethostname()})"


def _compare(processes: Processes, mine: dict[str, str], hint: str) -> None:
    """ConfigError about the first thing in which a process differs from rank 0."""
    first, *others = processes.gathered((node(), mine))
    for where, theirs in others:
        for name in sorted(first[1].keys() | theirs.keys()):
            if first[1].get(name) != theirs.get(name):
                raise ConfigError(_difference(name, where, theirs.get(name), first[0], first[1].get(name)), hint)


def _difference(name: str, where: str, theirs: str | None, first: str, ours: str | None) -> str:
    if name.startswith("the "):
        return f"{name} is not the same on {where} as on {first}"
    words = [f"{value or 'not set'} on {place}" for place, value in ((where, theirs), (first, ours))]
    return f"{name} is {' and '.join(words)}"
