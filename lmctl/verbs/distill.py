"""`lmctl distill`: train a student from a teacher, and say how much of the gap was closed."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lmctl.core.files import write_json
from lmctl.core.places import Paths
from lmctl.plan import Plan
from lmctl.run.unfinished import with_models
from lmctl.verbs import train


def run(cfg: DictConfig) -> None:
    """Train the student here, or start the processes that do."""
    train.run(cfg)


def compare(cfg: DictConfig, control: Paths | None) -> None:
    """Measure the teacher on the student's held-out rows, and both of them with a clock; complete the summary of the
    student's run. `control` is the run of the same student without a teacher, if there is one."""
    recorded = Paths(Path(cfg.run_dir)).config
    cfg = cfg.copy()
    cfg.teacher = OmegaConf.load(recorded).teacher  # of a run that went on meanwhile, the checkpoint that taught
    cfg = with_models(cfg)
    plan = Plan.from_config(cfg)
    from lmctl.run.display import Display, quiet_libraries
    from lmctl.run.gap import compared, sentences
    from lmctl.run.prepare import prepare
    from lmctl.run.record import summary_of

    quiet_libraries()
    paths, display = Paths(Path(plan.run_dir)), Display()
    prepared = prepare(plan.tokenizer, plan.mix, plan.cache_dir, lambda line: None)
    alone = None if control is None else summary_of(control) | {"run_dir": str(control.root)}
    summary = summary_of(paths)
    summary |= compared(plan, prepared, paths, summary, alone)
    write_json(paths.summary, summary)
    for line in sentences(summary):
        display.say(line)
