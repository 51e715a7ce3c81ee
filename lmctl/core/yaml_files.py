"""Reading YAML of unknown origin: size, depth and number of nodes are limited, aliases and tags refused.

A few lines of nested aliases stand for gigabytes ("billion laughs"), and a tag asks the reader for an object. Neither
has a use in a config or in the head of a README. Events of the parser are looked at, before anything is built.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import yaml

from lmctl.core.regular_files import read_bytes

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 50_000

_PARSER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def read(path: Path) -> str:
    """The text of a YAML file. ValueError if it is larger than the limit, or no file: a pipe or a device has no end;
    OSError and UnicodeDecodeError as from `open`."""
    try:
        return read_bytes(path, MAX_BYTES).decode()
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ValueError("larger than 1 MiB") from None
        if error.errno == errno.EINVAL:
            raise ValueError("is no regular file") from None
        raise


def refusal(place: str | Path, error: yaml.YAMLError) -> str:
    """What is wrong with the YAML in `place`, with its line where that is known."""
    match error:
        case yaml.MarkedYAMLError() if error.problem_mark is not None:
            return f"{place}:{error.problem_mark.line + 1}: {error.problem}"
        case yaml.reader.ReaderError():
            character = ascii(chr(error.character) if isinstance(error.character, int) else error.character)
            return f"{place}: not YAML: {character} at character {error.position:,} is not allowed there"
    return f"{place}: not YAML: {' '.join(str(error).split())}"


def scalars(text: str) -> list[str]:
    """All keys and plain values of a YAML document, in order. ValueError with the reason if it exceeds a limit, or has
    an anchor, an alias or a tag; yaml.YAMLError if it is not YAML."""
    if len(text) > MAX_BYTES or len(text.encode(errors="replace")) > MAX_BYTES:
        raise ValueError("larger than 1 MiB")
    found: list[str] = []
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_PARSER):
        if isinstance(event, yaml.AliasEvent) or (isinstance(event, yaml.NodeEvent) and event.anchor is not None):
            raise ValueError("has YAML anchors")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if not isinstance(event, yaml.NodeEvent):
            continue
        nodes += 1
        if nodes > MAX_NODES:
            raise ValueError(f"has more than {MAX_NODES:,} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            if event.tag is not None and not any(event.implicit):
                raise ValueError(f"has a YAML tag ({event.tag})")
            found.append(event.value)
        elif isinstance(event, yaml.CollectionStartEvent) and event.tag is not None:
            raise ValueError(f"has a YAML tag ({event.tag})")
    return found


def load(text: str) -> Any:
    """The document as plain data, within the limits of `scalars`; raises what it raises."""
    scalars(text)
    return yaml.load(text, Loader=_PARSER)
