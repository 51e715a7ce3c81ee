"""Command-line overrides: `key=value`, `+key=value`, `~key`, `group=option`, `group@place=option`.

All parsing and rewriting of overrides is in this file. Quoting, for a shell and for Hydra's grammar, is
`lmctl.core.command_words`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override as HydraOverride
from hydra.errors import HydraException

from lmctl.core import command_words


@dataclass(frozen=True)
class Override:
    """One override (word) of a command line."""

    key: str
    """A key, or a group with or without `@place`."""
    value: str | None
    """The raw value, quotes included; None if there is no `=`."""
    sign: str = ""
    """`+`, `++` or `~` before the key."""

    @classmethod
    def typed(cls, word: str) -> Override:
        """Parse any word; `str` gives it back unchanged."""
        head, equals, value = word.partition("=")
        key = head.lstrip("+~")
        return cls(key, value if equals else None, head[: len(head) - len(key)])

    @classmethod
    def setting(cls, key: str, text: str) -> Override:
        """`key=text`, quoted where necessary."""
        return cls.typed(command_words.setting(key, text))

    def __str__(self) -> str:
        return f"{self.sign}{self.key}" + ("" if self.value is None else f"={self.value}")

    @property
    def group(self) -> str:
        """The key without `@place`."""
        return self.key.partition("@")[0]

    @property
    def text(self) -> str:
        """The value without quotes and escapes."""
        return command_words.read(self.value or "")

    @property
    def removes(self) -> bool:
        """Whether it deletes the key: `~key`."""
        return "~" in self.sign

    @property
    def is_null(self) -> bool:
        """Whether the value is null."""
        return self.value in (None, "", "null")

    def parsed(self) -> HydraOverride | None:
        """The override parsed by Hydra; None on a syntax error."""
        try:
            return OverridesParser.create().parse_override(str(self))
        except (HydraException, ValueError, RecursionError):
            return None

    def parsed_value(self) -> Any:
        """The value parsed by Hydra; the raw text on a syntax error."""
        return self.value if (override := self.parsed()) is None else override.value()

    def quoted(self) -> Override:
        """With the value as one quoted string in Hydra's grammar; `${...}` still refers to another key."""
        return replace(self, value=command_words.quoted(self.value or ""))

    def readable(self) -> Override:
        """In a form that Hydra can parse: a value with a syntax error (non-Latin letters, an unmatched bracket) is
        quoted."""
        if self.is_null or command_words.is_quoted(str(self.value)) or self.parsed() is not None:
            return self
        return self.quoted()

    def as_text(self, several: bool = False, free: bool = False) -> Override:
        """For a key whose value is a string: `2024_01`, `1e5`, `on`, `a, b` and `[x]` are quoted.

        `several`: commas separate the values of a sweep. `free`: quotes and `${x}` are literal as well. `null` is
        unchanged.
        """
        value = str(self.value)
        if self.is_null or (command_words.is_quoted(value) and not (free and not several)):
            return self
        if not several:
            return replace(self, value=command_words.literal(value)) if free else self.quoted()
        if (override := self.parsed()) is None:
            return self.quoted()
        if isinstance(override.value(), str) or any(mark in value for mark in "'\"[]{}()\\$"):
            return self  # Hydra's own grammar of sweeps
        return replace(self, value=",".join(self._plain(part.strip()) for part in value.split(",")))

    def _plain(self, part: str) -> str:
        """One value of a sweep, quoted unless Hydra parses it as a string."""
        is_text = part == "null" or isinstance(Override("key", part).parsed_value(), str)
        return part if is_text else command_words.quoted(part)

    def as_list_of(self, key: str) -> Override:
        """The same setting under another key whose value is a list: `a.b=x,y` as `key=[x,y]`."""
        value = "" if self.is_null else str(self.value)
        return replace(self, key=key, value=value if value.startswith("[") else f"[{value}]")

    def is_sweep(self) -> bool:
        """Whether it has several values."""
        override = self.parsed()
        return override is not None and not self.removes and override.is_sweep_override()

    def is_hydras(self) -> bool:
        """Whether its key is one of Hydra's own."""
        return self.key.startswith("hydra")


@dataclass(frozen=True)
class Overrides:
    """An ordered list of overrides; the last one of a key wins."""

    each: tuple[Override, ...] = ()

    @classmethod
    def typed(cls, line: Iterable[str]) -> Overrides:
        return cls(tuple(map(Override.typed, line)))

    def render(self) -> list[str]:
        """The words, for Hydra or for another process."""
        return list(map(str, self.each))

    def __iter__(self) -> Iterator[Override]:
        return iter(self.each)

    def __len__(self) -> int:
        return len(self.each)

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __add__(self, other: Iterable[Override]) -> Overrides:
        return Overrides((*self.each, *other))

    def get(self, key: str) -> str | None:
        """The raw value of the last override of `key`; None if there is none."""
        values = [one.value or "" for one in self.each if one.key == key and not one.removes]
        return values[-1] if values else None

    def text(self, key: str) -> str | None:
        """The unquoted value of the last override of `key`; None if there is none, or if it is null."""
        value = self.get(key)
        return None if value in (None, "", "null") else command_words.read(str(value))

    def set(self, key: str, text: str) -> Overrides:
        """With `key=text` in place of other overrides of the key, quoted where necessary."""
        return Overrides((*self.each, Override.setting(key, text)))

    def only(self, keys: Container[str]) -> Overrides:
        """The overrides of `keys`."""
        return Overrides(tuple(one for one in self.each if one.key in keys))

    def gathered(self, key: str, is_plain: Callable[[Override], bool]) -> Overrides:
        """With the words for which `is_plain` is true as one list, the value of `key`."""
        plain, rest = self.split(is_plain)
        if not plain.each:
            return self
        words = ",".join(command_words.literal(str(word)) for word in plain)
        return Overrides((*rest.each, Override(key, f"[{words}]")))

    def without(self, *keys: str) -> Overrides:
        """The overrides of all other keys."""
        return Overrides(tuple(one for one in self.each if one.key not in keys))

    def split(self, belongs: Callable[[Override], bool]) -> tuple[Overrides, Overrides]:
        """Two lists: those for which `belongs` is true, and the others."""
        chosen = [belongs(one) for one in self.each]
        sides = ([one for one, is_in in zip(self.each, chosen, strict=True) if is_in is side] for side in (True, False))
        first, second = (Overrides(tuple(side)) for side in sides)
        return first, second

    def map(self, change: Callable[[Override], Override]) -> Overrides:
        """`change` applied to each."""
        return Overrides(tuple(map(change, self.each)))
