"""MLflow: a server, a database or a folder of files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from lmctl.tracker.base import TrackedRun, Tracker

RUN_ID = "lmctl.run"
"""Tag by which a run that goes on finds its MLflow run, whose id the server chose."""
STATUS = {"completed": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True)
class MLflow(Tracker):
    """A run of MLflow."""

    experiment: str = "lmctl"
    uri: Optional[str] = None

    @property
    def imports(self) -> tuple[str, ...]:
        return ("mlflow",)

    def open(self, run: TrackedRun) -> Any:
        import mlflow
        from accelerate.tracking import MLflowTracker

        if self.uri is not None:
            mlflow.set_tracking_uri(self.uri)
        known = mlflow.search_runs(
            search_all_experiments=True, filter_string=f"tags.`{RUN_ID}` = '{run.id}'", output_format="list"
        )
        opened = MLflowTracker(
            self.experiment,
            run_id=known[0].info.run_id if known else None,
            run_name=run.name,
            tags={RUN_ID: run.id},
        )
        opened.start()
        # A parameter can never change, so one that is recorded already stays as it is.
        recorded = known[0].data.params if known else {}
        opened.store_init_configuration({key: value for key, value in run.config.items() if key not in recorded})
        return opened

    def close(self, opened: Any, status: str) -> None:
        import mlflow

        mlflow.end_run(STATUS[status])
