"""`lmctl plan -m`, and plans of stages: every cell composed and planned in this process, one table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict

from lmctl.cli import stages
from lmctl.cli.arguments import key_of
from lmctl.cli.sweep import job_names
from lmctl.core.errors import Exit
from lmctl.core.words import read

if TYPE_CHECKING:
    from lmctl.cli.application import Application

Job = tuple[str, list[str], DictConfig]
"""Name, overrides, config."""
UNUSED = ["name=planned", "run_dir=runs/planned"]
"""Nothing is written there."""


def plan_cells(application: Application) -> int:
    """Plan every cell of `-m`; the exit code."""
    words = [word for word in application.arguments.overrides if key_of(word) not in ("name", "run_dir")]
    cells = application.composer.cells(words)
    configs = [application.composer.task([*cell, *UNUSED]) for cell in cells]  # slips of the pen end it here
    jobs: list[Job] = []
    for name, cell, cfg in zip(job_names(cells), cells, configs, strict=True):
        if application.stage_words or (cfg.get("stages") and cfg.stage is None):
            jobs += [(f"{name}: {stage}", own, part) for stage, own, part in _stages(application, cell, cfg)]
        else:
            jobs.append((name, cell, cfg))
    return _planned(jobs)


def plan_stages(application: Application, cfg: DictConfig) -> int:
    """Plan every stage of `cfg`; the exit code."""
    return _planned(list(_stages(application, application.arguments.overrides, cfg)))


def _planned(jobs: list[Job]) -> int:
    from lmctl.verbs.plan import run_grid

    return Exit.USAGE if run_grid(jobs) else Exit.DONE


def _stages(application: Application, words: list[str], cfg: DictConfig) -> Iterator[Job]:
    """The stages of `cfg`. One that starts from what an earlier stage is yet to leave is planned with that stage's
    model and tokenizer, from scratch: the costs are the same."""
    settings = cast("dict[str, Any]", OmegaConf.to_container(cfg.get("stages", OmegaConf.create())))
    before: dict[str, DictConfig] = {}
    for job in stages.plan_stages(settings, words, application.stage_words, Path(cfg.run_dir)):
        start = read(next((w for w in job.overrides if key_of(w) == "init_from"), "").partition("=")[2])
        waits = start in before and not Path(start).exists()
        own = [w for w in job.overrides if not (waits and w.startswith(("init_from=", "model", "tokenizer")))]
        one = type(application)(application.verb, [*application.job_flags, *own, *UNUSED])
        part = one.settled()
        if waits:
            with open_dict(part):
                part.model, part.tokenizer = before[start].model, before[start].tokenizer
        before[job.run_dir] = part
        yield job.name, job.overrides, part
