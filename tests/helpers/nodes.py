"""Several nodes on this machine: a launcher process for each, with an environment, a folder and a cache of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from command import SMALL, command, environment, metrics, write_documents

PLACE = [word for word in SMALL if not word.startswith("runner=")]
LIMIT = 240
DDP = ["runner=ddp", "runner.device=cpu", "runner.processes=1"]
SHORT = ["budget.steps=6", "checkpoint.every=2", "eval.every=null", "log.every=1"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


class Nodes:
    """The launchers of one run, one for each node."""

    def __init__(self, folders: Sequence[Path], *words: str, bare: bool = False, processes: int = 1) -> None:
        """`folders`: where each node's command runs, and has its cache. `bare`: no other words than `words`."""
        self.words = list(words) if bare else [*PLACE, *DDP, *SHORT, f"runner.processes={processes}", *words]
        self.processes = processes
        self.meeting = f"runner.rendezvous=localhost:{free_port()}"
        self.folders = folders
        self.launchers = list[subprocess.Popen[str]]()

    def start(self, *words: Sequence[str]) -> Nodes:
        """Start them all; `words`: more for each of them."""
        for rank, folder in enumerate(self.folders):
            own = words[rank] if rank < len(words) else ()
            several = [f"runner.nodes={len(self.folders)}", f"runner.node_rank={rank}", self.meeting]
            self.launchers.append(self._started(command("train", *self.words, *several, *own), folder))
        return self

    def torchrun(self) -> Nodes:
        """The same by torchrun."""
        for rank, folder in enumerate(self.folders):
            _, _, port = self.meeting.rpartition(":")
            several = [f"--nnodes={len(self.folders)}", f"--node-rank={rank}", f"--nproc-per-node={self.processes}"]
            python, _, *rest = command("train", *self.words)
            words = ["-m", "torch.distributed.run", *several, "--master-addr=localhost", f"--master-port={port}", "-m"]
            self.launchers.append(self._started([python, *words, *rest], folder))
        return self

    def _started(self, words: list[str], folder: Path) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        own = environment(folder / "cache", CUDA_VISIBLE_DEVICES="")
        pipe = subprocess.PIPE
        return subprocess.Popen(
            words, cwd=folder, env=own, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def ended(self, limit: float = LIMIT) -> list[tuple[int, str]]:
        """Exit code and messages of each node."""
        try:
            said = [launcher.communicate(timeout=limit)[1] for launcher in self.launchers]
        finally:
            for launcher in self.launchers:
                if launcher.poll() is None:
                    kill(launcher.pid)
        return [(launcher.returncode, words) for launcher, words in zip(self.launchers, said, strict=True)]

    def errors(self) -> str:
        """What all nodes together say of an error; each must end with one."""
        ends = self.ended()
        assert all(code for code, _ in ends), ends
        said = "".join(words for _, words in ends)
        assert "Traceback" not in said, said
        return said[said.find("error: ") :]


def two_folders(home: Path) -> list[Path]:
    """A folder for each of two nodes, with the same text."""
    folders = [home / "a", home / "b"]
    for folder in folders:
        folder.mkdir()
        write_documents(folder / "docs.txt")
    return folders


def one_node(folder: Path, *words: str) -> Path:
    """The run directory of the same run, undisturbed, of a single node."""
    run = folder.parent / "undisturbed"
    words = (*PLACE, *DDP, *SHORT, *words, f"run_dir={run}")
    own = environment(folder.parent / "cache", CUDA_VISIBLE_DEVICES="")  # not that of a node
    subprocess.run(command("train", *words), cwd=folder, env=own, check=True, timeout=LIMIT)
    return run


def wait_for_step(nodes: Nodes, run: Path, step: int) -> None:
    """Wait until the record of a run has this step."""
    deadline = time.monotonic() + LIMIT
    while not _has_stepped(run, step):
        assert all(launcher.poll() is None for launcher in nodes.launchers), nodes.ended()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _has_stepped(run: Path, step: int) -> bool:
    try:
        return any(line["step"] >= step for line in metrics(run))
    except (OSError, ValueError):
        return False


def weights(run: Path) -> bytes:
    """The file of the finished model's weights."""
    return (run / "model" / "model.safetensors").read_bytes()


def workers_of(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(launcher.pid).children(recursive=True)


def kill(pid: int) -> None:
    """SIGKILL for a process and all that it has started."""
    tree = [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
    for process in tree:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
