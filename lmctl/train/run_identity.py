"""Identity of a run: the config and fingerprints that must not change for a checkpoint to be resumed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from lmctl.config.groups import TrainConfig
from lmctl.config.keys import Key, keys_of
from lmctl.config.table import without
from lmctl.core.command_words import setting
from lmctl.core.errors import ConfigError
from lmctl.core.files import digest, path_of
from lmctl.core.paths import IsPlace, Paths
from lmctl.data.base import Source
from lmctl.tokenizer.base import TokenizerSpec

FREE = without(TrainConfig, "identity")
"""Keys and sections that may change on a resume. So may component fields that are marked so, and places
(`core.places`), whose contents are compared instead. If `eval.rows` changes, the run validates again and says so
(`train/validation_schedule.py`)."""


@dataclass(frozen=True)
class Identity:
    """The resolved config of a run and the fingerprints of its tokenizer, text and teacher."""

    config: dict[str, Any]
    fingerprints: dict[str, str]
    world: int

    def state_dict(self) -> dict[str, Any]:
        return {"config": json.dumps(self.config), "fingerprints": self.fingerprints, "world": self.world}

    def must_match(self, saved: dict[str, Any]) -> None:
        """ConfigError unless a checkpoint with the identity `saved` can be resumed."""
        before = json.loads(saved["config"])
        same_config(before, self.config)
        for name, value in self.fingerprints.items():
            if name not in saved["fingerprints"] and name in _flat(before):
                same_value(
                    name, _flat(before)[name], _flat(self.config)[name]
                )  # a run of an older version, which did not record models
            elif saved["fingerprints"].get(name) != value:
                known = {"tokenizer": "the tokenizer", "teacher": "the teacher"}
                what = known.get(name, f"the model of {name}" if "." in name else f"the text of {name}")
                raise ConfigError(
                    f"resume: {what} is not the one this run began with", "start a new run with another name=..."
                )


def same_config(before: dict[str, Any], now: dict[str, Any]) -> None:
    """ConfigError unless a run that began with the config `before` can be resumed with `now`, both resolved."""
    old, new = _with_workers(_flat(before)), _with_workers(_flat(now))
    keys = [key for tree in (before, now) for key in keys_of(tree, TrainConfig, _trusted(now))]
    free = {key.name for key in keys if _is_place(key) or not key.identity}
    for key in sorted(old.keys() | new.keys()):
        if key not in free and key.partition(".")[0] not in FREE:
            same_value(key, old.get(key), new.get(key))


def _with_workers(flat: dict[str, Any]) -> dict[str, Any]:
    """The number of simulated workers under one key, whether `compression` or `runner` sets it: residuals belong to
    workers, so a run can be resumed with the same number of workers only."""
    both = ("compression.simulate_workers", "runner.workers")
    return flat | {both[0]: flat[both[0]] or flat.get(both[1])} if both[0] in flat else flat


def same_value(key: str, was: Any, is_: Any) -> None:
    """ConfigError unless a setting has its old value."""
    if was == is_:
        return
    shown, now = (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in (was, is_))
    again = setting(key, was) if isinstance(was, str) else f"{key}={shown}"
    raise ConfigError(
        f"resume: {key} was {shown} in this run and is {now} now",
        f"go on with {again}, or start a new run with another name=...",
    )


def models_in(config: dict[str, Any]) -> dict[str, str]:
    """Fingerprints of the models in a resolved config, by config key, unless others compare them. For a folder a hash
    of its files, for a hub model its id."""
    keys = keys_of(config, TrainConfig, _trusted(config))
    return {key.name: _model(key.value) for key in keys if _is_place(key) and not _is_compared(key)}


def _model(place: str) -> str:
    folder = path_of(place)
    folder = next((one for one in (Paths(folder).model, folder) if one.is_dir()), folder)
    if not folder.is_dir():
        return place
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".json") and file.is_file())
    return hashlib.sha256("".join(f"{file.name} {digest(file)}\n" for file in files).encode()).hexdigest()


def _is_place(key: Key) -> bool:
    return IsPlace in key.marks and isinstance(key.value, str)


def _is_compared(key: Key) -> bool:
    """Whether the place is compared elsewhere or need not be: sources and tokenizers have their own fingerprints, and a
    resumed run has its own weights."""
    return issubclass(key.owner, (Source, TokenizerSpec)) or not key.identity


def _trusted(config: dict[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, config.get("trusted") or ()))


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
