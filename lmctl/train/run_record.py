"""The run directory: lock, config, environment, metrics and summary. Only rank 0 writes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from lmctl import __version__
from lmctl.config.saved import config_text
from lmctl.core.errors import ConfigError
from lmctl.core.files import disk_error, is_partial, write_json, write_text
from lmctl.core.paths import Paths
from lmctl.core.regular_files import refuse_links
from lmctl.core.run_summary import RunSummary
from lmctl.core.secrets import masked
from lmctl.core.signals import is_child
from lmctl.core.terminal import tell
from lmctl.tracker.base import Tracking
from lmctl.train.metrics_file import MetricsFile
from lmctl.train.tracking import Trackers

if TYPE_CHECKING:
    from lmctl.train.state import TrainState

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "hydra-core", "omegaconf", "safetensors")


OURS = (".lock", "log.txt", "job.json", "job")
"""What may be in a run directory before the run: its lock, a sweep's log of the job, and what a cluster was told."""


PATIENCE_SECONDS = 30.0
"""How long a job waits for the lock of the same job of before, which saves because its sweep was killed."""


def claim(paths: Paths) -> FileLock:
    """Create and lock the run directory, for as long as this process lives. ConfigError if another process has it, or
    if lmctl's files in it lead elsewhere."""
    try:
        paths.root.mkdir(parents=True, exist_ok=True)
        refuse_links(paths)
        lock = FileLock(paths.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not is_child():
                raise
            tell(f"{paths.root}: another run is writing there; waiting up to {PATIENCE_SECONDS:.0f} s for its end")
            lock.acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        raise ConfigError(
            f"run_dir={paths.root}: another run is writing there now", "wait for it, or choose another name=..."
        ) from None
    except OSError as error:
        raise disk_error(paths.root, error) from error
    _remove_leftovers(paths)
    return lock


def _remove_leftovers(paths: Paths) -> None:
    """Remove files that a killed process was about to put into their places; the lock says that none is at work."""
    for folder in (paths.root, paths.checkpoints, paths.plot.parent):
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.is_file() and (is_partial(entry.name) or entry.name == f".{paths.plot.name}"):
                with suppress(OSError):
                    entry.unlink()


def missing_folders(folder: Path) -> list[Path]:
    """`folder` and its parents that do not exist yet, innermost first."""
    return [one for one in (folder, *folder.parents) if not one.exists()]


def release_unused(paths: Paths, lock: FileLock, made: Sequence[Path]) -> None:
    """Unlock a run directory and remove it if nothing was written into it. `made`: the `missing_folders` of before."""
    try:
        if made and [entry.name for entry in paths.root.iterdir()] == [paths.lock.name]:
            paths.lock.unlink()  # while the lock is held, so that no other process has it
            for folder in made:
                folder.rmdir()
    except OSError:  # for example because another run uses the directory by now
        pass
    lock.release()


@contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Context manager: `claim` a directory, which is removed at the end if nothing was written into it."""
    made = missing_folders(paths.root)
    lock = claim(paths)
    try:
        yield
    finally:
        release_unused(paths, lock, made)


def refuse_existing(paths: Paths) -> None:
    """ConfigError if a directory has contents: nothing is overwritten."""
    if not paths.root.exists() or all(entry.name in OURS or is_partial(entry.name) for entry in paths.root.iterdir()):
        return
    if not paths.config.exists():
        raise ConfigError(f"run_dir={paths.root} exists and is not empty", "choose another name=... or run_dir=...")
    status = RunSummary.of(paths).status or "unfinished"
    raise ConfigError(
        f"run_dir={paths.root} already holds a run ({status})",
        "resume=auto goes on with it; another name=... starts a new one",
    )


class Record:
    """Writes config, environment, metrics and summary of one run, and tells its trackers."""

    def __init__(self, paths: Paths, tracking: Tracking, say: Callable[[str], None]) -> None:
        self.paths, self.metrics = paths, MetricsFile(paths.metrics)
        self.trackers = Trackers(tracking, paths, say)

    def begin(
        self, config: dict[str, Any], fingerprints: dict[str, str], machine: dict[str, Any], state: TrainState
    ) -> list[str]:
        """Write config and environment; metrics after the checkpoint that `state` is from are cut off, because their
        steps are repeated. Returns lines for people."""
        write_config(self.paths, config)
        write_json(self.paths.environment, environment(machine) | {"fingerprints": fingerprints})
        damage = self.metrics.begin(state.metrics_bytes, state.metrics_sha256, state.step)
        self.trackers.begin(config, state.step)
        return [] if damage is None else [damage]

    def write(self, line: dict[str, Any]) -> None:
        """Append a line to the metrics, and send it to the trackers."""
        self.metrics.append(line)
        self.trackers.log(line)

    def finish(self, summary: dict[str, Any]) -> None:
        write_json(self.paths.summary, summary)
        self.trackers.finish(summary["status"])


def write_config(paths: Paths, config: dict[str, Any]) -> None:
    header = "# The whole config of this run: `lmctl train --from <this file>` repeats it.\n"
    write_text(paths.config, header + config_text(config))


def environment(machine: dict[str, Any]) -> dict[str, Any]:
    """Versions, machine (from `lmctl.parallel.machine`) and commit, for reproducing the run."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "lmctl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **machine,
        "cpus": os.cpu_count(),
        "packages": versions,
        "command": ["lmctl", *map(masked, sys.argv[1:])],
        "git_commit": commit(),
    }


def commit() -> str | None:
    """Git commit of the checkout that lmctl runs from, if there is one."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
