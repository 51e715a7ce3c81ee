"""Keys that came with a later version of lmctl than the one that began a run.

The run went by their defaults, so a default is no change of it, and any other value is one.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, cast

from omegaconf import OmegaConf

from lmctl.config.groups import TrainConfig
from lmctl.config.keys import Key
from lmctl.config.store import conf_dir
from lmctl.config.table import defaults, rows


def with_later_keys(before: Mapping[str, Any], keys: Iterable[Key]) -> dict[str, Any]:
    """The resolved config of a run as it would be had it known `keys`, those of a config of today."""
    whole, keys = copy.deepcopy(dict(before)), list(keys)
    sections = {key.path[0] for key in keys}
    for name, option in defaults(TrainConfig).items():
        if name in sections - whole.keys() and option is not None:
            whole[name] = OmegaConf.to_container(OmegaConf.load(conf_dir() / name / f"{option}.yaml"))
    for key in keys:
        *above, last = key.path
        node: Any = whole
        for step in above:
            node = node.get(step) if isinstance(node, dict) else None
        if isinstance(node, dict) and last not in node and (field := _declared(key)) is not None:
            if field.default_factory is not dataclasses.MISSING:
                node[last] = _plain(field.default_factory())
            elif field.default is not dataclasses.MISSING:
                node[last] = field.default
    return whole


def _declared(key: Key) -> dataclasses.Field[Any] | None:
    """The field that declares a key; None if none does."""
    return rows(key.owner).get(str(key.path[-1])) if dataclasses.is_dataclass(key.owner) else None


def _plain(value: Any) -> Any:
    """A default as it stands in a config."""
    return dataclasses.asdict(cast("Any", value)) if dataclasses.is_dataclass(value) else value
