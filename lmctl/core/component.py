"""The base class of the options of all config groups."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lmctl.core.errors import ConfigError

if TYPE_CHECKING:
    from lmctl.plan import Plan

MAY_CHANGE: Mapping[str, bool] = {"identity": False}
"""Metadata of a field whose value may change when a run is resumed: `field(default=None, metadata=MAY_CHANGE)`."""


DECIDES: Mapping[str, bool] = {"decides": True}
"""Metadata of a field that decides what a run is, in a group whose options otherwise may change when it is resumed."""


class Component(ABC):  # noqa: B024  (what is abstract differs from group to group)
    """An option of a config group: a frozen dataclass that is the schema of its YAML.

    Its fields are the keys, its annotations the types, and `__post_init__` holds their rules (`ValueError`; the key is
    put in front). Each group has one abstract base class, in `lmctl/<group>/base.py`, and that is its whole contract:
    required members are abstract, optional ones have their default there.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in inspect.get_annotations(cls).keys() - vars(cls).keys():
            if isinstance(inspect.getattr_static(cls, name, None), property):
                raise TypeError(f"{cls.__name__}.{name} needs a default, or its base's property stays in its place")

    @property
    def imports(self) -> tuple[str, ...]:
        """Top-level packages that it needs besides the required ones. A config is refused if one is not installed
        (`core/extras.py`); `lmctl plan` counts their memory."""
        return ()

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        """Conflicts with the rest of a complete plan, each with the nearest choice that works. Called for every
        component before any work starts."""
        yield from ()
