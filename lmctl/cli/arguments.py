"""A command line taken apart: Hydra's flags, lmctl's own flags, and the overrides, in any order."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from lmctl.config.compose import flag_parser
from lmctl.core import words
from lmctl.core.errors import ConfigError

OWN_FLAGS = {"--resume": "resume=auto"}
"""Flags that stand for an override (Hydra lets nobody add flags)."""
ALIASES = {"-cd": "--config-dir", "-cn": "--config-name", "-cp": "--config-path", "-m": "--multirun", "-c": "--cfg",
           "-h": "--help", "-i": "--info", "-sc": "--shell-completion", "-p": "--package", "-r": "--run"}  # fmt: skip
TAKES_VALUE = {"--cfg", "--package", "--config-name", "--config-dir", "--from"}
CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}


class UnknownFlag(ConfigError):
    """`name` is no flag. `value`: what stands behind it; `close`: the flag that is written alike."""

    def __init__(self, name: str, value: str | None, close: str | None) -> None:
        super().__init__(f"unknown flag '{name}'" + (f"; did you mean {close}?" if close else ""))
        self.name, self.value, self.close = name, value, close


@dataclass
class Arguments:
    """What stands after the verb."""

    overrides: list[str] = field(default_factory=list)
    flags: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def parse(cls, typed: list[str]) -> Arguments:
        """Flags may stand anywhere among the overrides, with their value behind `=` or as the next word."""
        arguments, rest = cls(), list(typed)
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
            following = rest[0] if rest and not rest[0].startswith("-") and "=" not in rest[0] else None
            arguments._flag(name, value, following)
        return arguments

    def _flag(self, name: str, value: str | None, following: str | None) -> None:
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
            close = get_close_matches(name, known, n=1, cutoff=0.8) if name.startswith("--") else []
            raise UnknownFlag(name, value or following, close[0] if close else None)
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

    def text(self, key: str) -> str | None:
        """The text that an override gives to `key`; None if there is none, or if it is null."""
        value = self.value(key)
        return None if value in (None, "", "null") else words.read(str(value))

    def hydra_words(self) -> list[str]:
        """The same command line as Hydra's parser wants it: flags first, overrides last."""
        flags = []
        for name, value in self.flags.items():
            if name != "--from":
                # A value that begins with a dash must not be taken for a flag.
                flags += [name] if value is None else [f"{name}={value}"] if value.startswith("-") else [name, value]
        if self.flags.get("--info", "") is None:
            flags.append("all")
        return [*flags, *self.overrides]


def readable(word: str) -> str:
    """An override as Hydra can read it: what its grammar does not take (letters that are not Latin, half a bracket) is
    meant as it stands."""
    key, equals, value = word.partition("=")
    if not equals or value in ("", "null") or words.is_quoted(value):
        return word
    return word if parsed(word) is not None else f"{key}={words.quoted(value)}"


def as_text(word: str, several: bool = False, free: bool = False) -> str:
    """The override of a key whose value is text: `2024_01`, `1e5`, `on`, `a, b` and `[x]` are what they look like.

    `several`: commas part the values of a sweep. `free`: quotes and `${x}` are text as well. `null` stays what it is.
    """
    key, equals, value = word.partition("=")
    if not equals or value in ("", "null") or (words.is_quoted(value) and not (free and not several)):
        return word
    if not several:
        return f"{key}={words.literal(value) if free else words.quoted(value)}"
    if (override := parsed(word)) is None:
        return f"{key}={words.quoted(value)}"
    if isinstance(override.value(), str) or any(mark in value for mark in "'\"[]{}()\\$"):
        return word  # Hydra's own grammar of sweeps
    return f"{key}={','.join(_plain(part.strip()) for part in value.split(','))}"


def _plain(part: str) -> str:
    return part if part == "null" or isinstance(_value(part), str) else words.quoted(part)


def _value(part: str) -> Any:
    override = parsed(f"key={part}")
    return part if override is None else override.value()


def parsed(word: str) -> Override | None:
    """The word as Hydra reads it; None if it cannot."""
    try:
        return OverridesParser.create().parse_override(word)
    except (HydraException, ValueError, RecursionError):
        return None


def key_of(word: str) -> str:
    """The key that an override sets, adds or takes out."""
    return word.partition("=")[0].lstrip("+~")


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
