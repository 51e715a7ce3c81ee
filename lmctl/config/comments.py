"""Comments of the options' YAML files, read as help texts: the first line describes the option, others its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from omegaconf import MISSING

LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""The parser of libyaml, fast enough to read all of conf/ for a help text."""


def first_comment(text: str) -> str:
    """The first comment line of a YAML file, Hydra's directives skipped; empty if there is none."""
    for line in text.splitlines():
        if not line.startswith("# @"):
            return line.lstrip("# ").rstrip() if line.startswith("#") else ""
    return ""


class CommentedKey(NamedTuple):
    """One key of an option's file, with its comment."""

    key: str
    """The dotted key below the group: `terms.logits.weight`."""
    default: Any
    """None also where the key is required."""
    required: bool
    comment: str
    """The comment at the end of its line, or on the lines above it; empty if there is none."""


def commented_keys(text: str) -> list[CommentedKey]:
    """The leaf keys of a YAML file, in order, with their comments; without Hydra's own keys, `defaults` and
    `_target_`."""
    root = yaml.compose(text, Loader=LOADER)
    lines = text.splitlines()
    return list(_keys_in(root, lines, "")) if isinstance(root, yaml.MappingNode) else []


def targets_in(text: str) -> dict[str, str]:
    """The `_target_` of every component in a YAML file by its dotted key; "" for the root."""
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
    """The comment behind a value, or else the comment lines above it (except the first line of the file)."""
    last = end.line if end.column else end.line - 1
    behind = lines[last][end.column if end.column else 0 :] if last < len(lines) else ""
    if re.match(r"\s*[}\]]*\s*#", behind):
        return behind.partition("#")[2].strip()
    above: list[str] = []
    while (first := first - 1) > 0 and lines[first].lstrip().startswith("#"):
        above.insert(0, lines[first].lstrip("# ").rstrip())
    return " ".join(above)
