"""What the YAML files of the options say in their comments: an option in its first line, a key beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from omegaconf import MISSING


def first_comment(text: str) -> str:
    """The first line of a YAML file that is a comment for people; empty if it does not begin with one."""
    for line in text.splitlines():
        if not line.startswith("# @"):
            return line.lstrip("# ").rstrip() if line.startswith("#") else ""
    return ""


class Key(NamedTuple):
    """One key of an option's file."""

    key: str
    """As one types it behind the group: `terms.logits.weight`."""
    default: Any
    """None as well where there is none and it must be given."""
    required: bool
    comment: str
    """What is said of it: at the end of its line, or on the lines above it; empty: nothing."""


def commented_keys(text: str) -> list[Key]:
    """The keys of a YAML file whose values are no mappings, in order, with their comments; Hydra's own, the `defaults`
    list and `_target_`, are left out."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = text.splitlines()
    return list(_keys_in(root, lines, "")) if isinstance(root, yaml.MappingNode) else []


def _keys_in(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Key]:
    for name, value in node.value:
        if name.value in ("_target_", "defaults"):
            continue
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _keys_in(value, lines, f"{prefix}{name.value}.")
            continue
        default = yaml.safe_load(yaml.serialize(value))
        required = default == MISSING
        comment = _comment(lines, name.start_mark.line, value.end_mark)
        yield Key(f"{prefix}{name.value}", None if required else default, required, comment)


def _comment(lines: list[str], first: int, end: Any) -> str:
    """What a comment behind a value says, or else those that stand alone above it (but for the file's first line)."""
    last = end.line if end.column else end.line - 1
    behind = lines[last][end.column if end.column else 0 :] if last < len(lines) else ""
    if re.match(r"\s*[}\]]*\s*#", behind):
        return behind.partition("#")[2].strip()
    above: list[str] = []
    while (first := first - 1) > 0 and lines[first].lstrip().startswith("#"):
        above.insert(0, lines[first].lstrip("# ").rstrip())
    return " ".join(above)
