"""`tracker=none`: metrics are in the run directory only."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from lmctl.tracker.base import Tracker, Tracking


@dataclass(frozen=True)
class NoTracker(Tracking):
    """metrics.jsonl and summary.json only."""

    to = MappingProxyType[str, Tracker]({})
