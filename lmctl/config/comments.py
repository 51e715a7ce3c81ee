"""What the YAML files say of their keys: the comment behind a value, or the lines right above a key."""

from __future__ import annotations

import yaml

LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""libyaml's reads all of conf/ in the time that a person does not notice."""


def comments_in(text: str) -> dict[str, str]:
    """The comments of a YAML text by dotted key (`terms.logits.weight`), those of keys without one left out. The
    comment that the text begins with is about the whole, and of no key."""
    root = yaml.compose(text, Loader=LOADER)
    found: dict[str, str] = {}
    if isinstance(root, yaml.MappingNode):
        _collect(root, "", text.splitlines(), found)
    return found


def targets_in(text: str) -> dict[str, str]:
    """The `_target_` of every part of a YAML text by the dotted key that the part stands at; "" for the whole."""
    root = yaml.compose(text, Loader=LOADER)
    return dict(_targets(root, "")) if isinstance(root, yaml.MappingNode) else {}


def _collect(node: yaml.MappingNode, prefix: str, lines: list[str], found: dict[str, str]) -> None:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        nested = isinstance(value, yaml.MappingNode) and not value.flow_style
        end = key.end_mark if nested else value.end_mark
        behind = lines[end.line][end.column :].lstrip(": ") if end.line < len(lines) else ""
        comment = _text(behind) or " ".join(_above(lines, key.start_mark.line, key.start_mark.column))
        if comment:
            found[name] = comment
        if nested:
            _collect(value, f"{name}.", lines, found)


def _above(lines: list[str], line: int, column: int) -> list[str]:
    """The comment lines right above `line`, at its indentation; none where they begin the file."""
    first = line
    while first > 0 and lines[first - 1].startswith(f"{' ' * column}#"):
        first -= 1
    return [_text(row.strip()) for row in lines[first:line]] if first > 0 else []


def _text(behind: str) -> str:
    return behind.lstrip("# ").rstrip() if behind.startswith("#") else ""


def _targets(node: yaml.MappingNode, place: str) -> list[tuple[str, str]]:
    found = []
    for key, value in node.value:
        if key.value == "_target_":
            found.append((place, str(value.value)))
        elif isinstance(value, yaml.MappingNode):
            found += _targets(value, f"{place}.{key.value}" if place else str(key.value))
    return found
