"""Finding all wrong overrides of a command line, so that they are reported together.

Hydra stops at the first one; the others are found by composing again without it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from typing import TypeVar

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException, ValidationError

from lmctl.config.mistakes import WrongName
from lmctl.core.errors import ConfigError, ConfigErrors

C = TypeVar("C")


class Several(Exception):
    """Several errors as they were raised, one per wrong word; all about names or all about values."""

    def __init__(self, errors: list[Exception]) -> None:
        super().__init__(str(errors[0]))
        self.errors = errors


def tried(compose: Callable[[list[str]], C], words: list[str], groups: Container[str], look: Callable[[C], None]) -> C:
    """`compose(words)`. If several words are wrong, raises `Several` instead of the first error; if all names are
    right, `look` adds wrong values of the rest."""
    try:
        return compose(words)
    except Exception as error:
        first = error
    # Not inside `except`: otherwise Python would chain the other errors to the first.
    found = sorted(_errors(compose, words, first, groups, look), key=lambda one: one[0])
    names = [error for _, error in found if not is_about_a_value(error)]
    reported = names or [error for _, error in found]
    raise reported[0] if len(reported) == 1 else Several(reported)


def is_about_a_value(error: Exception) -> bool:
    """Whether `error` is about a value, which means that all names are right."""
    first = error.errors[0] if isinstance(error, ConfigErrors) else error
    if isinstance(first, ConfigError):
        return not isinstance(first, WrongName)
    return any(isinstance(cause, ValidationError) for cause in _exception_chain(first))


def _errors(
    compose: Callable[[list[str]], C],
    words: list[str],
    error: Exception,
    groups: Container[str],
    look: Callable[[C], None],
) -> Iterator[tuple[int, Exception]]:
    """Each error with the index of its word; errors about no single word come last."""
    rest, values = list(words), True
    while True:
        word = culprit(error, rest)
        yield (len(words) if word is None else words.index(word)), error
        values = values and is_about_a_value(error)
        if word is None:
            return
        group = _key(word).partition("@")[0]
        # Keys of a group are dropped with its wrong option: they cannot be checked without it.
        rest = [one for one in rest if one != word and not (group in groups and "." in _key(one))]
        try:
            composed = compose(rest)
        except Exception as another:
            error = another
            continue
        try:
            if values:
                look(composed)
        except ConfigError as others:
            yield len(words), others
        return


def culprit(error: Exception, words: list[str]) -> str | None:
    """The word that caused `error`; None if unknown."""
    for cause in _exception_chain(error):
        key = None
        if isinstance(cause, OverrideParseException):
            return cause.override if cause.override in words else None
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file is not None:
            key, _, option = str(cause.missing_cfg_file).rpartition("/")
            return next((word for word in words if _key(word) == key and word.endswith(f"={option}")), None)
        if isinstance(cause, OmegaConfBaseException):
            key = cause.full_key
        found = [word for word in words if key and f"{_key(word)}.".startswith(f"{key}.")]
        if found:
            return found[-1]
    return None


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _exception_chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
