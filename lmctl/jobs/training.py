"""`lmctl train`: one training run, from its config to a finished run directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from lmctl.config.build import check
from lmctl.config.groups import TrainConfig
from lmctl.config.saved import resolved
from lmctl.core import signals
from lmctl.core.command_words import command
from lmctl.core.errors import Exit
from lmctl.core.imports import without_collector
from lmctl.core.paths import Paths
from lmctl.core.watchdog import Watchdog
from lmctl.plan import Plan
from lmctl.runner.base import Node
from lmctl.train.recorded_choices import with_choices, with_recorded_choices
from lmctl.train.unfinished import with_models

if TYPE_CHECKING:
    from lmctl.parallel.processes import Processes
    from lmctl.train.display import Display
    from lmctl.train.prepare import Prepared


@dataclass(frozen=True)
class Training:
    """A training run whose config is valid, not started yet."""

    plan: Plan
    cfg: DictConfig
    """The recorded config, in which paths of unfinished runs are replaced by their checkpoints."""
    composed: DictConfig
    """The config as composed."""

    @classmethod
    def from_config(cls, cfg: DictConfig, schema: type[TrainConfig] = TrainConfig) -> Training:
        """Check `cfg`, of the table `schema`, and build all components. ConfigError with all mistakes."""
        found = with_recorded_choices(with_models(cfg, lambda: check(cfg, schema)))
        return cls(Plan.from_config(found, schema), found, cfg)

    @property
    def paths(self) -> Paths:
        return Paths(Path(self.plan.run_dir))

    def paths_as(self, name: str | None) -> Paths:
        """The run directory under another name of the run."""
        return Paths(Path(OmegaConf.merge(self.cfg, {"name": name}).run_dir))

    def check_workers(self) -> None:
        """ConfigError for gradient compression with a number of processes that it does not support."""
        self.plan.workers(self.plan.runner.world())


def check_legal(cfg: DictConfig, schema: type[TrainConfig] = TrainConfig) -> None:
    """ConfigError if the run is illegal whatever its data."""
    Training(Plan.from_config(cfg, schema), cfg, cfg).check_workers()


def train(run: Training) -> None:
    """Train in this process, or launch the worker processes."""
    from lmctl.parallel.launch import is_worker
    from lmctl.train.display import Display, quiet_libraries
    from lmctl.train.resume import check_config, check_folder

    quiet_libraries()
    plan = run.plan
    if plan.teacher_cache == "build" and plan.distill.terms:
        keep_answers(plan)
        return
    if not is_worker():
        check_folder(plan, run.paths, plan.runner.shared_run_dir or plan.runner.node().rank == 0)
        check_config(plan, run.paths, run.cfg)
        run.check_workers()
        if plan.runner.submits():
            from lmctl.jobs.submit import submit

            submit(plan, run.paths, Display().say)
            return
        if (world := plan.runner.world()) > 1:
            node = plan.runner.node()
            # Tokenise before launching: workers would time out in a collective operation while one of them tokenises.
            # The launcher of each node does so, because the cache may be the node's own.
            display = Display()
            with display.watching(), Watchdog(plan.watchdog_s, run.paths.stacks(0), computing=True):
                prepared(plan, display.say)
            launch_with_memory(run, world, node, display.say)
            return
    train_here(run)


def launch_with_memory(run: Training, world: int, node: Node, say: Callable[[str], None]) -> None:
    """Launch the worker processes; if one of them runs out of memory while training, once more in micro-batches of half
    as many rows: workers that average gradients during the backward pass cannot repeat a step alone."""
    from lmctl.parallel.launch import WorkersFailed, launch

    batch, words = run.plan.batch, list[str]()
    micro = batch.micro or batch.rows // world
    while True:
        try:
            return launch(world // node.nodes, run.plan.name, words, node, run.plan.runner.timeout_s)
        except WorkersFailed as failed:
            # Before the record begins, it is the weights that do not fit. Other nodes' launchers do not hear of it.
            began = run.paths.config.exists() and node.nodes == 1
            if failed.code != Exit.OUT_OF_MEMORY or micro == 1 or not began:
                raise
        micro //= 2
        words = [f"batch.micro={micro}", "resume=auto"]
        say(f"starting again with {' '.join(words)}: as many rows per step as before")


def train_here(run: Training) -> None:
    """Train in this process, which may be one of several workers."""
    with without_collector():
        import lmctl.train.session  # noqa: F401  # with all that training needs
        from lmctl.parallel.agreement import check_config, find_disks
        from lmctl.parallel.processes import Processes
        from lmctl.train.resume import claimed

    runner = run.plan.runner
    processes = Processes(runner.on_cpu(), runner.timeout_s)
    first, name = processes.broadcast((run.paths, run.plan.name))
    paths = first if runner.shared_run_dir or processes.first else run.paths_as(name)
    with watched(run.plan, processes, paths, computing=True):
        check_config(processes, resolved(run.cfg))
        run.plan.workers(processes.world)  # an external launcher may have started another number of processes
        with claimed(run.plan, paths, processes, processes.first):
            processes.disks = find_disks(processes, paths, runner.shared_run_dir)
            with claimed(run.plan, paths, processes, processes.disks.leads):
                _train_in(paths, run, processes)
    processes.close()


def watched(plan: Plan, processes: Processes, paths: Paths, computing: bool = False) -> Watchdog:
    """The watchdog of a process; one that waits for others waits no longer than `runner.timeout_s`."""
    stacks, key, seconds = paths.stacks(processes.rank), "watchdog_s", plan.watchdog_s
    waits = processes.world > 1 and not processes.simulated
    if waits and (seconds is None or plan.runner.timeout_s < seconds):
        key, seconds = "runner.timeout_s", plan.runner.timeout_s
    return Watchdog(seconds, stacks, computing, key)


def _train_in(paths: Paths, run: Training, processes: Processes) -> None:
    """Train in a run directory that is locked for this run."""
    from lmctl.distill.cached_teacher import fill_cache
    from lmctl.distill.teacher import needs_teacher
    from lmctl.parallel.agreement import check_data
    from lmctl.parallel.simulate import as_workers
    from lmctl.train.display import Display
    from lmctl.train.fastest_precision import settled

    display = Display(silent=not processes.first)

    def work(worker: Processes) -> None:
        _train_as(worker, plan, texts, paths, cfg, display if worker.first else Display(silent=True))

    if disks := len(processes.disks.apart):
        display.say(f"nodes: {disks} with a disk of their own, which send their parts of checkpoints to {paths.root}")
    with display.watching():
        plan, texts = processes.all_do(lambda: prepared(run.plan, display.say))
        check_data(processes, texts.fingerprints)
        plan = settled(plan, texts, processes, display.say)
        if plan.teacher_cache == "auto" and needs_teacher(plan):
            fill_cache(plan, texts, processes.device, display.say)
    cfg = with_choices(run.cfg, plan)
    as_workers(plan.simulated_workers, processes, work)


def _train_as(worker: Processes, plan: Plan, texts: Prepared, paths: Paths, cfg: DictConfig, display: Display) -> None:
    """The training of one worker."""
    from lmctl.parallel.machine import describe_machine
    from lmctl.train.micro_batches import weights_out_of_memory
    from lmctl.train.resume_checkpoint import resume
    from lmctl.train.run_identity import Identity, models_in
    from lmctl.train.session import Session
    from lmctl.train.summary import closing_words
    from lmctl.train.trainer import Trainer

    say = display.say
    config, recorded = resolved(cfg), cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))
    with weights_out_of_memory():
        trainer = Trainer(plan, texts, worker)
        identity = Identity(config, trainer.fingerprints | models_in(config), worker.world)
        for line in trainer.network.report:
            say(f"init_from: {line}")
        for line in trainer.copied_layers:
            say(f"student: {line}")
        if resume(plan, paths, trainer, identity, say):
            return
        again = command(f"lmctl {plan.verb} resume=auto", run_dir=paths.root)
        say(f"run: {paths.root}   stop: Ctrl-C (saves)   go on: {again}")
        session = Session(trainer, paths, display, identity, recorded)
        say(describe_machine(session.machine))
        with signals.saving(), watched(plan, worker, paths):
            summary = session.run()
    for line in closing_words(summary, paths, plan):
        say(line)


def prepared(plan: Plan, say: Callable[[str], None]) -> tuple[Plan, Prepared]:
    """The plan with its data (replaced by teacher-generated text if a distillation term needs it), and tokenizer and
    token stores."""
    from lmctl.distill.teacher_texts import with_texts
    from lmctl.train.prepare import prepare

    plan = with_texts(plan, say)
    return plan, prepare(plan.tokenizer, plan.mix, plan.cache_dir, say)


def keep_answers(plan: Plan) -> None:
    """Cache the teacher's logits for later runs (teacher_cache=build)."""
    import torch

    from lmctl.distill.cached_teacher import fill_cache
    from lmctl.distill.teacher import needs_teacher
    from lmctl.train.display import Display

    display = Display()
    with display.watching():
        plan, texts = prepared(plan, display.say)
        if needs_teacher(plan):
            fill_cache(plan, texts, torch.device("cpu" if plan.runner.on_cpu() else "cuda"), display.say)
    display.say("learn from them: the same command with teacher_cache=use")
