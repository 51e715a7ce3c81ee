"""Resuming: the choice of the checkpoint, and loading it into the trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.paths import Paths
from lmctl.core.run_summary import RunSummary
from lmctl.plan import Plan
from lmctl.train.allowed_changes import adapted
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_copies import at_hand
from lmctl.train.checkpoint_reader import Contents, Damaged, check_named, is_out_of_memory, read
from lmctl.train.run_identity import Identity, refuse
from lmctl.train.trainer import Trainer

MOMENTS = frozenset({"exp_avg", "exp_avg_sq", "momentum_buffer", "state1", "state2"})
"""What optimisers keep for each weight, by the names that torch and bitsandbytes give it."""


def resume(plan: Plan, paths: Paths, trainer: Trainer, identity: Identity, say: Callable[[str], None]) -> bool:
    """Load the checkpoint to resume from, if there is one; returns whether the run is complete already. A collective
    operation."""
    if plan.resume == "false":
        return False
    loading = _Loading(plan, paths, trainer, identity, say)
    loaded = loading.newest() if plan.resume == "auto" else loading.named(Path(plan.resume))
    if loaded is None:
        say(f"resume: no checkpoint in {paths.checkpoints}, starting at step 0")
        return False
    patience = plan.early_stop.patience
    over = trainer.spent() >= 1 or (patience is not None and trainer.state.stale >= patience)
    if over and RunSummary.of(paths).is_complete and paths.model.is_dir():
        say(f"{paths.root} is complete ({trainer.state.step:,} steps); a larger budget.* goes on with it")
        return True
    say(f"resume: {loaded.name} of {paths.root}")
    return False


@dataclass(frozen=True)
class _Loading:
    """Loads a checkpoint into the trainer, in all processes or in none."""

    plan: Plan
    paths: Paths
    trainer: Trainer
    identity: Identity
    say: Callable[[str], None]

    def newest(self) -> Path | None:
        """Load the newest checkpoint that can be loaded. One whose checksums are right and whose contents are not is
        set aside when an older one was loaded, so that a fault of this version sets aside nothing."""
        processes, store = self.trainer.processes, self._store()
        sound = store.sound(self.say)  # rank 0 verifies, the others read what it found sound
        failed: list[tuple[Path, str]] = []
        while (path := processes.broadcast(processes.first_does(lambda: next(sound, None)))) is not None:
            problem = self._load(path)
            if problem is None:
                for bad, why in failed:
                    self.say(f"checkpoint {bad.name} cannot be used ({why}); using one before it")
                    processes.first_does(lambda bad=bad: store.set_aside(bad))  # type: ignore[misc]
                return path
            failed.append((path, problem))
        if failed:
            path, problem = failed[0]
            raise ConfigError(
                f"resume: {path} cannot be used: {problem}", "no other is there; start a new run with another name=..."
            )
        return None

    def named(self, path: Path) -> Path:
        """Load the checkpoint that the user named, and set aside those after it."""
        self.trainer.processes.first_does(lambda: check_named(path))
        problem = self._load(path)
        if problem is not None:
            raise ConfigError(f"resume={path}: damaged, {problem}", "resume=auto takes the newest sound one")
        step = self.trainer.state.step
        self.trainer.processes.first_does(lambda: self._store().rewind(step))
        return path

    def _store(self) -> Checkpoints:
        return Checkpoints(self.paths.checkpoints, self.plan.checkpoint.keep)

    def _load(self, path: Path) -> str | None:
        """Load a checkpoint of rank 0's; returns what is wrong with it if that failed in any process."""
        processes, problem = self.trainer.processes, None
        with at_hand(path, self.paths.checkpoints, processes) as found:
            try:
                self._load_here(read(found))
            except Damaged as error:
                problem = str(error)
            failed = processes.sum([problem is not None])[0]
        return problem or ("another process could not load it" if failed else None)

    def _load_here(self, contents: Contents) -> None:
        """Load it in this process; `Damaged` if its contents are not those of a checkpoint of this run."""
        processes, trainer = self.trainer.processes, self.trainer
        try:
            saved = Identity.from_state(contents.state.get("identity"))
        except ValueError as error:
            raise Damaged(str(error)) from None
        changes = self.identity.changes(saved)
        refuse(changes, self.plan.resume_allow)
        own = contents.of_rank(processes.rank) if saved.world == processes.world else None
        if saved.world == processes.world and not isinstance((own or {}).get("random"), dict):
            raise Damaged(f"it has no random generators of process {processes.rank}")
        foreign = own is not None and _is_foreign(own.get("exchange"), trainer.strategy.state_dict())
        if own is not None and foreign:
            own["exchange"] = None
        others = contents.carried() if own is None else None
        try:
            found = adapted(trainer, contents.state, own, others, changes)
            trainer.load(contents.weights, found.state, found.own, found.others)
            _check_moments(trainer.step.optimizer)
            if contents.path.name != f"step-{trainer.state.step:08d}":
                raise ValueError(f"it says that it is of step {trainer.state.step:,}")
        except (
            LmctlError,
            ArithmeticError,
            AttributeError,
            IndexError,
            KeyError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            if is_out_of_memory(error):
                raise
            if changes:
                allowed = ", ".join(dict.fromkeys(change.name for change in changes))
                raise ConfigError(
                    f"resume: the checkpoint does not fit what was changed ({allowed}): {_first_line(error)}",
                    "resume.allow cannot help here; start a new run with another name=...",
                ) from error
            raise Damaged(_first_line(error)) from error
        for line in found.said:
            self.say(f"resume: {line}")
        if foreign and not changes:
            self.say("resume: what the workers had not sent yet is dropped")
        if saved.world != processes.world:
            self.say(
                f"resume: {processes.world} processes now, {saved.world} before: same rows in the same order, "
                "but other dropout, so not bit-exact"
                + ("; what the workers had not sent yet is dropped" if trainer.strategy.state_dict() else "")
            )


def _is_foreign(unsent: Any, fresh: Mapping[str, Any]) -> bool:
    """Whether what a worker had not sent was kept by another runner, which may change when a run goes on. `fresh`: what
    this one keeps."""
    return isinstance(unsent, dict) and bool(unsent) and unsent.keys().isdisjoint(fresh)


def _check_moments(optimizer: Optimizer) -> None:
    """ValueError if a moment has not the size of its weights, which the optimiser would notice in its first step.
    Stand-ins of stored weights have none."""
    for weight, state in optimizer.state.items():
        for name in MOMENTS & state.keys():
            if weight.numel() and state[name].numel() != weight.numel():
                raise ValueError(f"its optimiser's {name} has {state[name].numel():,} numbers, not {weight.numel():,}")


def _first_line(error: Exception) -> str:
    """The first line of an error, with its class where the message is a mere word."""
    text = next(iter(str(error).splitlines()), "")[:200].removeprefix("resume: ")
    return text if isinstance(error, LmctlError | ValueError | RuntimeError) else f"{type(error).__name__} {text}"
