"""The help of a verb (`lmctl VERB --help`): description, config groups with their options, and keys."""

from __future__ import annotations

from collections.abc import Iterator

from lmctl.config.compose import Composer
from lmctl.config.described import option_keys, own_keys
from lmctl.config.topics import key_table, purpose
from lmctl.config.verb import GridVerb, summary
from lmctl.core.columns import table, terminal_width

FLAGS = (
    ("-m", "sweep: key=a,b runs every combination, each in a process of its own"),
    ("--cfg job", "print the composed config instead of running it"),
    ("--config-dir DIR", "a folder with config groups of your own"),
    ("--from FILE", "start from the config.yaml of an earlier run; group=option and key=value go on top"),
)
GRID = ("-m", "grid: key=a,b plans every combination, all in one table")


def verb_help(composer: Composer) -> str:
    """The whole help text of one verb."""
    width = terminal_width()
    verb, name = composer.verb, composer.verb.name
    lines = [f"usage: lmctl {name} [group=option ...] [key=value ...] [flags]", "", verb.purpose or summary(name), ""]
    if verb.often:
        lines += ["what people set most", *table(list(_common_keys(composer)), width), ""]
    if verb.examples:
        lines += ["examples", *(f"  {example}" for example in verb.examples), ""]
    lines += [
        "more",
        *table([(f"lmctl {name} --help {word}", what) for word, what in _help_words(composer)], width),
        "",
    ]
    for group, default in composer.defaults.items():
        lines.append(f"{group}=" + (f"   default {default}" if default else ""))
        lines += table([(option, composer.describe(group, option)) for option in composer.options(group)], width)
    lines += ["", "keys"]
    lines += key_table(own_keys(composer), width)
    flags = FLAGS if verb.has_run_dir else FLAGS[:-1]
    flags = (GRID, *flags[1:]) if isinstance(verb, GridVerb) else flags
    lines += ["", "flags", *table(flags, width)]
    return "\n".join(lines)


def _help_words(composer: Composer) -> Iterator[tuple[str, str]]:
    """Examples for `--help WORD`, with words of this verb."""
    group = "optim" if "optim" in composer.defaults else next(iter(composer.defaults), None)
    if group is not None:
        yield "GROUP", f"options of a group and their keys, as --help {group}"
        yield "GROUP=OPTION", f"the keys of one option, as --help {group}={composer.options(group)[-1]}"
    if group == "optim":
        yield "KEY", "one key or section, as --help optim.lr, --help budget"
    elif keys := own_keys(composer):
        yield "KEY", f"one key or section, as --help {keys[0].name}"


def _common_keys(composer: Composer) -> Iterator[tuple[str, str]]:
    """The most used keys, with their descriptions."""
    known = {key.name: key for key in own_keys(composer)}
    for group in {name.partition(".")[0] for name in composer.verb.often if "." in name} & set(composer.defaults):
        option = "text" if group == "data" else composer.defaults[group]
        known |= {key.name: key for key in option_keys(composer, group, str(option))}
    for name in composer.verb.often:
        if name in composer.defaults:
            default = composer.defaults[name]
            options = f"{len(composer.options(name))} options" + (f", default {default}" if default else "")
            yield f"{name}=", f"{purpose(name)}: {options}"
        else:
            yield f"{name}=", known[name].purpose
