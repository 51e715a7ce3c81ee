"""Raw overrides, before Hydra parses them: values of text keys are quoted, and full-width punctuation of an input
method (`seed＝2`, `name=x，seed=3`) is refused instead of becoming part of a name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from lmctl.cli.sweep_words import refuse_broken
from lmctl.config.keys import Key
from lmctl.config.overrides import Override, Overrides
from lmctl.core import command_words
from lmctl.core.errors import ConfigError
from lmctl.core.files import path_of

_QUOTES = {ord(mark): '"' for mark in "“”„‟＂〝〞「」『』"} | {ord(mark): "'" for mark in "‘’‚‛＇"}
_DOTS = {ord("。"): ".", ord("、"): ","}
_SECOND = re.compile(r"[,;，；、\s]\s*[+~]*([A-Za-z_]\w*)[\w.@/]*\s*[=＝]")
"""A second setting inside a value."""
_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'')
"""A quoted part of a value."""
_NAME = re.compile(r"([A-Za-z_][\w.]*)(?::|$)")
"""A word that is a name, or begins with one and a colon."""
OWN_WAY = {
    "hydra.run.dir": "where a run is written is said by name=... or run_dir=...",
    "hydra.sweep.dir": "where a sweep is written is said by name=... or run_dir=...",
    "hydra.sweep.subdir": "jobs are named after what varies, below name=... or run_dir=...",
    "hydra.job.name": "a run is named by name=...",
    "hydra.job.chdir": "paths are relative to where lmctl is started",
    "hydra.output_subdir": "the config of a run is kept in its config.yaml",
    "hydra.mode": "a sweep is asked for by -m",
}
"""Settings of Hydra that lmctl controls itself, and the alternative."""


def refuse_hydras_own(overrides: Overrides) -> None:
    """ConfigError for a Hydra setting that lmctl would silently override."""
    for override in overrides:
        if (instead := OWN_WAY.get(override.key)) is not None:
            raise ConfigError(f"{override.key} is not for lmctl", instead)


def refuse_slips(overrides: Overrides, known: Collection[str], free: Collection[str]) -> None:
    """ConfigError for full-width punctuation in place of `=`, `,` or quotes, and for a second setting inside a value.
    `known` are the keys and groups of the verb, `free` the keys of literal text."""
    for override in overrides:
        word, key, value = str(override), f"{override.sign}{override.key}", override.value
        if plain(key) != key:
            raise ConfigError(
                f"'{word}' has full-width characters or quotes where its key or its = should be",
                f"write {plain(word).strip(chr(34) + chr(39))}",
            )
        if value is None or override.key in free or command_words.is_quoted(value) or os.path.exists(path_of(value)):
            continue
        bare = _QUOTED.sub(lambda part: " " * len(part[0]), value)  # a run may be called `a,seed=1`
        if (second := _SECOND.search(bare)) and second[1] in known:
            rest = plain(value[second.start() :]).lstrip(",; ")
            raise ConfigError(
                f"'{word}' holds a second setting",
                f"separate settings with a space: {key}={value[: second.start()]} {rest}",
            )
        if len(value) > 2 and value[0] != plain(value[0]) in "\"'" and plain(value[-1]) == plain(value[0]):
            raise ConfigError(f"{key}={value} has typographic quotes", f"write {key}={value[1:-1]}")


def readable(overrides: Overrides, texts: Collection[str], free: Collection[str], several: bool) -> Overrides:
    """The overrides in a form that Hydra parses; values of the keys `texts` are quoted, of `free` to the letter. With
    -m (`several`), a comma in `name=a,b` separates two values; without it, it is text."""
    if several:
        refuse_broken(overrides, texts)

    def quoted(override: Override) -> Override:
        if not several and override.key in texts and not override.removes:
            return override.as_text(free=override.key in free)
        return override.readable()

    return overrides.map(quoted)


def with_keys(overrides: Overrides, keys: Sequence[str], known: Collection[str]) -> Overrides:
    """The overrides with `keys`, in this order and as far as they are not given, before words that stand alone. Words
    that begin with one of the `known` keys and groups and are no files, or stand beside a `=`, are left as they are:
    mistakes."""
    typed = list(overrides)
    left = iter([key for key in keys if overrides.get(key) is None])

    def with_key(place: int, override: Override) -> Override:
        after = str(typed[place + 1]) if place + 1 < len(typed) else ""
        before = str(typed[place - 1]) if place else ""
        name = _NAME.match(str(override))
        is_setting = name is not None and (name[1] in known or name[1].partition(".")[0] in known)
        is_setting = is_setting and not os.path.exists(path_of(str(override)))  # a folder may be called `model`
        slip = after.startswith("=") or before.endswith("=") or is_setting
        if override.value is not None or not str(override) or slip:
            return override
        key = next(left, None)
        return override if key is None else Override(key, str(override))

    return Overrides(tuple(with_key(*each) for each in enumerate(typed)))


def with_places(overrides: Overrides, key: str, known: Collection[str]) -> Overrides:
    """The overrides with all words that are places as one list, the value of `key`; names of runs may have an `=`."""

    def is_place(word: Override) -> bool:
        if word.value is None:
            return not word.sign or "/" in word.key  # ~/runs
        is_setting = word.sign or word.is_hydras() or word.key in known
        return not is_setting and ("/" in word.key or os.path.exists(str(word)))

    return overrides.gathered(key, is_place)


def by_group_name(overrides: Overrides, names: Mapping[str, str]) -> Overrides:
    """The overrides with other names of groups replaced by the groups' own: `format=onnx`, `format.opset=18` as
    `export=onnx`, `export.opset=18`. `names`: see `lmctl.config.table.typed_names`."""

    def renamed(override: Override) -> Override:
        head, dot, rest = override.key.partition(".")
        return replace(override, key=f"{names[head]}{dot}{rest}") if head in names else override

    return overrides.map(renamed)


def plain(text: str) -> str:
    """`text` with full-width letters, digits and punctuation, and typographic quotes, converted to ASCII; other letters
    are unchanged."""
    return "".join(_plain_character(character) for character in text)


def _plain_character(character: str) -> str:
    other = character.translate(_QUOTES | _DOTS)
    folded = unicodedata.normalize("NFKC", other)
    return folded if len(folded) == 1 and folded.isascii() else other


def kept_as_typed(overrides: Overrides, keys: Mapping[str, Key], several: bool) -> Overrides:
    """The overrides with the values of text keys quoted where Hydra would parse them as another type. `keys`: the keys
    of the composed config; `several`: commas separate the values of a sweep."""

    def kept(override: Override) -> Override:
        key = keys.get(override.key)
        if key is None or override.removes or override.value is None:
            return override
        if key.hint is not str and isinstance(key.value, list | dict):
            return override
        if key.is_text:
            return override.as_text(several)
        _refuse_wide_digits(override, key)
        return override

    return overrides.map(kept)


def _refuse_wide_digits(override: Override, key: Key) -> None:
    if key.hint in (int, float, bool) and plain(str(override.value)) != override.value:
        value = override.text
        raise ConfigError(f"{key.name}={value} has full-width characters", f"write {key.name}={plain(value)}")
