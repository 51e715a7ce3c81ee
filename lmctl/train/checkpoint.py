"""Checkpoints of a run: written atomically, verified when they are read, and removed when newer ones are there.

Writing: everything goes into a temporary directory; files are fsynced; a manifest with sizes and sha256 follows;
then one rename makes it a checkpoint. Only after that are older ones removed. Reading (`checkpoint_reader.py`): the
manifest is verified; a checkpoint that fails is set aside as `broken-...`, and the one before it is used.

    checkpoints/step-00000200/
        model.safetensors   weights; or a file for each shard of them (`shard_files.py`)
        state.pt            optimiser, scaler, position, identity of the run
        rank-0.pt ...       random generators, one file per process
        manifest.json
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from lmctl.config.schema import Checkpointing
from lmctl.core import progress
from lmctl.core.errors import DiskError
from lmctl.core.files import digest, disk_error, is_disk_error, sync_folder, write_text
from lmctl.core.shards import is_sharded
from lmctl.parallel.disks import Disks
from lmctl.parallel.processes import Processes
from lmctl.train.checkpoint_files import Archive, Contents, Tensors
from lmctl.train.checkpoint_reader import FORMAT, MANIFEST, NAME, STATE, WEIGHTS, pointer, verify
from lmctl.train.shard_files import contents as shard_contents
from lmctl.train.shard_files import split

ALL_SEE = Disks()
"""All processes see the same folder."""
REPLACED = ".partial-replaced-"
"""Prefix of a checkpoint in whose place another one of the same step is put."""


class Checkpoints:
    """The checkpoints of one run. Every process writes its own file; the first one does the rest."""

    def __init__(
        self,
        root: Path,
        keep: int,
        rank: int = 0,
        anywhere: Callable[[bool], bool] = lambda failed: failed,
        background: bool = False,
        disks: Disks = ALL_SEE,
    ) -> None:
        """`anywhere(failed)` tells every process whether it failed in any of them; all of them wait for it. In the
        `background` another thread writes and calls it, from copies. `disks`: who sees `root` of rank 0."""
        self.root, self.keep, self.rank, self.anywhere, self.background = root, keep, rank, anywhere, background
        self.disks = disks
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[Path] | None = None

    @classmethod
    def of(cls, root: Path, how: Checkpointing, processes: Processes) -> Checkpoints:
        """Those of a run with several processes. A collective operation."""
        anywhere = processes.vote() if how.background else lambda failed: any(processes.sum([failed]))
        return cls(root, how.keep, processes.rank, anywhere, how.background, processes.disks)

    def save(
        self, step: int, weights: dict[str, Tensor], state: dict[str, Any], own: dict[str, Any], best: int | None = None
    ) -> Path:
        """Write one checkpoint; that of the step `best`, if there is one, is kept until a better one comes.

        If any part of it fails in any process, nothing has changed and all raise: a `DiskError` where it is the disk's
        fault, otherwise the error as it is. In the background that is raised by `wait`, which is called here first.
        """
        self.wait()
        kept, sharded = split(state)
        mine: dict[str, Contents] = {f"rank-{self.rank}.pt": Archive(own)}
        firsts: dict[str, Contents] = {STATE: Archive(kept)}
        if any(map(is_sharded, weights.values())):
            mine |= shard_contents(weights, sharded)
        elif self.rank == 0:
            firsts[WEIGHTS] = Tensors(_untied(weights))
        if not self.background:
            return self._written(step, mine, firsts, best)
        mine = {name: one.copied() for name, one in mine.items()}
        firsts = {name: one.copied() for name, one in firsts.items()} if self.rank == 0 else {}
        self._writing = self._writer.submit(self._written, step, mine, firsts, best)
        return self.path(step)

    def wait(self) -> None:
        """Wait until nothing is being written; raises what stopped it."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _written(
        self, step: int, mine: Mapping[str, Contents], firsts: Mapping[str, Contents], best: int | None
    ) -> Path:
        """Write the files of this process, and in the first one those of all."""
        final, partial = self.path(step), self.root / f".partial-step-{step:08d}"
        first, leads = self.rank == 0, self.disks.leads
        problem = self._attempt(lambda: self._begin(partial), None, first or leads)
        problem = self._attempt(lambda: _write(partial, mine), problem)
        if self.disks.apart:
            problem = self._attempt(lambda: self.disks.collect(partial, mine), problem)
        problem = self._attempt(lambda: self._finish(partial, final, step, firsts, best), problem, first)
        if leads or (first and problem is not None):
            shutil.rmtree(partial, ignore_errors=True)
        if problem is not None:
            if is_disk_error(problem):
                raise _not_written(final, problem) from problem
            raise problem
        return final

    def _attempt(
        self, act: Callable[[], None], problem: BaseException | None, here: bool = True
    ) -> BaseException | None:
        """Act, if it is to be done `here` and all has gone well in all processes; returns what has gone wrong."""
        if problem is None and here:
            try:
                act()
            except Exception as error:  # whatever it is, the other processes wait to be told
                problem = error
        progress.beat()
        if self.anywhere(problem is not None) and problem is None:
            problem = OSError("another process could not write its part")
        return problem

    def sound(self, warn: Callable[[str], None]) -> Iterator[Path]:
        """The checkpoints whose manifests hold, newest first; damaged ones are set aside with a warning."""
        self._clean()
        for path in reversed(self._all()):
            damage = verify(path)
            if damage is None:
                yield path
            else:
                warn(f"checkpoint {path.name} is damaged ({damage}); using the one before it")
                self.set_aside(path)

    def set_aside(self, path: Path) -> None:
        """Rename a checkpoint that cannot be used; nothing is deleted."""
        os.rename(path, _free_name(path, "broken"))

    def rewind(self, step: int) -> None:
        """Set aside what was saved after `step`: the run goes on from there another time."""
        for path in self._all():
            if _step(path) > step:
                os.rename(path, _free_name(path, "undone"))

    def path(self, step: int) -> Path:
        """Where the checkpoint of `step` lies, if there is one."""
        return self.root / f"step-{step:08d}"

    def named(self, which: str) -> str | None:
        """The checkpoint that `latest` or `best` names."""
        return pointer(self.root, which)

    def _begin(self, partial: Path) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._clean()
        partial.mkdir()

    def _clean(self) -> None:
        """Undo a replacement that was killed between its two renames, and remove what a kill has left."""
        for replaced in self.root.glob(f"{REPLACED}*"):
            if not (path := self.root / replaced.name.removeprefix(REPLACED)).exists():
                os.rename(replaced, path)
        for leftover in self.root.glob(".partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _finish(self, partial: Path, final: Path, step: int, firsts: Mapping[str, Contents], best: int | None) -> None:
        _write(partial, firsts)
        self._commit(partial, final, step)
        write_text(self.root / "latest", final.name + "\n")
        # A run that went back to an earlier checkpoint also went back to what was the best one then.
        if best is not None and (kept := self.path(best)).is_dir() and kept.name != self.named("best"):
            write_text(self.root / "best", kept.name + "\n")
        self._prune()

    def _commit(self, partial: Path, final: Path, step: int) -> None:
        files = {path.name: {"size": path.stat().st_size, "sha256": digest(path)} for path in sorted(partial.iterdir())}
        write_text(partial / MANIFEST, json.dumps({"format": FORMAT, "step": step, "files": files}, indent=1))
        sync_folder(partial)
        if final.exists():
            os.rename(final, self.root / f"{REPLACED}{final.name}")
        os.rename(partial, final)
        sync_folder(self.root)

    def _all(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return sorted((path for path in self.root.iterdir() if path.is_dir() and NAME.fullmatch(path.name)), key=_step)

    def _prune(self) -> None:
        best = self.named("best")
        old = [path for path in self._all()[: -self.keep] if path.name != best]
        for path in old:  # first of all it loses its name, so that a kill leaves no half of a checkpoint
            with suppress(OSError):
                os.rename(path, self.root / f".partial-old-{path.name}")
        for path in self.root.glob(".partial-*"):
            shutil.rmtree(path, ignore_errors=True)


def _write(folder: Path, files: Mapping[str, Contents]) -> None:
    for name, contents in files.items():
        contents.write(folder / name)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _untied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU copies; of tensors that share memory only the first name stays (safetensors refuses more)."""
    seen: set[tuple[int, Any]] = set()
    kept = {}
    for name, tensor in weights.items():
        place = (tensor.data_ptr(), tensor.storage_offset())
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        kept[name] = tensor.detach().cpu().contiguous()
    return kept


def _not_written(path: Path, problem: BaseException) -> DiskError:
    error = disk_error(path, problem)
    return DiskError(f"{error}; earlier checkpoints are intact", error.hint)


def _free_name(path: Path, why: str) -> Path:
    number = 0
    while (candidate := path.with_name(f"{why}-{path.name}" + (f"-{number}" if number else ""))).exists():
        number += 1
    return candidate
