"""One run as it is compared: outcome, config, metrics, costs and curves, read from its directory.

Nothing in the directory is trusted, and nothing has to be there: runs may be unfinished, failed, of an older lmctl, or
damaged. What cannot be read is named in `faults`, and the rest is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmctl.compare.curves import Curves, read_curves
from lmctl.core import yaml_files
from lmctl.core.paths import Paths
from lmctl.core.regular_files import read_json
from lmctl.core.run_summary import RunSummary, numbers
from lmctl.core.secrets import masked

NOT_COMPARED = ("name", "run_dir", "resume", "resume_allow", "cache_dir", "stages", "stage", "trusted")
"""Keys of a config that say where a run is, not what it does."""
COSTS = {
    "seconds": "seconds",
    "peak_memory_bytes": "peak memory",
    "model_bytes": "model size",
    "bytes_sent": "bytes sent",
    "tokens": "tokens",
}
"""What quality is set against: the key in summary.json, and its name."""
ENVIRONMENT = (
    "lmctl",
    "git_commit",
    "python",
    "platform",
    "device",
    "cpu",
    "gpu",
    "processes",
    "workers",
    "threads",
    "packages",
)
"""What is compared of environment.json."""
HIGHER_IS_BETTER = ("accuracy", "bleu", "chrf", "f1", "mcc", "pearson", "spearman", "reciprocal_rank")
"""Parts of the names of metrics of which more is better, for records that do not say so."""


@dataclass(frozen=True)
class Metric:
    """How a metric is read."""

    higher_is_better: bool
    share: bool = False
    """Whether it is a proportion, such as accuracy."""


@dataclass(frozen=True)
class Row:
    """What a sweep or stages recorded about one of their jobs."""

    overrides: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Run:
    """One run."""

    name: str
    place: Path
    status: str
    """completed, stopped, failed, refused, running, not started, or unfinished: it has not come to an end."""
    reason: str | None = None
    """Why it did not complete."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """The settings that its sweep gave to it."""
    config: Mapping[str, str] = field(default_factory=dict)
    """Its config by dotted key, as text; {} if there is none that can be read."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions and machine, by dotted key."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Validation metrics: of the end, or of the newest validation."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """95 % intervals of metrics, over validation rows."""
    about: Mapping[str, Metric] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    """By the keys of COSTS; of an unfinished run, so far."""
    steps: int | None = None
    curves: Curves = field(default_factory=Curves)
    measured_on: Mapping[str, str] = field(default_factory=dict)
    """What decides whether its metrics can be compared with others: text, tokenizer, validation rows, predictions
    and terms of the loss, by name."""
    faults: tuple[str, ...] = ()
    """Files that could not be read, and why."""

    @property
    def seed(self) -> str | None:
        return self.config.get("seed", self.overrides.get("seed"))

    @property
    def is_complete(self) -> bool:
        return self.status == "completed"


def read_run(name: str, place: Path, points: int, row: Row | None = None) -> Run:
    """The run in the directory `place`, with curves of at most `points` points; `row` is what its sweep recorded."""
    paths, row, faults = Paths(place), row or Row(), list[str]()
    summary = RunSummary.of(paths)
    if not summary.written and paths.summary.exists():
        faults.append(f"{paths.summary.name} cannot be read")
    curves = _curves(paths, points, faults)
    found = read_json(paths.environment)
    environment = found if isinstance(found, dict) else {}
    own, tested = dict(summary.valid) or dict(curves.last), _tested(paths)
    reason = row.error or summary.error
    about = {
        name: Metric(one.get("higher_is_better") is True, one.get("share") is True)
        for name, one in summary.about_metrics.items()
    }
    return Run(
        name=name,
        place=place,
        status=_status(summary, row),
        reason=None if reason is None else masked(reason),
        overrides={key: masked(value) for key, value in row.overrides.items()},
        config=_config(paths, faults),
        environment=dict(_leaves({key: environment[key] for key in ENVIRONMENT if key in environment})),
        metrics=own | tested,
        intervals=_intervals(summary, own),
        about={name: about.get(name) or _guessed(name) for name in (*own, *tested)},
        costs=_costs(summary, curves),
        steps=summary.steps if summary.steps is not None else int(curves.reached.get("step", 0)) or None,
        curves=curves,
        measured_on=_measured_on(summary, environment) if own else {},
        faults=tuple(faults),
    )


def _status(summary: RunSummary, row: Row) -> str:
    """What the sweep says, unless the run itself has come further since."""
    if summary.is_complete and row.status in (None, "not started", "running"):
        return "completed"
    if row.status == "completed" and summary.written and not summary.is_complete:
        return summary.status or "unfinished"
    return row.status or summary.status or "unfinished"


def _curves(paths: Paths, points: int, faults: list[str]) -> Curves:
    try:
        curves = read_curves(paths.metrics, points)
    except FileNotFoundError:
        return Curves()
    except OSError as error:
        faults.append(f"{paths.metrics.name} cannot be read: {error.strerror}")
        return Curves()
    if curves.damaged:
        faults.append(f"{paths.metrics.name}: {curves.damaged:,} lines cannot be read and are left out")
    return curves


def _config(paths: Paths, faults: list[str]) -> dict[str, str]:
    """The config by dotted key; `precision._target_: lmctl.precision.bf16.Bf16` is `precision: Bf16`."""
    try:
        found = yaml_files.load(masked(yaml_files.read(paths.config)))
        if not isinstance(found, dict):
            raise ValueError("it is no mapping")
    except FileNotFoundError:
        return {}
    except Exception as error:  # the system's, yaml's own, and limits that were exceeded
        faults.append(f"{paths.config.name} cannot be read: {' '.join(str(error).split())}")
        return {}
    return dict(_leaves({key: value for key, value in found.items() if key not in NOT_COMPARED}))


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The values of a tree as text, by dotted key."""
    if not isinstance(node, dict) or not node:
        yield prefix, node if isinstance(node, str) else json.dumps(node, ensure_ascii=False, default=str)
        return
    for key, value in node.items():
        if key == "_target_":
            yield prefix, str(value).rpartition(".")[2]
        else:
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))


def _guessed(name: str) -> Metric:
    last = name.rpartition("/")[2].lower()
    return Metric(any(word in last for word in HIGHER_IS_BETTER), "accuracy" in last)


def _intervals(summary: RunSummary, metrics: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Intervals by metric; the loss of a single task has that of the task."""
    found = summary.intervals
    same = [pair for name, pair in found.items() if metrics.get(name) == metrics.get("loss")]
    return found | ({"loss": same[0]} if same and "loss" not in found else {})


def _tested(paths: Paths) -> dict[str, float]:
    """Metrics of `lmctl eval`, as `eval SUITE: METRIC`."""
    found = read_json(paths.results)
    return {
        f"eval {suite}: {name}": float(value)
        for suite, figures in (found.items() if isinstance(found, dict) else ())
        if isinstance(figures, dict)
        for name, value in numbers(figures).items()
        if isinstance(value, float)  # whole numbers are counts
    }


def _costs(summary: RunSummary, curves: Curves) -> dict[str, float]:
    so_far = {"seconds": curves.reached.get("seconds"), "tokens": curves.reached.get("tokens")}
    so_far |= {"bytes_sent": curves.reached.get("bytes"), "peak_memory_bytes": curves.peak_memory}
    written = numbers(summary.written)
    return {key: value for key in COSTS if (value := written.get(key, so_far.get(key))) is not None}


def _measured_on(summary: RunSummary, environment: Mapping[str, Any]) -> dict[str, str]:
    """Fingerprints of text and tokenizer, counts of validation rows and of predictions in them, terms of the loss."""
    prints = environment.get("fingerprints")
    found = {
        (name if name == "tokenizer" else f"text of {name}"): str(value)
        for name, value in (prints.items() if isinstance(prints, dict) else ())
        if not name.startswith("teacher")
    }
    for key, what in (("valid_rows", "validation rows of"), ("valid_targets", "predictions of")):
        found |= {f"{what} {name}": f"{count:,.0f}" for name, count in numbers(summary.written.get(key)).items()}
    terms = {str(one.get("term")) for one in summary.about_metrics.values()} - {"loss", "None"}
    if terms:
        found["loss"] = f"of {' and '.join(sorted(terms))}"
    return found
