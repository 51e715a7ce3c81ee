"""Resuming: checks of the run directory before anything is read, and its lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from lmctl.config.saved import recorded_config, resolved
from lmctl.core.command_words import setting
from lmctl.core.errors import ConfigError
from lmctl.core.paths import Paths
from lmctl.core.regular_files import refuse_links
from lmctl.plan import Plan
from lmctl.train.run_identity import changed_keys, check_names, refuse
from lmctl.train.run_record import claim, missing_folders, refuse_existing, release_unused

if TYPE_CHECKING:
    from lmctl.parallel.processes import Processes


def check_folder(plan: Plan, paths: Paths, of_first: bool = True) -> None:
    """ConfigError if the run directory has a run that `resume` does not allow to continue, or links. `of_first`:
    whether it is that of rank 0, which has the checkpoints."""
    refuse_links(paths)
    if plan.resume == "false" or (plan.resume == "auto" and not paths.config.exists()):
        refuse_existing(paths)
    elif plan.resume != "auto" and of_first:
        checkpoint = Path(plan.resume)
        if not checkpoint.is_dir():
            raise ConfigError(
                f"resume={plan.resume}: no such checkpoint directory", "resume=auto, resume=false, or a directory"
            )
        if checkpoint.resolve().parent != paths.checkpoints.resolve():
            raise ConfigError(
                f"resume={plan.resume} is not a checkpoint of run_dir={paths.root}",
                f"go on in its own run: {setting('run_dir', str(checkpoint.parent.parent))}",
            )


def check_config(plan: Plan, paths: Paths, cfg: DictConfig) -> None:
    """The checks of the run's identity that its config allows, before any text is read."""
    if plan.resume == "false" or not paths.config.exists() or not any(paths.checkpoints.glob("step-*")):
        return
    before, now = resolved(recorded_config(paths)), resolved(cfg)
    check_names(plan.resume_allow, before, now)
    refuse(changed_keys(before, now), plan.resume_allow)


@contextmanager
def claimed(plan: Plan, paths: Paths, processes: Processes, here: bool) -> Iterator[None]:
    """Lock the run directory for this run, in the processes that are to do so (`here`): they hold the lock until the
    end or an error, and remove the directory if nothing was written into it. A collective operation."""

    def alone() -> Any:
        if not here:
            return None
        lock = claim(paths)
        check_folder(plan, paths, processes.first)  # again, under the lock
        return lock

    made = missing_folders(paths.root)
    lock = processes.all_do(alone)
    try:
        yield
    except BaseException:
        if lock is not None:
            release_unused(paths, lock, made)
        raise
    if lock is not None:
        lock.release()
