"""What makes a run the run it is: a checkpoint is resumed only by a config that would have written it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lmctl.core.errors import ConfigError

FREE = (
    "name",
    "run_dir",
    "resume",
    "init_from",
    "model.init_from",
    "cache_dir",
    "trusted",
    "budget",
    "eval",
    "checkpoint",
    "early_stop",
    "log",
    "runner",
    "compile",
    "teacher",
    "distill.chunk_mb",
    "distill.control",
    "gradient_checkpointing",
    "batch.micro",
    "compression.probe_every",
)
"""Keys, and sections, that may change when a run goes on. So may paths and revisions: what they lead to is compared
itself."""


@dataclass(frozen=True)
class Identity:
    """The resolved config of a run and the fingerprints of its tokenizer, text and teacher."""

    config: dict[str, Any]
    fingerprints: dict[str, str]
    world: int

    def state_dict(self) -> dict[str, Any]:
        return {"config": json.dumps(self.config), "fingerprints": self.fingerprints, "world": self.world}

    def must_match(self, saved: dict[str, Any]) -> None:
        """Raise unless a checkpoint with the identity `saved` can be gone on with."""
        same_config(json.loads(saved["config"]), self.config)
        for name, value in self.fingerprints.items():
            if saved["fingerprints"].get(name) != value:
                what = {"tokenizer": "the tokenizer", "teacher": "the teacher"}.get(name, f"the text of {name}")
                raise ConfigError(
                    f"resume: {what} is not the one this run began with", "start a new run with another name=..."
                )


def same_config(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise unless a run that began with the config `before` can go on with `now`, both resolved."""
    old, new = _flat(before), _flat(now)
    for key in sorted(old.keys() | new.keys()):
        was, is_ = (json.dumps(values.get(key)).strip('"') for values in (old, new))
        if was != is_ and not _free(key):
            raise ConfigError(
                f"resume: {key} was {was} in this run and is {is_} now",
                f"go on with {key}={was}, or start a new run with another name=...",
            )


def _free(key: str) -> bool:
    return key.endswith((".path", ".revision")) or any(key == free or key.startswith(f"{free}.") for free in FREE)


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
