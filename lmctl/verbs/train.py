"""`lmctl train`: from a composed config to a finished run directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from lmctl.core import stop
from lmctl.core.errors import ConfigError, OutOfMemory
from lmctl.core.places import Paths
from lmctl.core.words import command, setting
from lmctl.plan import Plan
from lmctl.run.unfinished import with_models

if TYPE_CHECKING:
    from lmctl.run.display import Display
    from lmctl.run.prepare import Prepared
    from lmctl.run.processes import Processes


def run(cfg: DictConfig) -> None:
    """Train here, or start the processes that do."""
    cfg = with_models(cfg)
    plan = Plan.from_config(cfg)
    paths = Paths(Path(plan.run_dir))
    from lmctl.run.display import Display, quiet_libraries
    from lmctl.run.prepare import prepare

    quiet_libraries()
    worker = _launched()
    if plan.teacher_cache == "build" and plan.distill.lessons:
        _ask_teacher(plan)
        return
    if not worker:
        _check_folder(plan, paths)
        _check_config(plan, paths, cfg)
    world = plan.runner.world()
    if not worker:
        plan.compression.workers(world, plan.optim, plan.clip_norm)  # refuse before any work
    if world > 1 and not worker:
        from lmctl.run.launch import launch
        from lmctl.use.texts import with_texts

        # Workers find the text ready: nobody waits in a process group while somebody else tokenises.
        display = Display()
        with display.watching():
            prepare(plan.tokenizer, with_texts(plan, display.say).mix, plan.cache_dir, display.say)
        launch(world, _arguments(cfg))
        return
    _train(plan, paths, cfg)


def check_legal(cfg: DictConfig) -> None:
    """ConfigError if the run is refused whatever its text is."""
    plan = Plan.from_config(cfg)
    plan.compression.workers(plan.runner.world(), plan.optim, plan.clip_norm)


def _launched() -> bool:
    """Whether some launcher (ours, torchrun, accelerate launch) has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 or "LOCAL_RANK" in os.environ


def _train(plan: Plan, paths: Paths, cfg: DictConfig) -> None:
    from lmctl.run.display import Display
    from lmctl.run.processes import Processes
    from lmctl.run.record import unmade, withdraw

    processes = Processes(plan.runner.on_cpu())
    paths = processes.agree(paths)
    made = unmade(paths.root)
    lock = processes.first_does(lambda: _claim(plan, paths))
    try:
        _train_there(plan, paths, cfg, processes, Display(silent=not processes.first))
    except BaseException:
        if lock is not None:
            withdraw(paths, lock, made)
        raise
    if lock is not None:
        lock.release()
    processes.close()


def _train_there(plan: Plan, paths: Paths, cfg: DictConfig, processes: Processes, display: Display) -> None:
    """Train in a directory that nobody else writes to."""
    from lmctl.run.display import Display
    from lmctl.run.prepare import prepare
    from lmctl.run.remembered import remember
    from lmctl.run.simulate import as_workers
    from lmctl.run.teacher import asked
    from lmctl.use.texts import with_texts

    with display.watching():
        plan = with_texts(plan, display.say)
        prepared = prepare(plan.tokenizer, plan.mix, plan.cache_dir, display.say)
    if plan.teacher_cache == "auto" and asked(plan):
        remember(plan, prepared, processes.device, display.say)

    def work(worker: Processes) -> None:
        own = display if worker.first else Display(silent=True)
        _train_one(plan, paths, cfg, worker, prepared, own)

    as_workers(plan.compression.simulate_workers, processes, work)


def _train_one(
    plan: Plan, paths: Paths, cfg: DictConfig, processes: Processes, prepared: Prepared, display: Display
) -> None:
    """The part of one worker."""
    import torch

    from lmctl.run.identity import Identity, models_in
    from lmctl.run.machine import words
    from lmctl.run.session import Session
    from lmctl.run.summary import closing_words
    from lmctl.run.trainer import Trainer

    resolved, recorded = (OmegaConf.to_container(cfg, resolve=resolve) for resolve in (True, False))
    try:
        trainer = Trainer(plan, prepared, processes)
        config = cast("dict[str, Any]", resolved)
        identity = Identity(config, trainer.fingerprints | models_in(config), processes.world)
        for line in trainer.network.report:
            display.say(f"init_from: {line}")
        for line in trainer.begun:
            display.say(f"student: {line}")
        if _resume(plan, paths, trainer, identity, display):
            return
        again = command(f"lmctl {plan.verb} resume=auto", run_dir=paths.root)
        display.say(f"run: {paths.root}   stop: Ctrl-C (saves)   go on: {again}")
        session = Session(trainer, paths, display, identity, cast("dict[str, Any]", recorded))
        display.say(words(session.machine))
        with stop.saving():
            summary = session.run()
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(plan) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise _out_of_memory(plan) from error
        raise
    for line in closing_words(summary, paths, plan):
        display.say(line)


def _ask_teacher(plan: Plan) -> None:
    """Keep the teacher's answers, for runs to come."""
    import torch

    from lmctl.run.display import Display
    from lmctl.run.prepare import prepare
    from lmctl.run.remembered import remember
    from lmctl.run.teacher import asked
    from lmctl.use.texts import with_texts

    display = Display()
    say = display.say
    with display.watching():
        plan = with_texts(plan, say)
        prepared = prepare(plan.tokenizer, plan.mix, plan.cache_dir, say)
    if asked(plan):
        remember(plan, prepared, torch.device("cpu" if plan.runner.on_cpu() else "cuda"), say)
    say("learn from them: the same command with teacher_cache=use")


def _claim(plan: Plan, paths: Paths) -> Any:
    from lmctl.run.record import claim

    lock = claim(paths)
    _check_folder(plan, paths)  # again, now that nobody else can write there
    return lock


def _check_folder(plan: Plan, paths: Paths) -> None:
    from lmctl.run.record import refuse_existing

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


def _check_config(plan: Plan, paths: Paths, cfg: DictConfig) -> None:
    """Refuse what `Identity.must_match` would, before any text is read."""
    from lmctl.run.identity import same_config

    if plan.resume == "false" or not paths.config.exists() or not any(paths.checkpoints.glob("step-*")):
        return
    began = OmegaConf.load(paths.config)
    before, now = (cast("dict[str, Any]", OmegaConf.to_container(each, resolve=True)) for each in (began, cfg))
    same_config(before, now)


def _resume(plan: Plan, paths: Paths, trainer: Any, identity: Any, display: Any) -> bool:
    """Load the checkpoint to go on from, if there is one; says whether the run is complete already."""
    from lmctl.run.checkpoint import Checkpoints, read_named
    from lmctl.run.record import summary_of

    if plan.resume == "false":
        return False
    processes = trainer.processes
    store = Checkpoints(paths.checkpoints, plan.checkpoint.keep)
    if plan.resume == "auto":
        # The first process verifies, and sets damaged ones aside; the others read what it found good.
        found = processes.first_does(lambda: store.newest(display.say))
        path = processes.agree(found.path if found else None)
        contents = found if processes.first else (read_named(path) if path else None)
    else:
        contents = read_named(Path(plan.resume))
        processes.first_does(lambda: store.rewind(contents.state["progress"]["step"]))
    if contents is None:
        display.say(f"resume: no checkpoint in {paths.checkpoints}, starting at step 0")
        return False
    saved = contents.state["identity"]
    identity.must_match(saved)
    own = contents.of_rank(processes.rank) if saved["world"] == processes.world else None
    if saved["world"] != processes.world:
        display.say(
            f"resume: {processes.world} processes now, {saved['world']} before: same rows in the same order, "
            "but other dropout, so not bit-exact"
            + ("; what compression had not sent yet is dropped" if trainer.strategy.state_dict() else "")
        )
    others = contents.carried() if own is None else None
    trainer.load(contents.weights, contents.state, own, others)
    patience = plan.early_stop.patience
    over = trainer.spent() >= 1 or (patience is not None and trainer.state.stale >= patience)
    if over and summary_of(paths).get("status") == "completed":
        display.say(f"{paths.root} is complete ({trainer.state.step:,} steps); a larger budget.* goes on with it")
        return True
    display.say(f"resume: {contents.path.name} of {paths.root}")
    return False


def _out_of_memory(plan: Plan) -> OutOfMemory:
    micro = plan.batch.micro or plan.batch.rows
    return OutOfMemory(
        f"out of memory with micro-batches of {micro} rows x {plan.batch.seq_len}",
        f"batch.micro={max(1, micro // 2)} (same result, less memory), or gradient_checkpointing=true",
    )


def _arguments(cfg: DictConfig) -> list[str]:
    """This command's own arguments for the workers, with the name they must share."""
    arguments = sys.argv[1:]
    if cfg.get("name") and not any(word.startswith("name=") for word in arguments):
        arguments.append(setting("name", str(cfg.name)))
    return arguments
