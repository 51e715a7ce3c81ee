"""JSON lines: what other programs read from standard output, and what they have written for lmctl to read.

Every verb that takes `format=json` writes by `emit`, and every verb that reads JSON of no data source reads by
`parsed`, so that both are JSON as RFC 8259 has it, and not Python's (which has NaN, and half surrogate pairs).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def emit(record: Mapping[str, Any]) -> None:
    """Print one record on standard output, on a line of its own, at once."""
    print(line_of(record), flush=True)


def line_of(record: Any) -> str:
    """A record, or any other value, as one line of JSON. Numbers and arrays of numpy and torch are numbers and
    lists; a number that is not finite is null, because JSON has none; half a surrogate pair is U+FFFD; what JSON does
    not know (a date, a path) is its text."""
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {encodable(str(name)): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):  # numpy and torch, neither of which is imported for this
        return _plain(value.tolist())
    return encodable(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


def encodable(text: str) -> str:
    """`text` with U+FFFD where half a surrogate pair stands, which UTF-8 cannot say."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parsed(text: str) -> Any:
    """The value that `text` is as JSON; ValueError in words if it is none, if a key stands twice in an object, or if
    a string ends in the middle of a surrogate pair."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair (\\ud800 to \\udfff alone), which is no text") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found
