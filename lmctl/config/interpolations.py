"""Interpolations (`${...}`) in values of unknown origin: which resolvers they call, and what they would expand to.

OmegaConf resolves whatever is written: `${oc.env:HF_TOKEN}` reads a secret, `${oc.decode:...}` runs an interpolation
hidden in a string, the name of a resolver may be computed, and forty keys `a1: ${a0}${a0}` stand for gigabytes. Here
the expressions are parsed, and nothing is resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from omegaconf.errors import GrammarParseError
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse

from lmctl.core.errors import ConfigError

OF_FILES = ("oc.select", "oc.dict.keys", "oc.dict.values", "now")
"""Resolvers that a file may call: they read the config itself, or the clock."""
_READS_KEYS = ("oc.select", "oc.dict.keys", "oc.dict.values")
MAX_SIZE = 1 << 24
"""Characters and values that a whole config may expand to."""
MAX_STEPS = 64
"""Length of a chain of keys that refer to one another."""
MAX_PARTS = 64
"""Interpolations in one value: parsing many, or nested ones, takes minutes."""
_PLAIN = re.compile(r"\$\{([\w.\[\]]+)\}")
"""A whole value that is one reference to another key, which needs no grammar."""


@dataclass(frozen=True)
class Interpolation:
    """One `${...}`, or one inside another."""

    resolver: str | None
    """None: it refers to another key."""
    argument: str
    """The key, or the first argument of the resolver."""
    is_computed: bool
    """Whether the resolver's name or `argument` contains another interpolation."""

    @property
    def refers(self) -> bool:
        """Whether it stands for the value of the key `argument`."""
        return not self.is_computed and (self.resolver is None or self.resolver in _READS_KEYS)


def interpolations(text: str) -> list[Interpolation]:
    """All interpolations in `text`; none if OmegaConf's grammar refuses it, as resolving it will."""
    if "${" not in text:
        return []
    if (plain := _PLAIN.fullmatch(text)) is not None:
        return [Interpolation(None, plain[1], False)]
    if text.count("${") > MAX_PARTS:
        raise ConfigError(f"a value has more than {MAX_PARTS} interpolations: {text:.40}...")
    try:
        return list(_in_tree(parse(text)))
    except GrammarParseError:
        return []
    except RecursionError:
        raise ConfigError(f"the interpolations of a value are nested too deeply: {text:.40}...") from None


def _in_tree(node: Any) -> Iterator[Interpolation]:
    if isinstance(node, OmegaConfGrammarParser.InterpolationNodeContext):
        key = node.getText()[2:-1].strip()
        yield Interpolation(None, key, "${" in key)
    elif isinstance(node, OmegaConfGrammarParser.InterpolationResolverContext):
        resolver, arguments = node.resolverName().getText(), node.sequence()
        first = arguments.getChild(0).getText().strip() if arguments is not None else ""
        yield Interpolation(resolver, first.strip("'\""), "${" in resolver + first)
    for place in range(node.getChildCount()):
        yield from _in_tree(node.getChild(place))


def refuse_resolvers(where: str, texts: Iterable[str]) -> None:
    """ConfigError if one of `texts`, which come from a file, does more than refer to other keys. `where` begins the
    message."""
    for text in texts:
        for one in interpolations(text):
            if one.is_computed or (one.resolver is not None and one.resolver not in OF_FILES):
                raise ConfigError(
                    f"{where}: a file may refer to other keys, and not use {text.strip():.60}",
                    "what comes from the environment is given on the command line: KEY='${oc.env:NAME}'",
                )


def refuse_explosion(tree: Any) -> None:
    """ConfigError if a config, plain data with interpolations unresolved, refers to itself or would expand beyond
    `MAX_SIZE`."""
    try:
        size, _ = _Sizes(tree).of((), ())
    except RecursionError:
        raise ConfigError("the interpolations of this config refer to one another without end") from None
    if size > MAX_SIZE:
        raise ConfigError(f"the interpolations of this config stand for more than {MAX_SIZE >> 20} million characters")


Steps: TypeAlias = tuple[str, ...]
_BEGUN: Steps = ("",)
"""Stands for a target that is being looked for."""


class _Sizes:
    """Sizes of the parts of a config after resolving, each computed once."""

    def __init__(self, tree: Any) -> None:
        self.tree = _by_name(tree)
        self.known: dict[Steps, tuple[int, int]] = {}
        self.targets: dict[Steps, Steps | None] = {}

    def of(self, path: Steps, trail: tuple[Steps, ...]) -> tuple[int, int]:
        """Characters and values at `path`, and the longest chain of references from there; `trail` are the paths whose
        sizes depend on this one."""
        if path in self.known:
            return self.known[path]
        if path in trail:
            raise _refers_to_itself(path)
        node, inner = self._at(path), (*trail, path)
        inside = [self.of((*path, key), inner) for key in node] if isinstance(node, dict) else []
        targets = [self.of(target, inner) for target in self._targets(node, path)] if isinstance(node, str) else []
        size = 1 + (len(node) if isinstance(node, str) else 0) + sum(size for size, _ in (*inside, *targets))
        steps = max([*(steps for _, steps in inside), *(steps + 1 for _, steps in targets)], default=0)
        if steps > MAX_STEPS or len(inner) > 4 * MAX_STEPS:
            raise ConfigError(f"{'.'.join(path)} stands at the end of more than {MAX_STEPS} references")
        self.known[path] = size, steps
        return size, steps

    def _targets(self, text: str, path: Steps) -> Iterator[Steps]:
        """The paths to which `text`, the value at `path`, refers and which exist."""
        for one in interpolations(text):
            if one.refers and (found := self._followed(one.argument, path)) is not None:
                yield found

    def _followed(self, key: str, path: Steps) -> Steps | None:
        """The path of `key` as the value at `path` writes it, or None. A step on it may be a reference in its turn."""
        up = len(key) - len(key.lstrip("."))
        place: Steps = path[:-up] if up else ()
        for step in re.findall(r"[^.\[\]]+", key):
            found = self._target(place) if isinstance(self._at(place), str) else place
            if found is None or not isinstance(node := self._at(found), dict) or step not in node:
                return None
            place = (*found, step)
        return place

    def _target(self, place: Steps) -> Steps | None:
        """The path of the value that the text at `place` stands for, if that is one reference."""
        if place not in self.targets:
            self.targets[place] = _BEGUN
            found = interpolations(self._at(place))
            refers = len(found) == 1 and found[0].refers
            target = self._followed(found[0].argument, place) if refers else None
            is_text = target is not None and isinstance(self._at(target), str)
            self.targets[place] = self._target(target) if target is not None and is_text else target
        if self.targets[place] == _BEGUN:
            raise _refers_to_itself(place)
        return self.targets[place]

    def _at(self, path: Steps) -> Any:
        node = self.tree
        for step in path:
            node = node[step]
        return node


def _refers_to_itself(path: Steps) -> ConfigError:
    return ConfigError(f"{'.'.join(path)} refers to itself")


def _by_name(node: Any) -> Any:
    """`node` with every list as a mapping of its places, and every key as text."""
    if isinstance(node, list):
        return {str(place): _by_name(child) for place, child in enumerate(node)}
    return {str(key): _by_name(child) for key, child in node.items()} if isinstance(node, dict) else node
