"""The table of suites, and the input of a suite."""

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
"""Metric -> value; strings describe how it was computed."""


@dataclass(frozen=True)
class SuiteJob:
    """A model, rows and settings for a suite."""

    loaded: Loaded
    rows: Callable[[], Iterator[Row]]
    """All rows from the start, always the same."""
    yields: Kind
    config: EvalConfig
    folder: Path
    """Directory for files other than the metrics."""
    task: str | None = None
    """The task of the model; None: no task."""
    own: OwnTask | None = None
    """That task in the config of the model's run, if there is one."""
    mark: str = ""
    """Suffix of file names."""

    @property
    def length(self) -> int:
        """Positions per row."""
        return self.loaded.row(self.config.seq_len)


@dataclass(frozen=True)
class Suite:
    """Requirements of a suite."""

    families: tuple[Family, ...]
    """Families of language models that it accepts."""
    kind: Kind | None
    """The kind of rows it reads; None: it reads a file of its own."""
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
"""The suites by name, which is also the name of the module. `robustness` uses whichever of the first four fits the
model."""

ON_ROWS: dict[Family, str] = {
    "decoder": "perplexity",
    "encoder": "mlm",
    "seq2seq": "translation",
}
"""The default suite of a language model of each family."""

_OPTIONS = {
    "documents": "data=text data.path=...",
    "labelled": "data=table or data=jsonl with a column of labels",
    "parallel": "data=parallel",
}


def natural(loaded: Loaded, task: str | None = None) -> str:
    """The default suite of the model, or of one of its own tasks."""
    note = (loaded.tasks or {}).get(task or "")
    if loaded.classifies or (note is not None and note["label_kind"] is not None):
        return "classification"
    if loaded.family == "seq2seq" and note is not None and note["reads"] == "documents":
        return "loss"
    return ON_ROWS[loaded.family]


def run(name: str, job: SuiteJob) -> Figures:
    """The metrics of one suite; ConfigError if it does not support the model or the data."""
    if name == "robustness":
        check(natural(job.loaded, job.task), job)
    else:
        check(name, job)
    with job.loaded.numerics.products(job.loaded.device):
        figures: Figures = importlib.import_module(f"lmctl.inference.suites.{name}").evaluate(job)
    return figures


def check(name: str, job: SuiteJob) -> None:
    """ConfigError unless suite, model and data are compatible."""
    suite = SUITES[name]
    if not (name == "classification" and has_head(job.loaded, job.task)):
        need(job.loaded, suite.families, f"suite={name}", suite.classifiers)
    if suite.kind is not None and job.yields != suite.kind:
        raise ConfigError(
            f"suite={name} reads {suite.kind} rows, and this data has {job.yields} rows",
            f"give rows of that kind: {_OPTIONS[suite.kind]}",
        )


def nothing(name: str) -> DataError:
    """The error if there were no rows."""
    return DataError(f"suite={name}: the data has no rows to evaluate on")
