"""Quoting and unquoting of command-line words, for a shell and for Hydra's override grammar.

Names of runs and files can be anything: `R &D`, `bob's`, `数据 [1]`, `a,b`, `2024_01`. Code that writes `key=value` for
another process, or for a user to paste, uses these functions.
"""

from __future__ import annotations

import re
import shlex

_PLAIN = re.compile(r"(?:[^\W\d]|/|\.{1,2}/)[\w./@+-]*")
"""Needs no quotes: Hydra parses it as a plain string."""
_MEANT_OTHERWISE = ("null", "true", "false", "nan", "inf")
_INTERPOLATION = re.compile(r"(\\*)\$\{")
_ESCAPED = re.compile(r"((?:\\\\)*)\\\$\{")
_BEFORE_QUOTE = re.compile(r'(\\*)("|\Z)')


def quoted(value: str) -> str:
    """`value` as one quoted string in Hydra's grammar, with any commas, brackets and quotes. `${...}` still refers to
    another key."""
    # Hydra escapes quotes, and backslashes only where they stand right before a quote or the end.
    return f'"{_BEFORE_QUOTE.sub(_escape, value)}"'


def _escape(match: re.Match[str]) -> str:
    return match[1] * 2 + (f"\\{match[2]}" if match[2] else "")


def literal(value: str) -> str:
    """As `quoted`, with `${...}` escaped as well (no interpolation)."""
    return quoted(escaped(value))


def escaped(value: str) -> str:
    """`value` with every `${` escaped, so that it stands for itself."""
    return _INTERPOLATION.sub(lambda match: match[1] * 2 + "\\${", value)


def setting(key: str, value: str) -> str:
    """The word `key=value` for lmctl's command line, quoted only where needed."""
    plain = _PLAIN.fullmatch(value) is not None and value.lower() not in _MEANT_OTHERWISE
    return f"{key}={value if plain else literal(value)}"


def command(*words: str, **settings: object) -> str:
    """A shell command to paste: `command("lmctl train", run_dir="runs/R &D")`. `words` are not quoted; settings that
    are None are omitted."""
    typed = [for_shell(setting(key, str(value))) for key, value in settings.items() if value is not None]
    return " ".join([*words, *typed])


def for_shell(word: str) -> str:
    """The word as a shell takes it; letters and digits of any script need no quotes, which `shlex.quote` would add."""
    ascii_alike = re.sub(r"[^\W_]", "a", word)
    return word if shlex.quote(ascii_alike) == ascii_alike else shlex.quote(word)


def is_quoted(value: str) -> bool:
    """Whether the whole of `value` is one quoted string in Hydra's grammar."""
    return len(value) > 1 and value[0] in "'\"" and _hydra_string(value) is not None


def read(value: str) -> str:
    """The text that the value of a `key=value` stands for, without quotes and escapes."""
    text = _hydra_string(value) if is_quoted(value) else None
    return value if text is None else _ESCAPED.sub(lambda match: match[1][: len(match[1]) // 2] + "${", text)


def _hydra_string(value: str) -> str | None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return None
    return parsed if isinstance(parsed, str) else None
