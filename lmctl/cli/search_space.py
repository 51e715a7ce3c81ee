"""`lmctl search`: the typed settings as axes and fixed ones, checked, and the search started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from lmctl.config.build import read_root
from lmctl.config.groups import TrainConfig
from lmctl.config.overrides import Overrides
from lmctl.config.search_schema import SearchConfig
from lmctl.config.table import rows
from lmctl.config.verb import verb
from lmctl.core.errors import ConfigError, Exit
from lmctl.core.extras import require
from lmctl.core.files import refuse_folder
from lmctl.core.terminal import only_messages
from lmctl.jobs.job import alone_in, refuse_single_run
from lmctl.jobs.search import Search
from lmctl.jobs.search_space import Axis, axes_and_rest
from lmctl.jobs.sweep import Sweep, sweep_dir

if TYPE_CHECKING:
    from lmctl.cli.application import Application

OWN = rows(SearchConfig).keys() - rows(TrainConfig).keys()
"""Keys of the search itself, which its trials do not have."""
MORE = {"trials", "at_once", "gpus_per_trial", "limit_minutes"}
"""Those that may be others when it goes on."""


def run_search(application: Application) -> int:
    """Check every end of the space and run the search; returns the exit code."""
    require("lmctl search", ("optuna",))
    typed = application.overrides
    of_search, of_trials = typed.without("name", "run_dir").split(lambda one: one.key in OWN or one.is_hydras())
    axes, fixed = axes_and_rest(of_trials.render())
    first = [*fixed, *(axis.word(axis.ends[0]) for axis in axes)]
    for words in [first, *_others(axes, fixed)]:
        cfg = application.job_config([*of_search.render(), *words])
        config: SearchConfig = read_root(cfg, SearchConfig)
        _refuse(application, cfg, config)
    config = read_root(application.job_config([*of_search.render(), *first]), SearchConfig)
    folder = _folder(typed)
    jobs = Sweep(verb("train"), application.run_job, application.arguments.of_jobs, application.free)
    with only_messages(), alone_in(folder):
        Search(config, folder, axes, fixed, jobs.command).run()
    return Exit.DONE


def _others(axes: list[Axis], fixed: list[str]) -> list[list[str]]:
    """Trials that differ from the first one in one axis, at each of its further ends."""
    found = []
    for axis in axes:
        rest = [other.word(other.ends[0]) for other in axes if other is not axis]
        found += [[*fixed, *rest, axis.word(end)] for end in axis.ends[1:]]
    return found


def _refuse(application: Application, cfg: DictConfig, config: SearchConfig) -> None:
    """ConfigError for a trial that cannot be run."""
    application.verb.check(cfg)
    application.verb.refuse(cfg)
    if config.runner.submits():
        raise ConfigError(
            "a search waits for its trials, and runner=slurm submits them", "start lmctl search in a job of its own"
        )


def _folder(typed: Overrides) -> Path:
    """The folder of the search: its name, or a hash of its settings, so that the same command finds it again."""
    _, own = typed.split(lambda one: one.key in MORE or one.is_hydras())
    folder = sweep_dir(own)
    if folder.name.startswith("sweep-") and "name" not in own and "run_dir" not in own:
        folder = folder.with_name(folder.name.replace("sweep-", "search-"))
    refuse_folder(folder, "run_dir")
    refuse_single_run(folder, "search")
    return folder
