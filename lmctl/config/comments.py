"""What the YAML files of the options say in their comments: an option in its first line, a key beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from omegaconf import MISSING

LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""libyaml's reads all of conf/ in a time that nobody notices."""


def first_comment(text: str) -> str:
    """The first line of a YAML file that is a comment for people; empty if it does not begin with one."""
    for line in text.splitlines():
        if not line.startswith("# @"):
            return line.lstrip("# ").rstrip() if line.startswith("#") else ""
    return ""


class CommentedKey(NamedTuple):
    """One key of an option's file."""

    key: str
    """As one types it behind the group: `terms.logits.weight`."""
    default: Any
    """None as well where there is none and it must be given."""
    required: bool
    comment: str
    """What is said of it: at the end of its line, or on the lines above it; empty: nothing."""


def commented_keys(text: str) -> list[CommentedKey]:
    """The keys of a YAML file whose values are no mappings, in order, with their comments; Hydra's own, the `defaults`
    list and `_target_`, are left out."""
    root = yaml.compose(text, Loader=LOADER)
    lines = text.splitlines()
    return list(_keys_in(root, lines, "")) if isinstance(root, yaml.MappingNode) else []


def targets_in(text: str) -> dict[str, str]:
    """The `_target_` of every part of a YAML file by the dotted key that the part stands at; "" for the whole."""
    root = yaml.compose(text, Loader=LOADER)
    return dict(_targets(root, "")) if isinstance(root, yaml.MappingNode) else {}


def _targets(node: yaml.MappingNode, place: str) -> Iterator[tuple[str, str]]:
    for key, value in node.value:
        if key.value == "_target_":
            yield place, str(value.value)
        elif isinstance(value, yaml.MappingNode):
            yield from _targets(value, f"{place}.{key.value}" if place else str(key.value))


def _keys_in(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[CommentedKey]:
    for name, value in node.value:
        if name.value in ("_target_", "defaults"):
            continue
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _keys_in(value, lines, f"{prefix}{name.value}.")
            continue
        default = yaml.safe_load(yaml.serialize(value))
        required = default == MISSING
        comment = _comment(lines, name.start_mark.line, value.end_mark)
        yield CommentedKey(f"{prefix}{name.value}", None if required else default, required, comment)


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
