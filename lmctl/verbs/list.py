"""`lmctl list`: list the config groups, their options and what each is for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lmctl.config.verb import WordsCommand
from lmctl.core.columns import line_width, table
from lmctl.core.errors import ConfigError
from lmctl.core.json_lines import emit
from lmctl.core.suggest import nearest

if TYPE_CHECKING:
    from lmctl.config.compose import Composer

USAGE = """usage: lmctl list [GROUP | GROUP.OPTION | KEY] [format=json]

list the config groups, their options and what each is for: all of them, or one, as optim, optim.adamw, optim.lr;
with format=json one object per option, with its keys, or one per key"""


class List(WordsCommand):
    def run(self, words: Sequence[str]) -> None:
        """Print one group, or all of them; or a single option or key."""
        if {"-h", "--help"} & set(words):
            print(USAGE)
            return
        from lmctl.config.compose import Composer
        from lmctl.config.schema import FORMATS, one_of
        from lmctl.config.topics import topic_help

        composer = Composer("train")
        groups = composer.all_groups
        shape = next((word.removeprefix("format=") for word in reversed(words) if word.startswith("format=")), "text")
        try:
            one_of(FORMATS, format=shape)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        named = [word for word in words if not word.startswith("format=")]
        if len(named) > 1:
            raise ConfigError("lmctl list takes one group at most", f"groups: {', '.join(groups)}")
        if named and "." in named[0].replace("=", "."):
            text = topic_help(composer, named[0])  # ConfigError if the word is unknown
            if shape == "text":
                print(text)
            else:
                for record in topic_records(composer, named[0]):
                    emit(record)
            return
        for group in named:
            if group not in groups:
                known = [*groups, *(f"{kind}.{option}" for kind in groups for option in composer.options(kind))]
                close = next((name for name in known if name.endswith(f".{group}")), None) or nearest(group, known)
                hint = f"; did you mean {close}?" if close else ""
                raise ConfigError(f"no group '{group}'{hint}", f"groups: {', '.join(groups)}")
        if shape == "text":
            print("\n\n".join(group_card(composer, group) for group in named or groups))
            return
        for group in named or groups:
            for option in composer.options(group):
                emit(option_record(composer, group, option))


def group_card(composer: Composer, group: str) -> str:
    """A group's options, each with its description: one per line, folded on a terminal that is narrower."""
    default = composer.defaults.get(group)
    rows = [(option, composer.describe(group, option)) for option in composer.options(group)]
    return "\n".join([f"{group}" + (f" (default {default})" if default else ""), *table(rows, line_width())])


def option_record(composer: Composer, group: str, option: str) -> dict[str, Any]:
    """An option with its dotted keys, each with its default and its comment."""
    return {
        "group": group,
        "option": option,
        "default": composer.defaults.get(group) == option,
        "description": composer.describe(group, option),
        "keys": [key._asdict() for key in composer.keys(group, option)],
    }


def topic_records(composer: Composer, word: str) -> Iterator[dict[str, Any]]:
    """The option that `word` names, or the keys."""
    group, _, option = word.replace("=", ".", 1).partition(".")
    if group in composer.all_groups and option in composer.options(group):
        yield option_record(composer, group, option)
        return
    from lmctl.config.described import found

    for key in found(composer, word):
        yield {
            "key": key.name,
            "type": key.kind,
            "default": key.default,
            "comment": key.purpose,
            "option": key.option or None,
        }
