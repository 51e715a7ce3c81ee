"""Help texts for `--help WORD` and `lmctl list WORD`: a group, an option, a key or a section, generated from the
config."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import replace

from lmctl.config.compose import Composer
from lmctl.config.described import Described, component_groups, found, option_keys, own_keys
from lmctl.config.table import purposes
from lmctl.config.verb import verbs
from lmctl.core.columns import table, terminal_width
from lmctl.core.errors import ConfigError
from lmctl.core.suggest import nearest

OTHERS = {
    "objective": "what is predicted from what",
    "recipe": "settings that reproduce a known result",
}
"""Descriptions of the config groups that are in no table."""
LONGEST_DEFAULT = 32


def purpose(group: str) -> str:
    """A short description of a config group, from the tables of the verbs."""
    known = (purposes(one.schema) for one in verbs().values())
    return OTHERS.get(group) or next((each[group] for each in known if group in each), "")


def topic_help(composer: Composer, word: str) -> str:
    """The text of `--help WORD` for a group, an option, a key or a section; ConfigError if there is no match."""
    width = terminal_width()
    group, _, option = word.replace("=", ".", 1).partition(".")
    if group in composer.all_groups and option in ("", *composer.options(group)):
        return "\n".join(_option(composer, group, option, width) if option else _group(composer, group, width))
    keys = found(composer, word.rstrip(".=")) or found(composer, word.partition("=")[0])  # `lr=3` is about `lr`
    if not keys:
        raise _no_topic(composer, word)
    return "\n".join(_keys(keys, width))


def _group(composer: Composer, group: str, width: int) -> list[str]:
    default = composer.defaults.get(group)
    lines = [f"{group}=" + (f"   default {default}" if default else "") + f"   {purpose(group)}".rstrip()]
    lines += table([(option, composer.describe(group, option)) for option in composer.options(group)], width)
    shown = default or next(iter(composer.options(group)), None)
    if shown is not None:
        lines += ["", *_option(composer, group, shown, width)]
        lines += ["", f"keys of another: --help {group}=OPTION"]
    return lines


def _option(composer: Composer, group: str, option: str, width: int) -> list[str]:
    keys = option_keys(composer, group, option)
    return [f"{group}={option}   {composer.describe(group, option)}", *key_table(keys, width)]


def _keys(keys: list[Described], width: int) -> list[str]:
    """Keys that several options share with the same text are shown once."""
    options: dict[Described, list[str]] = {}
    for key in keys:
        options.setdefault(replace(key, option=""), []).append(key.option)
    shown = []
    for key, having in options.items():
        where = f" ({key.name.partition('.')[0]}={', '.join(filter(None, having))})" if any(having) else ""
        shown.append(replace(key, purpose=f"{key.purpose}{where}".strip()))
    return key_table(shown, width)


def _no_topic(composer: Composer, word: str) -> ConfigError:
    names = [*composer.all_groups, *(key.name for key in own_keys(composer))]
    group, equals, option = word.partition("=")
    if equals and group in composer.all_groups:
        raise composer.no_option(group, option, group)
    group = word.partition(".")[0]
    for known in [group] if group in component_groups(composer) else component_groups(composer):
        names += [f"{known}.{option}" for option in composer.options(known)]
        if (default := composer.defaults.get(known)) is not None:
            names += [f"{known}.{key.key}" for key in composer.keys(known, default)]  # faster than composing
    close = nearest(word, names) or nearest(word, [name.rpartition(".")[2] for name in names])
    hint = f"; did you mean {close}?" if close else ""
    return ConfigError(
        f"--help {word}: no group, option or key of that name{hint}", f"lmctl {composer.verb.name} --help"
    )


def key_table(keys: Iterable[Described], width: int) -> list[str]:
    """A table of key, type, default and purpose; a long default is truncated, `--cfg job` shows it whole."""
    rows = [(key.name, key.kind, _short(key.default), key.purpose) for key in keys]
    wide = [max((len(row[column]) for row in rows), default=0) for column in (0, 1, 2)]
    heads = ["  ".join(f"{row[c]:<{wide[c]}}" for c in (0, 1, 2)) for row in rows]
    if sum(wide) + 6 <= width * 2 // 3:
        return table([(head, row[3]) for head, row in zip(heads, rows, strict=True)], width)
    lines = []
    for head, row in zip(heads, rows, strict=True):  # names are too long for a column of purposes beside them
        lines += [f"  {head}".rstrip(), *(f"      {line}" for line in textwrap.wrap(row[3], width - 6))]
    return lines


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_DEFAULT else f"{text[: LONGEST_DEFAULT - 3]}..."
