"""What every option of every config group is."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lmctl.core.errors import ConfigError

if TYPE_CHECKING:
    from lmctl.plan import Plan

MAY_CHANGE: Mapping[str, bool] = {"identity": False}
"""Metadata of a field that may change when a run goes on: `field(default=None, metadata=MAY_CHANGE)`."""


class Component(ABC):  # noqa: B024  (what is abstract differs from group to group)
    """An option of a config group: a frozen dataclass whose fields are the keys of its YAML, whose annotations are
    their types, and whose `__post_init__` holds their rules (`ValueError`; the key is put in front).

    Each group has one abstract base class, in `lmctl/<group>/base.py`, and that is its whole contract: what must be
    there is abstract, what may be left out has its default there.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in inspect.get_annotations(cls).keys() - vars(cls).keys():
            if isinstance(inspect.getattr_static(cls, name, None), property):
                raise TypeError(f"{cls.__name__}.{name} needs a default, or its base's property stays in its place")

    @property
    def imports(self) -> tuple[str, ...]:
        """Top-level packages that its work needs besides those that every run does. A config is refused where one is
        not installed (`core/extras.py`), and their memory is counted (`lmctl plan`)."""
        return ()

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        """Why this does not go with the rest of a finished plan, each with the nearest choice that would. Asked of
        every component before any work."""
        yield from ()
