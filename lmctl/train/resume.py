"""Resuming: checks of the run directory, its lock, and the choice of the checkpoint to load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from lmctl.config.saved import recorded_config, resolved
from lmctl.core.command_words import setting
from lmctl.core.errors import ConfigError
from lmctl.core.paths import Paths
from lmctl.plan import Plan
from lmctl.train.run_identity import Identity, same_config
from lmctl.train.run_record import claim, missing_folders, refuse_existing, release_unused, summary_of

if TYPE_CHECKING:
    from lmctl.parallel.processes import Processes
    from lmctl.train.checkpoint import Contents
    from lmctl.train.trainer import Trainer


def check_folder(plan: Plan, paths: Paths) -> None:
    """ConfigError if the run directory has a run that `resume` does not allow to continue."""
    if plan.resume == "false" or (plan.resume == "auto" and not paths.config.exists()):
        refuse_existing(paths)
    elif plan.resume != "auto":
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
    """The checks of `Identity.must_match` on the config, before any text is read."""
    if plan.resume == "false" or not paths.config.exists() or not any(paths.checkpoints.glob("step-*")):
        return
    same_config(resolved(recorded_config(paths)), resolved(cfg))


@contextmanager
def claimed(plan: Plan, paths: Paths, processes: Processes) -> Iterator[None]:
    """Lock the run directory for this run: rank 0 holds the lock until the end or an error, and removes the directory
    if nothing was written into it. A collective operation."""

    def alone() -> Any:
        lock = claim(paths)
        check_folder(plan, paths)  # again, under the lock
        return lock

    made = missing_folders(paths.root)
    lock = processes.first_does(alone)
    try:
        yield
    except BaseException:
        if lock is not None:
            release_unused(paths, lock, made)
        raise
    if lock is not None:
        lock.release()


def resume(plan: Plan, paths: Paths, trainer: Trainer, identity: Identity, say: Callable[[str], None]) -> bool:
    """Load the checkpoint to resume from, if there is one; returns whether the run is complete already. A collective
    operation."""
    if plan.resume == "false":
        return False
    processes = trainer.processes
    contents = _found(plan, paths, processes, say)
    if contents is None:
        say(f"resume: no checkpoint in {paths.checkpoints}, starting at step 0")
        return False
    saved = contents.state["identity"]
    identity.must_match(saved)
    own = contents.of_rank(processes.rank) if saved["world"] == processes.world else None
    if saved["world"] != processes.world:
        say(
            f"resume: {processes.world} processes now, {saved['world']} before: same rows in the same order, "
            "but other dropout, so not bit-exact"
            + ("; what compression had not sent yet is dropped" if trainer.strategy.state_dict() else "")
        )
    others = contents.carried() if own is None else None
    trainer.load(contents.weights, contents.state, own, others)
    patience = plan.early_stop.patience
    over = trainer.spent() >= 1 or (patience is not None and trainer.state.stale >= patience)
    if over and summary_of(paths).get("status") == "completed":
        say(f"{paths.root} is complete ({trainer.state.step:,} steps); a larger budget.* goes on with it")
        return True
    say(f"resume: {contents.path.name} of {paths.root}")
    return False


def _found(plan: Plan, paths: Paths, processes: Processes, say: Callable[[str], None]) -> Contents | None:
    """The named checkpoint, or the newest valid one; None if there is none."""
    from lmctl.train.checkpoint import Checkpoints, read_named

    store = Checkpoints(paths.checkpoints, plan.checkpoint.keep)
    if plan.resume != "auto":
        contents = read_named(Path(plan.resume))
        processes.first_does(lambda: store.rewind(contents.state["progress"]["step"]))
        return contents
    # Rank 0 verifies checkpoints and sets damaged ones aside; the others read the one it found valid.
    newest = processes.first_does(lambda: store.newest(say))
    path = processes.broadcast(newest.path if newest else None)
    if processes.first:
        return newest
    return read_named(path) if path else None
