"""`lmctl list [GROUP]`: the config groups, their options and what each is for, read from the YAML files themselves."""

from __future__ import annotations

from lmctl.config.compose import Composer
from lmctl.core.errors import ConfigError
from lmctl.core.suggest import nearest


def run(words: list[str]) -> None:
    """Print one group, or all of them."""
    if {"-h", "--help"} & set(words):
        print("usage: lmctl list [GROUP]\n\nlist the config groups, their options and what each is for")
        return
    composer = Composer("train")
    groups = composer.all_groups
    if len(words) > 1:
        raise ConfigError("lmctl list takes one group at most", f"groups: {', '.join(groups)}")
    if words and "." in words[0].replace("=", "."):
        from lmctl.cli.help import topic_help

        print(topic_help(composer, words[0]))
        return
    for group in words:
        if group not in groups:
            close = nearest(group, groups)
            hint = f"; did you mean {close}?" if close else ""
            raise ConfigError(f"no group '{group}'{hint}", f"groups: {', '.join(groups)}")
    print("\n\n".join(group_card(composer, group) for group in words or groups))


def group_card(composer: Composer, group: str) -> str:
    """A group's options, one per line, each with the first comment line of its file."""
    options = composer.options(group)
    width = max([len(option) for option in options], default=0)
    default = composer.defaults.get(group)
    lines = [f"{group}" + (f" (default {default})" if default else "")]
    lines += [f"  {option:<{width}}  {composer.describe(group, option)}".rstrip() for option in options]
    return "\n".join(lines)
