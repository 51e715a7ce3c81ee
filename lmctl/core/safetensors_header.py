"""The headers of safetensors files: names, formats and shapes of tensors, checked against the bytes that are there."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

from lmctl.core.errors import ConfigError

_SIZES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
}
"""Bytes per number of safetensors' formats, where that is an integer."""
_MAX_HEADER = 100_000_000
"""Bytes of a safetensors header that the format allows."""
AGAIN = "copy or download it again"


class Stored(NamedTuple):
    """One tensor of a safetensors file."""

    kind: str
    """Its number format: F32, BF16, ..."""
    numbers: int


def header(what: str, file: Path) -> dict[str, Stored]:
    """The tensors of one safetensors file by name; ConfigError if it is damaged or not readable: tensors must lie one
    behind the other, each as long as its shape says, and fill the file."""
    size = file.stat().st_size
    try:
        with open(file, "rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(size - 8, _MAX_HEADER):
                raise ValueError("its header is cut off" if length > size - 8 else "its header is longer than 100 MB")
            entries = json.loads(opened.read(length))
        tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
        places, end = {str(name): _place(entry) for name, entry in tensors.items()}, 0
        for first, last in sorted(places.values()):
            if first != end:
                raise ValueError("its tensors overlap, or leave gaps")
            end = last
        if 8 + length + end != size:
            raise ValueError(f"it has {size:,} bytes, and its header says {8 + length + end:,}")
        most = {name: 8 * (last - first) for name, (first, last) in places.items()}  # of formats of unknown size
        return {
            name: Stored(str(entry["dtype"]), min(math.prod(entry["shape"]), most[name]))
            for name, entry in tensors.items()
        }
    except OSError as error:
        raise unreadable(what, file, error) from None
    except (struct.error, KeyError, TypeError, AttributeError, UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{what}: {file.name} is damaged: it has no header of safetensors", AGAIN) from None
    except ValueError as error:
        reason = "it has no header of safetensors" if isinstance(error, json.JSONDecodeError) else error
        raise ConfigError(f"{what}: {file.name} is damaged: {reason}", AGAIN) from None


def _place(entry: Any) -> tuple[int, int]:
    """Where a tensor's data begin and end in the file; ValueError if its shape is none, or of another size."""
    (start, end), shape = entry["data_offsets"], entry["shape"]
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in (start, end, *shape)) or len(shape) > 8:
        raise ValueError("a tensor has a shape or a place that no tensor has")
    size = _SIZES.get(entry["dtype"])
    if size is not None and end - start != size * math.prod(shape):
        raise ValueError("the size of a tensor is not that of its shape")
    return start, end


def unreadable(what: str, file: Path, error: OSError) -> ConfigError:
    """The error for a file that the system does not let us read."""
    return ConfigError(f"{what}: {file.name} cannot be read: {error.strerror or error}", "check its permissions")
