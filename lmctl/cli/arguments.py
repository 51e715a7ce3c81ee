"""Argument parsing: a command line split into Hydra's flags, lmctl's own flags, and overrides, in any order."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, field
from difflib import get_close_matches

from lmctl.config.compose import flag_parser
from lmctl.config.overrides import Override, Overrides
from lmctl.core.errors import ConfigError

OWN_FLAGS = {"--resume": "resume=auto"}
"""Flags that are short for an override (Hydra's parser cannot be extended)."""
ALIASES = {"-cd": "--config-dir", "-cn": "--config-name", "-cp": "--config-path", "-m": "--multirun", "-c": "--cfg",
           "-h": "--help", "-i": "--info", "-sc": "--shell-completion", "-p": "--package", "-r": "--run"}  # fmt: skip
TAKES_VALUE = {"--cfg", "--package", "--config-name", "--config-dir", "--from"}
CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
SHOWS = ("--cfg", "--info", "--hydra-help", "--shell-completion")
"""Flags with which Hydra shows information instead of running the verb."""
OF_JOBS = ("--config-dir", "--config-name", "--from")
"""Flags that are passed on to the processes of a sweep or of stages."""


class UnknownFlag(ConfigError):
    """An unknown flag `name`. `value`: the value given with it; `close`: the known flag most similar to it."""

    def __init__(self, name: str, value: str | None, close: str | None) -> None:
        super().__init__(f"unknown flag '{name}'" + (f"; did you mean {close}?" if close else ""))
        self.name, self.value, self.close = name, value, close


@dataclass
class Arguments:
    """The parsed words after the verb."""

    overrides: Overrides = field(default_factory=Overrides)
    flags: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def parse(cls, typed: list[str]) -> Arguments:
        """Parse the words. Flags may be anywhere among the overrides, with their value after `=` or as the next
        word."""
        arguments, rest = cls(), list(typed)
        while rest:
            word = rest.pop(0)
            if not word.startswith("-"):
                arguments.overrides += [Override.typed(word)]
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
            self.overrides += [Override.typed(f"resume={value}" if value else OWN_FLAGS[name])]
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

    @property
    def of_jobs(self) -> list[str]:
        """The given flags of OF_JOBS, to pass on."""
        return [word for name in OF_JOBS if (value := self.flags.get(name)) for word in (name, value)]

    def hydra_words(self, overrides: Overrides) -> list[str]:
        """The flags with other overrides, in the order of Hydra's parser: flags first, overrides last."""
        flags = []
        for name, value in self.flags.items():
            if name != "--from":
                # argparse would read a value that begins with a dash as a flag.
                flags += [name] if value is None else [f"{name}={value}"] if value.startswith("-") else [name, value]
        if self.flags.get("--info", "") is None:
            flags.append("all")
        return [*flags, *overrides.render()]


def stamp() -> str:
    """Date, time and four hex digits; the same in all processes of one launcher. Of several nodes, whose clocks may be
    apart, the run takes that of rank 0."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    import psutil

    parent = psutil.Process(os.getppid())
    started = time.strftime("%Y%m%d-%H%M%S", time.localtime(parent.create_time()))
    return f"{started}-{parent.pid % 0x10000:04x}"
