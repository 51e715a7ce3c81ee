"""`lmctl jobs`: show the states of runs that were submitted to a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmctl.config.schema import FORMAT, FORMATS, one_of
from lmctl.config.table import key
from lmctl.config.verb import Verb
from lmctl.core.errors import ConfigError
from lmctl.core.files import nearest_place
from lmctl.core.json_lines import emit
from lmctl.core.paths import Places


@dataclass(frozen=True)
class JobsConfig:
    """Root config of `lmctl jobs`."""

    runs: Places = key("runs", "run directories, sweeps, or folders of them")
    format: str = key("text", FORMAT)

    def __post_init__(self) -> None:
        one_of(FORMATS, format=self.format)


class Jobs(Verb[JobsConfig]):
    examples = ("lmctl jobs", "lmctl jobs runs/sweep-1f2e3d4c", "lmctl jobs format=json")
    often = ("runs", "format")
    schema = JobsConfig
    places = "runs"

    def run(self, config: JobsConfig) -> None:
        """Print a line per submitted run: its job, the state that the cluster says, and what its record says."""
        from lmctl.jobs.submitted import print_jobs, submitted_in

        places = [config.runs] if isinstance(config.runs, str) else list(config.runs)
        for place in places:
            if not Path(place).is_dir():
                hint = nearest_place(Path(place)) or "a run directory, a sweep, or a folder of them"
                raise ConfigError(f"{place}: no such directory", hint)
        found = [one for place in places for one in submitted_in(Path(place))]
        if config.format == "json":
            for one in found:
                emit(one.as_dict())
        else:
            print_jobs(found)
