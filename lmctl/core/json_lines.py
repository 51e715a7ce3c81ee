"""Reading and writing JSON lines, strictly by RFC 8259.

Every verb with `format=json` writes with `emit`; every verb that reads JSON which is no data source uses `parsed`.
Python's own JSON also accepts NaN and unpaired surrogates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def emit(record: Mapping[str, Any]) -> None:
    """Print one record to standard output as one line, flushed at once."""
    print(line_of(record), flush=True)


def line_of(record: Any) -> str:
    """Any value as one line of JSON. numpy and torch numbers and arrays become numbers and lists; a number that is not
    finite becomes null; an unpaired surrogate becomes U+FFFD; other types (a date, a path) become strings."""
    return json.dumps(_json_value(record), ensure_ascii=False, allow_nan=False)


def _json_value(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {encodable(str(name)): _json_value(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json_value(one) for one in value]
    if hasattr(value, "tolist"):  # numpy and torch, neither of which is imported for this
        return _json_value(value.tolist())
    return encodable(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


def encodable(text: str) -> str:
    """`text` with U+FFFD for unpaired surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parsed(text: str) -> Any:
    """Parse `text` as JSON; ValueError with a plain message if it is not JSON, has a duplicate key, or has an unpaired
    surrogate in a string."""
    try:
        value = json.loads(text, object_pairs_hook=_refuse_duplicate_keys)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair (\\ud800 to \\udfff alone), which is no text") from None
    return value


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found
