"""A command line taken apart: Hydra's flags, lmctl's own flags, and the overrides, in any order."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from lmctl.config.compose import flag_parser
from lmctl.core.errors import ConfigError
from lmctl.core.suggest import nearest

OWN_FLAGS = {"--resume": "resume=auto"}
"""Flags that stand for an override (Hydra lets nobody add flags)."""
ALIASES = {"-cd": "--config-dir", "-cn": "--config-name", "-cp": "--config-path", "-m": "--multirun", "-c": "--cfg",
           "-h": "--help", "-i": "--info", "-sc": "--shell-completion", "-p": "--package", "-r": "--run"}  # fmt: skip
TAKES_VALUE = {"--cfg", "--package", "--config-name", "--config-dir", "--from"}
CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}


@dataclass
class Arguments:
    """What stands after the verb."""

    overrides: list[str] = field(default_factory=list)
    flags: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def parse(cls, words: list[str]) -> Arguments:
        """Flags may stand anywhere among the overrides, with their value behind `=` or as the next word."""
        arguments, rest = cls(), list(words)
        while rest:
            word = rest.pop(0)
            if not word.startswith("-"):
                arguments.overrides.append(word)
                continue
            name, equals, text = word.partition("=")
            name = ALIASES.get(name, name)
            value: str | None = text if equals else None
            if (
                value is None
                and rest
                and (
                    name in TAKES_VALUE
                    or (name == "--info" and rest[0] in CHOICES[name])
                    or (name == "--help" and not rest[0].startswith("-"))
                )
            ):
                value = rest.pop(0)
            arguments._flag(name, value)
        return arguments

    def _flag(self, name: str, value: str | None) -> None:
        if name == "--resume":
            self.overrides.append(f"resume={value}" if value else OWN_FLAGS[name])
            return
        if name == "--experimental-rerun":
            raise ConfigError(
                "--experimental-rerun unpickles a file, which can run any code, and is refused",
                "repeat a run with: lmctl train --from runs/NAME/config.yaml",
            )
        if name == "--config-path":
            raise ConfigError("--config-path would hide lmctl's own options", "add yours with --config-dir FOLDER")
        known = {option for action in flag_parser()._actions for option in action.option_strings}
        known |= {"--from", *OWN_FLAGS}
        if name not in known:
            close = nearest(name, known)
            raise ConfigError(f"unknown flag '{name}'" + (f"; did you mean {close}?" if close else ""))
        if name in TAKES_VALUE and value is None:
            raise ConfigError(f"{name} needs a value")
        if value is not None and value not in CHOICES.get(name, (value,)):
            raise ConfigError(f"{name} {value}: there is {', '.join(CHOICES[name])}")
        self.flags[name] = value

    def has(self, flag: str) -> bool:
        return flag in self.flags

    def value(self, key: str) -> str | None:
        """The last value that an override gives to `key`, as typed."""
        values = [word.partition("=")[2] for word in self.overrides if word.lstrip("+").partition("=")[0] == key]
        return values[-1] if values else None

    def hydra_words(self) -> list[str]:
        """The same command line as Hydra's parser wants it: flags first, overrides last."""
        words = []
        for name, value in self.flags.items():
            if name != "--from":
                words += [name] if value is None else [name, value]
        if self.flags.get("--info", "") is None:
            words.append("all")
        return [*words, *self.overrides]


def quoted(value: str) -> str:
    """`value` as one string to Hydra, whatever commas, brackets and quotes are in it."""
    return QuotedString(value, Quote.single).with_quotes()


def readable(word: str, text_keys: Collection[str] = ()) -> str:
    """An override as Hydra can read it.

    Its grammar takes `prompt=The [MASK] fell, twice` for lists and choices, and knows no letters but the Latin ones.
    What it cannot read, and the values of `text_keys`, are meant literally.
    """
    key, equals, value = word.partition("=")
    if not equals or value in ("", "null") or value[0] in "'\"":
        return word
    literal = f"{key}={quoted(value)}"
    if key.lstrip("+") in text_keys:
        return literal
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return literal
    return word


def stamp() -> str:
    """Date, time and four hex digits; the same in all processes that one launcher has started."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    if int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1:
        raise ConfigError("several machines cannot make up one name for the run", "give it: name=...")
    import psutil

    parent = psutil.Process(os.getppid())
    started = time.strftime("%Y%m%d-%H%M%S", time.localtime(parent.create_time()))
    return f"{started}-{parent.pid % 0x10000:04x}"
