"""The config of an earlier run as the base of a command: `--from FILE`, a run that goes on, the text of a teacher."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from lmctl.config.audit import OF_THE_COMMAND
from lmctl.config.store import settings_of
from lmctl.config.verb import ConfigVerb


def saved_groups(saved: Mapping[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    """Of the config `saved` these config groups and the sequence length alone."""
    length = cast("dict[str, Any]", saved.get("batch") or {}).get("seq_len")
    kept = {group: saved[group] for group in groups if group in saved}
    return kept if length is None else kept | {"batch": {"seq_len": length}}


def on_top_of(
    saved: Mapping[str, Any], verb: ConfigVerb, defaults: Mapping[str, str | None], replaced: Collection[str]
) -> DictConfig:
    """The config of `verb`, for Hydra's config store, with what a run has `saved` in the place of its own settings.

    `defaults`: the verb's config groups with their default options; `replaced`: those that the command line chooses.
    """
    left_out = {*OF_THE_COMMAND, *replaced}  # an option on the command line replaces all of the saved one
    kept = {key: value for key, value in saved.items() if key not in left_out}
    # A group that did not exist when the run was saved has its default.
    groups: list[Any] = [
        {group: None} if group in replaced else {f"optional {group}": None if group in kept else default}
        for group, default in defaults.items()
    ]
    own = settings_of(verb)
    entries = [e for e in own["defaults"] if isinstance(e, str) or next(iter(e)).startswith("override ")]
    entries.remove(f"groups_{verb.name}")
    place = entries.index("_self_")
    node = {"defaults": [*entries[:place], *groups, *entries[place:]], "hydra": own.get("hydra", {}), **kept}
    return OmegaConf.create(node)
