"""Reading of a run's summary.json, with types, for all who need it. Nothing in it is trusted: what is not as lmctl
writes it counts as missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmctl.core.paths import Paths
from lmctl.core.regular_files import read_json


@dataclass(frozen=True)
class RunSummary:
    """The summary of one run."""

    written: Mapping[str, Any] = field(default_factory=dict)
    """All of it, as it was written; {} if there is none."""

    @classmethod
    def of(cls, run: Paths) -> RunSummary:
        """The summary of the run in a directory; an empty one if there is none that can be read."""
        found = read_json(run.summary)
        return cls(found if isinstance(found, dict) else {})

    @property
    def status(self) -> str | None:
        """completed, stopped or failed; None if the run never came to an end."""
        return _text(self.written.get("status"))

    @property
    def error(self) -> str | None:
        """Why the run stopped or failed."""
        return _text(self.written.get("error"))

    @property
    def is_complete(self) -> bool:
        return self.status == "completed"

    @property
    def steps(self) -> int | None:
        """Optimiser steps taken."""
        return _whole(self.written.get("steps"))

    @property
    def train(self) -> dict[str, float]:
        """Training losses of the newest log point."""
        return numbers(self.written.get("train"))

    @property
    def valid(self) -> dict[str, float]:
        """Metrics of the newest validation."""
        return numbers(self.written.get("valid"))

    @property
    def loss(self) -> float | None:
        """The validation loss."""
        return self.valid.get("loss")

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of validation metrics, over validation rows."""
        found = self.written.get("valid_interval")
        pairs = found.items() if isinstance(found, dict) else ()
        return {str(name): (pair[0], pair[1]) for name, pair in pairs if _is_interval(pair)}

    @property
    def about_metrics(self) -> dict[str, dict[str, Any]]:
        """What is known of each validation metric: `higher_is_better`, `share`; {} in records of older versions."""
        found = self.written.get("valid_metrics")
        named = found.items() if isinstance(found, dict) else ()
        return {str(name): one for name, one in named if isinstance(one, dict)}

    @property
    def gap_closed(self) -> dict[str, float | None]:
        """Distilled runs: the closed share of the gap between the run without a teacher and the teacher, by metric;
        None where there is no gap."""
        found = self.written.get("gap_closed")
        given = found.items() if isinstance(found, dict) else ()
        return {name: value for name, value in given if value is None or _is_number(value)}

    @property
    def bytes_per_parameter(self) -> float | None:
        """Bytes per parameter for weights, gradients and optimiser states."""
        precision = self.written.get("precision")
        sizes = precision.get("bytes_per_parameter") if isinstance(precision, dict) else None
        return numbers(sizes).get("total")

    @property
    def model_sha256(self) -> str | None:
        """Checksum of the exported model.safetensors, in hex; None while the run goes on."""
        return _text(self.written.get("model_sha256"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 63 else None


def _is_number(value: Any) -> bool:
    return (type(value) is int and abs(value) < 1 << 63) or (isinstance(value, float) and not math.isinf(value))


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def numbers(value: Any) -> dict[str, float]:
    """The entries of a mapping that are numbers; {} of anything else."""
    given = value.items() if isinstance(value, dict) else ()
    return {str(name): number for name, number in given if _is_number(number)}
