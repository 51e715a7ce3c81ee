"""Identity of a run: the config and fingerprints that must not change for a checkpoint to be resumed, unless
`resume.allow` names what was changed on purpose."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from lmctl.config.groups import TrainConfig
from lmctl.config.keys import Key, keys_of
from lmctl.config.table import groups_of, without
from lmctl.core.command_words import setting
from lmctl.core.errors import ConfigError
from lmctl.core.files import digest, path_of
from lmctl.core.paths import IsPlace, Paths
from lmctl.core.suggest import nearest
from lmctl.data.base import Source
from lmctl.tokenizer.base import TokenizerSpec
from lmctl.train.later_keys import with_later_keys

GROUPS = frozenset(groups_of(TrainConfig))
FREE = without(TrainConfig, "identity")
"""Keys and sections that may change on a resume. So may component fields that are marked so, and places
(`core.places`), whose contents are compared instead. If `eval.rows` changes, the run validates again and says so
(`train/validation_schedule.py`)."""


@dataclass(frozen=True)
class Change:
    """One difference between a run as it began and as it is asked to go on."""

    key: str
    """The dotted key, or the name of a fingerprint: a task for its text, tokenizer, teacher."""
    what: str
    """Half a sentence: `batch.size was 8 in this run and is 16 now`."""
    names: tuple[str, ...]
    """What `resume.allow` may call it: the key, and every section that it is in."""
    name: str
    """Which of these a hint says."""
    again: str | None = None
    """The setting that undoes it."""

    @property
    def may_fit(self) -> bool:
        """Whether a checkpoint may fit all the same: a model has the shapes of its settings, but for dropout."""
        return self.key.partition(".")[0] != "model" or "dropout" in self.key


@dataclass(frozen=True)
class Identity:
    """The resolved config of a run and the fingerprints of its tokenizer, text and teacher."""

    config: dict[str, Any]
    fingerprints: dict[str, str]
    world: int

    def state_dict(self) -> dict[str, Any]:
        return {"config": json.dumps(self.config), "fingerprints": self.fingerprints, "world": self.world}

    @classmethod
    def from_state(cls, saved: Any) -> Identity:
        """The identity in a checkpoint; ValueError if it is none."""
        match saved:
            case {"config": str(text), "fingerprints": dict(prints), "world": int(world)} if world > 0:
                try:
                    config = json.loads(text)
                    _flat(config)
                except RecursionError:
                    config = None
                named = all(isinstance(word, str) for pair in prints.items() for word in pair)
                if isinstance(config, dict) and named:
                    return cls(config, prints, world)
        raise ValueError("its identity is not as lmctl writes it")

    def changes(self, before: Identity) -> list[Change]:
        """In what the run differs from the one that began as `before`."""
        found, old, new = changed_keys(before.config, self.config), _flat(before.config), _flat(self.config)
        for name, value in self.fingerprints.items():
            if name not in before.fingerprints and name in old:
                # a run of an older version, which did not record models
                found += _changed(name, old[name], new[name], set())
            elif before.fingerprints.get(name) != value:
                known = {"tokenizer": "the tokenizer", "teacher": "the teacher"}
                what = known.get(name, f"the model of {name}" if "." in name else f"the text of {name}")
                is_text = name not in known and "." not in name
                names = ("data", "mix", name) if is_text else _sections(name)
                found.append(
                    Change(name, f"{what} is not the one this run began with", names, "data" if is_text else name)
                )
        return found


def changed_keys(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """The settings that decide what a run is, and differ between two resolved configs."""
    before = with_later_keys(before, keys_of(now, TrainConfig, _trusted(now)))
    old, new = _with_workers(_flat(before)), _with_workers(_flat(now))
    keys = [key for tree in (before, now) for key in keys_of(tree, TrainConfig, _trusted(now))]
    free = {key.name for key in keys if _is_place(key) or not key.identity}
    bound = {key.name for key in keys if key.decides}
    bound |= {f"{key.rpartition('.')[0]}._target_" for key in bound}
    decides = [
        k for k in sorted(old.keys() | new.keys()) if k in bound or (k not in free and k.partition(".")[0] not in FREE)
    ]
    options = {key.rpartition(".")[0] for key in decides if key.endswith("._target_") and old.get(key) != new.get(key)}
    return [change for key in decides for change in _changed(key, old.get(key), new.get(key), options)]


def refuse(changes: Sequence[Change], allowed: Sequence[str]) -> None:
    """ConfigError for the changes of a run that goes on which are not `allowed` by name."""
    refused = [change for change in changes if not set(change.names) & set(allowed)]
    if not refused:
        return
    first, names = refused[0], dict.fromkeys([*allowed, *(change.name for change in refused)])
    more = f" (and {len(refused) - 1} more)" if refused[1:] else ""
    hint = f"{f'go on with {first.again}, or ' if first.again else ''}start a new run with another name=..."
    if all(change.may_fit for change in refused):
        own = "tokenizer=pretrained tokenizer.path=RUN (the run's own) " if "tokenizer" in names else ""
        hint += f"; if it is meant: {own}resume.allow=[{','.join(names)}]"
    raise ConfigError(f"resume: {first.what}{more}", hint)


def check_names(allowed: Sequence[str], before: dict[str, Any], now: dict[str, Any]) -> None:
    """ConfigError if `resume.allow` has a name that no setting of the run has."""
    keys = {name for tree in (before, now) for key in _flat(tree) for name in _sections(key)}
    known = sorted({*keys, "tokenizer", "teacher", "data"})
    for name in allowed:
        if name not in known:
            close = nearest(name, known)
            raise ConfigError(
                f"resume.allow: there is no setting {name!r}{f'; did you mean {close}?' if close else ''}",
                "it takes names of keys and groups, such as resume.allow=[data,batch.size]",
            )


def _changed(key: str, was: Any, is_: Any, options: Container[str]) -> list[Change]:
    """The change of one setting, if there is one; `options`: where another option of a group was chosen."""
    if was == is_:
        return []
    shown, now = (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in (was, is_))
    again = setting(key, was) if isinstance(was, str) else f"{key}={shown}"
    what = f"{key} was {shown} in this run and is {now} now"
    names = _sections(key)
    name = next((name for name in names if name in options), key)
    if key.startswith("mix."):
        name = next((name for name in names if name in GROUPS and name != "mix"), "mix")
    return [Change(key, what, names, name, again)]


def _sections(key: str) -> tuple[str, ...]:
    """A dotted key and the sections that it is in, from the outermost; of a task's own the group as well: what is set
    by `mix.tasks.x.data.path` belongs to `data`."""
    parts = key.split(".")
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return (*names, *_sections(".".join(parts[3:]))) if parts[:2] == ["mix", "tasks"] and parts[3:] else tuple(names)


def _with_workers(flat: dict[str, Any]) -> dict[str, Any]:
    """The number of simulated workers under one key, whether `compression` or `runner` sets it: residuals belong to
    workers, so a run can be resumed with the same number of workers only."""
    both = ("compression.simulate_workers", "runner.workers")
    return flat | {both[0]: flat[both[0]] or flat.get(both[1])} if both[0] in flat else flat


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
