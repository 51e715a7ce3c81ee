"""Node-local storage: files of a run whose nodes share no file system (`runner.shared_run_dir=false`).

Each node has a run directory on a disk of its own, and that of rank 0 is the run: what other nodes write for a
checkpoint is sent there before the checkpoint is committed, and what they read of one comes from there. So it alone is
enough to go on, with any number of nodes. Files cross the network in a gloo group of their own, because a checkpoint
may be written in the background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist

from lmctl.core import progress
from lmctl.core.files import sync_file

CHUNK = 16 << 20
"""Bytes of a file that are sent at once."""
END, UNREADABLE = 0, -1
"""Sent in the place of a chunk's size."""


class Disks:
    """Which processes see the run directory of rank 0, and the way of files to and from those that do not."""

    def __init__(self, rank: int = 0, apart: Mapping[int, list[int]] = MappingProxyType({}), group: Any = None) -> None:
        """`apart`: the processes that do not see it, by the first one on the same disk; where there are none, nothing
        is sent. `group`: a gloo group of all processes."""
        self.rank, self.apart, self.group = rank, apart, group

    @property
    def leads(self) -> bool:
        """Whether this is the first process on a disk that is not rank 0's."""
        return self.rank in self.apart

    @property
    def is_apart(self) -> bool:
        """Whether this process does not see the run directory of rank 0."""
        return any(self.rank in ranks for ranks in self.apart.values())

    def collect(self, folder: Path, names: Iterable[str]) -> None:
        """Send the files `names` in `folder` to the same folder of rank 0, from every process that does not see it. A
        collective operation; OSError where a file could not be read or written."""
        for rank in sorted(chain(*self.apart.values())):
            if self.rank == rank:
                self._send(folder, list(names), to=0)
            elif self.rank == 0:
                self._receive(folder, source=rank)

    def fetch(self, folder: Path, copy: Path, needed: Callable[[list[int]], list[str]]) -> None:
        """Send files in `folder` of rank 0 to the folder `copy` on every other disk; `needed`: their names, by the
        processes there. A collective operation; OSError where a file could not be read or written."""
        for leader, ranks in self.apart.items():
            if self.rank == 0:
                self._send(folder, needed(ranks), to=leader)
            elif self.rank == leader:
                self._receive(copy, source=0)

    def _send(self, folder: Path, names: list[str], to: int) -> None:
        dist.send_object_list([names], to, self.group)
        _raise_first([self._send_file(folder / name, to) for name in names])

    def _receive(self, folder: Path, source: int) -> None:
        names: list[Any] = [None]
        dist.recv_object_list(names, source, self.group)
        _raise_first([self._receive_file(folder / name, source) for name in names[0]])

    def _send_file(self, file: Path, to: int) -> OSError | None:
        """Send a file, or as much of it as can be read; returns the error."""
        size, problem, buffer = torch.zeros(1, dtype=torch.int64), None, bytearray(CHUNK)
        try:
            with open(file, "rb", buffering=0) as contents:
                while count := contents.readinto(buffer):
                    dist.send(size.fill_(count), to, self.group)
                    dist.send(torch.frombuffer(buffer, dtype=torch.uint8, count=count), to, self.group)
                    progress.beat()
        except OSError as error:
            problem = error
        dist.send(size.fill_(END if problem is None else UNREADABLE), to, self.group)
        return problem

    def _receive_file(self, file: Path, source: int) -> OSError | None:
        """Receive a file to its end, even if it cannot be written; returns the error."""
        chunks = self._chunks(source)
        try:
            with open(file, "xb", buffering=0) as contents:
                for chunk in chunks:
                    contents.write(chunk)
            sync_file(file)
        except OSError as error:
            with suppress(OSError):
                for _ in chunks:
                    continue
            return error
        return None

    def _chunks(self, source: int) -> Iterator[memoryview]:
        """The chunks of a file as they come; OSError if the other process could not read all of it."""
        size = torch.zeros(1, dtype=torch.int64)
        while True:
            dist.recv(size, source, self.group)
            count = int(size)
            if count in (END, UNREADABLE):
                break
            chunk = torch.empty(count, dtype=torch.uint8)
            dist.recv(chunk, source, self.group)
            progress.beat()
            yield chunk.numpy().data
        if count == UNREADABLE:
            raise OSError("a file could not be read on another node")


def _raise_first(problems: list[OSError | None]) -> None:
    """Raise the first problem, once all files have passed: nobody waits for the rest of one."""
    for problem in problems:
        if problem is not None:
            raise problem
