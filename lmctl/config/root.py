"""The root of a verb's config as a typed object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar, cast

from omegaconf import DictConfig

from lmctl.config.build import TRUSTED, build, check_root
from lmctl.config.options import GROUPS
from lmctl.config.schema import groups_of

C = TypeVar("C")


def prefixes(trusted: Iterable[str]) -> tuple[str, ...]:
    """Where a `_target_` may point, for a config that trusts these packages besides."""
    return (*TRUSTED, *(f"{package}." for package in trusted))


def typed_root(cfg: DictConfig, schema: type[C]) -> C:
    """`schema` from the root of a verb's config, its groups built into components; those that are null stay None.
    ConfigError for whatever is wrong."""
    kinds = {group: kind for kind, group in GROUPS.items()}
    root, trusted = check_root(cfg, schema), prefixes(cfg.get("trusted") or ())
    built = {
        group: build(cfg[group], kinds.get(group, object), trusted=trusted)
        for group in groups_of(schema)
        if cfg[group] is not None
    }
    return cast(C, replace(cast(Any, root), **built))
