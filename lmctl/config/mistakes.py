"""Config errors in plain words, collected so that all are reported together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from omegaconf.errors import OmegaConfBaseException

from lmctl.core.errors import ConfigError, together
from lmctl.core.suggest import nearest


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


class WrongName(ConfigError):
    """An unknown or missing key or component; reported before wrong values."""


class Mistakes:
    """Collects config errors, names and values apart, in the order of the keys."""

    def __init__(self) -> None:
        self.names: list[ConfigError] = []
        self.values: list[ConfigError] = []

    def __len__(self) -> int:
        return len(self.names) + len(self.values)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Context manager: collect a ConfigError that is raised inside."""
        try:
            yield
        except WrongName as error:
            self.names.append(error)
        except ConfigError as error:
            self.values.append(error)

    def tell(self) -> None:
        """Raise the collected errors as one, if there are any: wrong values only if all names are right."""
        if (error := together(self.names or self.values)) is not None:
            raise error


class UnknownKey(WrongName):
    """`key` is not one of the keys of `path`."""

    def __init__(self, path: str, key: str, known: Iterable[str]) -> None:
        known = list(known)
        self.key, self.close = join(path, key), nearest(key, known)
        if self.close:
            super().__init__(f"unknown key '{self.key}'; did you mean {join(path, self.close)}?")
        else:
            takes = f"{path or 'the config'} takes: {', '.join(known) or 'no keys'}"
            super().__init__(f"unknown key '{self.key}'", takes)


class Missing(WrongName):
    """The key `path` has no value, and needs one."""

    def __init__(self, path: str, hint: str | None = None) -> None:
        self.path = path
        super().__init__(f"'{path}' is required", hint or f"give it as: {path}=...")


_NOT_CONVERTED = re.compile(r"Value '(.*)' \(?of type '\w+'\)? could not be converted to (\w+)", re.DOTALL)
_WANTED = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


def wrong_value(path: str, error: OmegaConfBaseException) -> ConfigError:
    """OmegaConf's type error for a value, in plain words."""
    message = str(error).splitlines()[0]
    if match := _NOT_CONVERTED.search(message):
        value, wanted = match[1], _WANTED.get(match[2], match[2])
        if not value.strip():
            return ConfigError(f"{path} must be {wanted}, and nothing is given", f"write it after the =: {path}=...")
        whole = (
            wanted == "a whole number"
            and re.fullmatch(r"(\d+\.?\d*|\.\d+)(e\+?\d+)?", value)
            and float(value).is_integer()
        )
        return ConfigError(f"{path} must be {wanted}, got {value}", f"write {float(value):.0f}" if whole else None)
    if match := re.search(r"Value '(.*)' is not a valid bool", message):
        return ConfigError(
            f"{path} must be true or false, {f'got {match[1]}' if match[1].strip() else 'and nothing is given'}"
        )
    if "Invalid type assigned" in message:
        return ConfigError(f"{path} is a section, not a value", f"set its keys: {path}.KEY=...")
    if "is not a ListConfig" in message:
        return ConfigError(f"{path} must be a list", f"one thing is a list as well: {path}=[...]")
    if "not Optional" in message or "'None'" in message:
        return ConfigError(f"{path} cannot be null")
    return ConfigError(f"{path}: {message}")
