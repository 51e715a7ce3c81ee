"""`lmctl plan -m` and plans of stages: every cell of the grid is composed and planned in this process, in one table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, open_dict

from lmctl.config.overrides import Override, Overrides
from lmctl.config.verb import GridVerb
from lmctl.core.errors import Exit
from lmctl.jobs.sweep import job_names

if TYPE_CHECKING:
    from lmctl.cli.application import Application

Job = tuple[str, list[str], DictConfig]
"""Name, overrides, config."""
UNUSED = ["name=planned", "run_dir=runs/planned"]
"""Placeholder run directory; nothing is written there."""


def plan_cells(application: Application, verb: GridVerb[Any]) -> int:
    """Plan every cell of `-m`; returns the exit code."""
    cells = application.composer.cells(application.overrides.without("name", "run_dir").render())
    configs = [application.composer.task([*cell, *UNUSED]) for cell in cells]  # raises for wrong keys and values
    jobs: list[Job] = []
    for name, cell, cfg in zip(job_names(cells), cells, configs, strict=True):
        application.refuse_places(cfg)
        if application.has_stages(cfg):
            parts = _stages(application, cfg, Overrides.typed(cell))
            jobs += [(f"{name}: {stage}", own, part) for stage, own, part in parts]
        else:
            jobs.append((name, cell, cfg))
    return _planned(verb, jobs)


def plan_stages(application: Application, verb: GridVerb[Any], cfg: DictConfig) -> int:
    """Plan every stage of `cfg`; returns the exit code."""
    application.refuse_places(cfg)
    return _planned(verb, list(_stages(application, cfg, application.overrides)))


def _planned(verb: GridVerb[Any], jobs: list[Job]) -> int:
    return Exit.USAGE if verb.run_grid(jobs) else Exit.DONE


def _stages(application: Application, cfg: DictConfig, overrides: Overrides) -> Iterator[Job]:
    """The stages of `cfg`, which `overrides` made. A stage that starts from the result of an earlier stage is planned
    with that stage's model and tokenizer, from scratch: the costs are the same."""
    before: dict[str, DictConfig] = {}
    for job in application.stages_in(cfg, overrides):
        own = Overrides.typed(job.overrides)
        start = own.text("init_from") or ""
        waits = start in before and not Path(start).exists()
        if waits:
            _, own = own.split(_sets_initial_weights)
        words = [*application.arguments.of_jobs, *own.render(), *UNUSED]
        one = type(application)(application.verb.name, words)
        part = one.final_config()
        if waits:
            with open_dict(part):
                part.model, part.tokenizer = before[start].model, before[start].tokenizer
        before[job.run_dir] = part
        yield job.name, job.overrides, part


def _sets_initial_weights(override: Override) -> bool:
    """Whether it chooses the initial weights, the model or the tokenizer."""
    return str(override).startswith(("init_from=", "model", "tokenizer"))
