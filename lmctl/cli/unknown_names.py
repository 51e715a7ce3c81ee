"""Errors for names that the config does not have: options, groups and keys, with what was probably meant."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lmctl.cli import did_you_mean
from lmctl.config.described import keys_named
from lmctl.config.table import typed_names
from lmctl.config.verb import verbs
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.suggest import listed, nearest

if TYPE_CHECKING:
    from lmctl.config.compose import Composer


def no_option(group: str, name: str, composer: Composer) -> ConfigError:
    """The error for an option that a group has not; without a `group`, `name` is one of Hydra's, with its groups."""
    outside = not group
    if outside:
        group, _, name = name.rpartition("/")
    if (instead := did_you_mean.option(group, name)) is not None:
        return ConfigError(f"no option '{name}' in group '{group}'", f"did you mean {instead}?")
    if outside and not group:
        return ConfigError(f"no config named '{name}'")
    return composer.no_option(group, name, group)


def unknown_key(key: str, composer: Composer) -> ConfigError:
    """The error for a key that the config has not, with the nearest one that it has."""
    if (elsewhere := did_you_mean.setting(key, composer)) is not None:
        return ConfigError(f"unknown key '{key}'; did you mean {elsewhere}?")
    keys: list[str] = []
    chosen = dict(composer.defaults)
    with contextlib.suppress(HydraException, OmegaConfBaseException, LmctlError):  # another error: no suggestions
        composed = composer.compose(composer.choices.render())
        keys = list(_keys(composed))
        if key.startswith("hydra."):
            keys = [one for part in ("launcher", "sweeper") for one in _keys(composed.hydra[part], f"hydra.{part}.")]
        chosen |= composed.hydra.runtime.choices  # a mix may choose the model
    group, _, rest = key.partition(".")
    if rest and group in composer.defaults:
        others = _with_key(group, rest, composer)
        if others or not nearest(key, [known for known in keys if known.startswith(f"{group}.")]):
            return _key_of_other_option(group, rest, others, chosen[group], group in composer.choices)
    if group in composer.all_groups and group not in composer.defaults:
        return no_group(group, composer)
    if close := nearest(key, typed_names(composer.schema)):
        return ConfigError(f"unknown key '{key}'; did you mean {close}?")
    last = key.rpartition(".")[2]
    by_last = {known.rpartition(".")[2]: known for known in reversed(keys)}
    misspelt = difflib.get_close_matches(last, by_last, n=1, cutoff=0.8)
    close = by_last.get(last) or nearest(key, keys) or (by_last[misspelt[0]] if misspelt else None)
    if close:
        return ConfigError(f"unknown key '{key}'; did you mean {close}?")
    return ConfigError(f"unknown key '{key}'", f"lmctl {composer.verb.name} --help lists the keys")


def no_group(group: str, composer: Composer) -> ConfigError:
    """The error for `quantize=int8_dynamic` given to a verb without the group `quantize`."""
    verb = composer.verb.name
    if group == "model" and "model_path" in composer.schema.__dataclass_fields__:
        return ConfigError(f"lmctl {verb} takes no 'model'; did you mean model_path=...?")
    others = [name for name, one in verbs().items() if group in {field.name for field in fields(one.schema)}]
    takes = f"; lmctl {', '.join(others)} {'does' if len(others) == 1 else 'do'}" if others else ""
    return ConfigError(f"lmctl {verb} takes no '{group}'{takes}", f"groups: {', '.join(composer.defaults)}")


def _with_key(group: str, rest: str, composer: Composer) -> list[str]:
    """The options of a group that have the key `rest`."""
    return list(dict.fromkeys(key.option for key in keys_named(composer, group, rest.rpartition(".")[2])
                              if key.name == f"{group}.{rest}"))  # fmt: skip


def _key_of_other_option(group: str, rest: str, others: list[str], chosen: str | None, typed: bool) -> ConfigError:
    """The error for a key that the chosen option of a group lacks, such as `data.path`, and others have. `typed`: the
    command line chooses the option."""
    hint = f"{listed([f'{group}={name}' for name in others], 8)} {'has' if len(others) == 1 else 'have'} it"
    if chosen and not typed:
        hint += ": write one of them as well"
    where = f" of {group}={chosen}" if chosen else f": no option of {group} is chosen"
    return ConfigError(f"unknown key '{group}.{rest}'{where}", hint if others else None)


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a config without Hydra's own; shallow ones first."""
    children = []
    for name in map(str, node):
        if (not prefix and name == "hydra") or name == "_target_":
            continue
        yield f"{prefix}{name}"
        child = node._get_node(name)
        if isinstance(child, DictConfig) and isinstance(child._content, dict):
            children.append((child, f"{prefix}{name}."))
    for child, below in children:
        yield from _keys(child, below)
