"""`lmctl VERB -m`: the jobs of a sweep, checked before the first one starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lmctl.config.overrides import Override, Overrides
from lmctl.config.schema import ProcessLauncherConfig
from lmctl.core.command_words import literal, quoted
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.files import refuse_folder
from lmctl.jobs.job import refuse_single_run
from lmctl.jobs.sweep import Sweep, sweep_dir

if TYPE_CHECKING:
    from lmctl.cli.application import Application


def checked_sweep(application: Application) -> tuple[Sweep, Path]:
    """The sweep and its directory, after all mistakes in the jobs were found that can be before the first one starts.
    Adds the jobs' directories to the application's overrides."""
    verb = application.verb
    whole, samples = application.quote_sweep()
    for sample in samples:
        verb.check(application.job_config(sample))
    _, own = application.overrides.split(Override.is_hydras)
    flags = [*application.arguments.of_jobs, *application.stage_overrides.render()]
    refused = _refused(application, own.without("name", "run_dir"))
    jobs = Sweep(verb, application.run_job, flags, application.free, refused)
    folder = sweep_dir(own)
    refuse_folder(folder, "run_dir")
    refuse_single_run(folder, "sweep")
    if whole.hydra.launcher._target_ == ProcessLauncherConfig._target_:
        application.overrides = application.overrides.without("name", "run_dir")
    elif verb.has_run_dir:  # jobs in one process, or on a cluster: directories by Hydra's job number
        application.overrides += [Override("run_dir", quoted(f"{folder}/${{hydra:job.num}}"))]
    application.overrides += [Override("hydra.sweep.dir", literal(str(folder)))]
    return jobs, folder


def _refused(application: Application, overrides: Overrides) -> dict[frozenset[str], LmctlError]:
    """Errors of the sweep's illegal jobs by their overrides. A sweep without a finite list of values (another
    sweeper's) is not checked."""
    found: dict[frozenset[str], LmctlError] = {}
    if not application.verb.has_run_dir:
        return found
    try:
        cells = application.composer.cells(overrides.render())
    except ConfigError:
        return found
    for cell in cells:
        try:
            application.verb.refuse(application.job_config(cell))
        except ConfigError as error:
            found[frozenset(cell)] = error
    return found
