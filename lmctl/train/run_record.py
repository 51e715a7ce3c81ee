"""The run directory: lock, config, environment, metrics and summary. Only rank 0 writes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmctl import __version__
from lmctl.config.saved import config_text
from lmctl.core.errors import ConfigError
from lmctl.core.files import disk_error, sync_file, write_json, write_text
from lmctl.core.paths import Paths
from lmctl.core.secrets import masked

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "hydra-core", "omegaconf", "safetensors")


OURS = (".lock", "log.txt")
"""Files that may be in a run directory before the run: its lock, and a sweep's log of the job."""


def claim(paths: Paths) -> FileLock:
    """Create and lock the run directory, for as long as this process lives."""
    try:
        paths.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(paths.lock)
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"run_dir={paths.root}: another run is writing there now", "wait for it, or choose another name=..."
        ) from None
    except OSError as error:
        raise disk_error(paths.root, error) from error
    return lock


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


def refuse_existing(paths: Paths) -> None:
    """ConfigError if a directory has contents: nothing is overwritten."""
    if not paths.root.exists() or all(entry.name in OURS for entry in paths.root.iterdir()):
        return
    if not paths.config.exists():
        raise ConfigError(f"run_dir={paths.root} exists and is not empty", "choose another name=... or run_dir=...")
    status = summary_of(paths).get("status", "unfinished")
    raise ConfigError(
        f"run_dir={paths.root} already holds a run ({status})",
        "resume=auto goes on with it; another name=... starts a new one",
    )


def summary_of(paths: Paths) -> dict[str, Any]:
    """summary.json of a run, or {}."""
    try:
        return json.loads(paths.summary.read_text())
    except (OSError, ValueError):
        return {}


class Record:
    """Writes config, environment, metrics and summary of one run."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    def begin(self, config: dict[str, Any], fingerprints: dict[str, str], machine: dict[str, Any], keep: int) -> None:
        """Write config and environment; metrics after byte `keep` are cut off, because their steps are repeated."""
        header = "# The whole config of this run: `lmctl train --from <this file>` repeats it.\n"
        write_text(self.paths.config, header + config_text(config))
        write_json(self.paths.environment, environment(machine) | {"fingerprints": fingerprints})
        with open(self.paths.metrics, "ab") as handle:
            handle.truncate(min(keep, handle.tell()))

    def log(self, line: dict[str, Any]) -> int:
        """Append one line to metrics.jsonl; returns the new file size in bytes."""
        try:
            with open(self.paths.metrics, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")
                return handle.tell()
        except OSError as error:
            raise disk_error(self.paths.metrics, error) from error

    def sync(self) -> None:
        """fsync metrics.jsonl, whose size a checkpoint is about to record."""
        sync_file(self.paths.metrics)

    def finish(self, summary: dict[str, Any]) -> None:
        write_json(self.paths.summary, summary)


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
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    """Git commit of the checkout that lmctl runs from, if there is one."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
