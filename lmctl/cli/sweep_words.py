"""Errors for sweep values that Hydra's grammar cannot read, such as `interval(1e-4,1e-2` without its end."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import RangeSweep
from hydra.errors import HydraException

from lmctl.config.overrides import Overrides
from lmctl.core import command_words
from lmctl.core.errors import ConfigError
from lmctl.core.files import path_of

FUNCTIONS = ("choice", "interval", "range", "tag", "int", "float", "shuffle", "sort", "glob")
"""Functions of the grammar."""
HINT = "such as 'optim.lr=tag(log,interval(1e-4,1e-2))', 'model.hidden=range(64,257,64)' or model.layers=1,2,4"
PAIRS = {")": "(", "]": "[", "}": "{"}
_CALL = re.compile(r"\s*([a-z_]+)\s*\(")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def refuse_broken(overrides: Overrides, texts: Collection[str]) -> None:
    """ConfigError for a value that begins like a sweep or a list and is none, with the place of a wrong bracket.
    `texts`: keys whose values are text, which may look like anything."""
    for override in overrides:
        value = override.value or ""
        is_text = override.key in texts or command_words.is_quoted(value) or os.path.exists(path_of(value))
        if is_text or not _is_meant(value):
            continue
        try:
            parsed = OverridesParser.create().parse_override(str(override)).value()
            if isinstance(parsed, RangeSweep) and not parsed.step:
                raise ValueError("a range with steps of 0 has no end")
        except (HydraException, ValueError, RecursionError) as error:
            raise ConfigError(f"{override}: {_wrong_bracket(str(override)) or _reason(value, error)}", HINT) from None


def _is_meant(value: str) -> bool:
    """Whether a value is meant to be a sweep or a list."""
    call = _CALL.match(value)
    return value.startswith(("[", "{")) or (call is not None and _nearest(call[1]) is not None)


def _nearest(function: str) -> str | None:
    """The function that was meant. Words of a text, such as print(x), are not near enough."""
    return next(iter(difflib.get_close_matches(function, FUNCTIONS, n=1, cutoff=0.8)), None)


def _wrong_bracket(word: str) -> str | None:
    """The first bracket that closes nothing, or the last one that is never closed; None if all are in order."""
    opened = list[tuple[str, int]]()
    for place, mark in enumerate(_QUOTED.sub(lambda part: " " * len(part[0]), word)):
        if mark in PAIRS.values():
            opened.append((mark, place))
        elif mark in PAIRS and (not opened or opened.pop()[0] != PAIRS[mark]):
            return f"the {mark} at character {place + 1} closes nothing"
    if not opened:
        return None
    mark, place = opened[-1]
    return f"the {mark} after '{word[:place].rpartition('=')[2] or word[:place]}' (character {place + 1}) is not closed"


def _reason(value: str, error: Exception) -> str:
    """What Hydra says of it, in a line."""
    call = _CALL.match(value)
    if call is not None and call[1] not in FUNCTIONS:
        return f"there is no function {call[1]}; did you mean {_nearest(call[1])}?"
    said = (str(error).splitlines() or [""])[0]
    if type(error) is ValueError:
        return said
    return said.partition(": ")[2] if " while evaluating " in said else f"Hydra cannot read it ({said[:100]})"
