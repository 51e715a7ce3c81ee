"""Words of a command line: one function that writes a value so that a shell and Hydra's grammar give it back, and one
that reads it.

Names of runs and files are whatever people call them: `R &D`, `bob's`, `数据 [1]`, `a,b`, `2024_01`. Whoever writes
`key=value` for another process, or for a person to paste, writes it with these.
"""

from __future__ import annotations

import re
import shlex

_PLAIN = re.compile(r"(?:[^\W\d]|/|\.{1,2}/)[\w./@+-]*")
"""What needs no quotes: it can only be read as text."""
_MEANT_OTHERWISE = ("null", "true", "false", "nan", "inf")
_INTERPOLATION = re.compile(r"(\\*)\$\{")
_ESCAPED = re.compile(r"((?:\\\\)*)\\\$\{")
_BEFORE_QUOTE = re.compile(r'(\\*)("|\Z)')


def quoted(value: str) -> str:
    """`value` as one string to Hydra's grammar, whatever commas, brackets and quotes are in it. `${...}` in it still
    refers to another key."""
    # A quote is escaped by a backslash, and so are backslashes, but only those right before a quote or the end.
    return f'"{_BEFORE_QUOTE.sub(_escape, value)}"'


def _escape(match: re.Match[str]) -> str:
    return match[1] * 2 + (f"\\{match[2]}" if match[2] else "")


def literal(value: str) -> str:
    """As `quoted`, and `${...}` is text as well."""
    return quoted(_INTERPOLATION.sub(lambda match: match[1] * 2 + "\\${", value))


def setting(key: str, value: str) -> str:
    """The word `key=value` for lmctl, with quotes only where they are needed."""
    plain = _PLAIN.fullmatch(value) is not None and value.lower() not in _MEANT_OTHERWISE
    return f"{key}={value if plain else literal(value)}"


def command(*words: str, **settings: object) -> str:
    """A command to paste into a shell: `command("lmctl train", run_dir="runs/R &D")`. The words stand as they are;
    of the settings those that are None are left out."""
    typed = [shlex.quote(setting(key, str(value))) for key, value in settings.items() if value is not None]
    return " ".join([*words, *typed])


def is_quoted(value: str) -> bool:
    """Whether the whole of `value` is one string in quotes to Hydra's grammar."""
    return len(value) > 1 and value[0] in "'\"" and _hydra_string(value) is not None


def read(value: str) -> str:
    """The text that `value` of a `key=value` stands for: without the quotes that it may have been written with."""
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
