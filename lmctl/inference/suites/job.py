"""What a suite is given, and which suites there are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from lmctl.config.use_schema import EvalConfig
from lmctl.core.batch import Family, Kind, Row
from lmctl.core.errors import ConfigError, DataError
from lmctl.inference.heads import has_head
from lmctl.inference.load import Loaded, need
from lmctl.inference.trained_on import OwnTask

Figures: TypeAlias = "dict[str, float | int | str]"
"""Metric -> value; texts say how it was counted."""


@dataclass(frozen=True)
class Job:
    """A model, rows, and how to go about it."""

    loaded: Loaded
    rows: Callable[[], Iterator[Row]]
    """The rows from their beginning, the same each time."""
    yields: Kind
    config: EvalConfig
    folder: Path
    """Where files besides the figures go."""
    task: str | None = None
    """Which of the model's own tasks is meant; None: the model as such."""
    own: OwnTask | None = None
    """That task as its run has it, if the model is a run's."""
    mark: str = ""
    """What the names of files end in."""

    @property
    def length(self) -> int:
        """Positions per row."""
        return self.loaded.row(self.config.seq_len)


@dataclass(frozen=True)
class Suite:
    """What a suite needs."""

    families: tuple[Family, ...]
    """Of models that predict words."""
    kind: Kind | None
    """The kind of rows it reads; None: a file of its own."""
    classifiers: bool = False


SUITES: dict[str, Suite] = {
    "perplexity": Suite(("decoder",), "documents"),
    "mlm": Suite(("encoder",), "documents"),
    "classification": Suite((), "labelled", classifiers=True),
    "translation": Suite(("seq2seq",), "parallel"),
    "minimal_pairs": Suite(("decoder", "encoder"), None),
    "nbest": Suite(("decoder", "encoder"), None),
    "loss": Suite(("decoder", "encoder", "seq2seq"), None, classifiers=True),
}
"""By name, which is also the name of the module. `robustness` is whichever of the first four the model calls for."""

ON_ROWS: dict[Family, str] = {
    "decoder": "perplexity",
    "encoder": "mlm",
    "seq2seq": "translation",
}
"""The suite on rows that a model of each family calls for, if it is no classifier."""

_OPTIONS = {
    "documents": "data=text data.path=...",
    "labelled": "data=table or data=jsonl with a column of labels",
    "parallel": "data=parallel",
}


def natural(loaded: Loaded, task: str | None = None) -> str:
    """The suite that the model, or one of its own tasks, calls for."""
    note = (loaded.tasks or {}).get(task or "")
    if loaded.classifies or (note is not None and note["label_kind"] is not None):
        return "classification"
    if loaded.family == "seq2seq" and note is not None and note["reads"] == "documents":
        return "loss"
    return ON_ROWS[loaded.family]


def run(name: str, job: Job) -> Figures:
    """The figures of one suite; ConfigError if the model or the data are not for it."""
    if name == "robustness":
        check(natural(job.loaded, job.task), job)
    else:
        check(name, job)
    with job.loaded.numerics.products(job.loaded.device):
        figures: Figures = importlib.import_module(f"lmctl.inference.suites.{name}").evaluate(job)
    return figures


def check(name: str, job: Job) -> None:
    """ConfigError unless the suite, the model and the data go together."""
    suite = SUITES[name]
    if not (name == "classification" and has_head(job.loaded, job.task)):
        need(job.loaded, suite.families, f"suite={name}", suite.classifiers)
    if suite.kind is not None and job.yields != suite.kind:
        raise ConfigError(
            f"suite={name} reads {suite.kind} rows, and this data has {job.yields} rows",
            f"give rows of that kind: {_OPTIONS[suite.kind]}",
        )


def nothing(name: str) -> DataError:
    """There were no rows."""
    return DataError(f"suite={name}: the data has no rows to evaluate on")
