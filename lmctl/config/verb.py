"""The base classes of verbs: a verb is one class in a file of its own in `lmctl/verbs/`, named after it.

The first line of the file is the verb's description, and the class has everything else that the command line needs, so
that a new verb is a new file and no other change. Verbs are found by their names, as components are by their
`_target_`: no layer below the command line imports one.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from lmctl.config.table import rows

if TYPE_CHECKING:
    from omegaconf import DictConfig

C = TypeVar("C")
"""The config type that `run` receives: the table's dataclass, or what `read` makes of it."""

PACKAGE = "lmctl.verbs"
ORDER = (
    *("train", "distill", "search", "jobs", "plan", "prepare", "peek"),
    *("eval", "compare", "predict", "generate", "translate", "score", "export", "doctor", "list"),
)
"""Order of the verbs in the help; others come last."""
OWN_TEXT = "to train on your own text write data=text data.path={}"
"""Hint of verbs that read training data."""


class Command:
    """Any subcommand of `lmctl`."""

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]


class WordsCommand(Command, ABC):
    """A subcommand that takes plain words and composes no config."""

    @abstractmethod
    def run(self, words: Sequence[str]) -> None:
        """Run the command. Errors are raised."""


class ConfigVerb(Command, ABC):
    """A subcommand with a config: `lmctl VERB group=option key=value`."""

    purpose: ClassVar[str] = ""
    """The first line of its own help; `summary` if empty."""
    examples: ClassVar[Sequence[str]] = ()
    """Three example commands."""
    often: ClassVar[Sequence[str]] = ()
    """The most used groups and keys, at most ten, shown first in its help."""
    schema: ClassVar[type[Any]]
    """The table of its config (`lmctl.config.table`): the frozen dataclass whose fields are its keys and config groups.
    The last group may choose options of those before it."""
    words: ClassVar[Sequence[str]] = ()
    """Keys whose values may be given alone, in this order: `lmctl generate runs/mine "a text"`."""
    alone: ClassVar[str | None] = None
    """Suggested settings for a path given alone, with {} for the path."""
    places: ClassVar[str | None] = None
    """The key, a list of places, that words without a key are for: `lmctl compare runs/a runs/b`."""
    results: ClassVar[str | None] = None
    """The key of its results file. A job of a sweep without a run directory writes it into its own."""
    prints: ClassVar[bool] = True
    """Whether standard output is for its result, and ends it when it fails. False: its results are files."""

    @property
    def has_run_dir(self) -> bool:
        """Whether it writes a run directory, which can be resumed."""
        return "run_dir" in rows(self.schema)

    def check(self, cfg: DictConfig) -> None:
        """ConfigError for mistakes in one job that stop the whole sweep: wrong keys, values and components."""
        from lmctl.config.build import check

        check(cfg, self.schema)

    def refuse(self, cfg: DictConfig) -> None:
        """ConfigError for an illegal combination, which fails only its own job of a sweep."""


class Verb(ConfigVerb, Generic[C]):
    """One that runs a single config; with `-m` and `stages`, one after the other in jobs of their own."""

    def read(self, cfg: DictConfig) -> C:
        """What `run` receives, built from a composed config: the dataclass `schema` with components as its groups.
        ConfigError with all mistakes."""
        from lmctl.config.build import read_root

        return cast(C, read_root(cfg, self.schema))

    @abstractmethod
    def run(self, config: C) -> None:
        """Run the verb. Errors are raised."""


class GridVerb(Verb[C]):
    """One that reports the jobs of `-m` and `stages` in one table."""

    @abstractmethod
    def run_grid(self, jobs: Sequence[tuple[str, list[str], DictConfig]]) -> int:
        """Run all jobs (name, overrides, config); returns how many were refused."""


class SearchVerb(ConfigVerb):
    """One whose settings hold the values that are drawn from, without `-m`: the command line makes its configs one by
    one (`cli/search_space.py`)."""


def names() -> list[str]:
    """All verbs, in the order in which they are listed; none of them is imported."""
    found = {file.removesuffix(".py") for folder in _folders() for file in os.listdir(folder) if file.endswith(".py")}
    others = sorted(name for name in found - set(ORDER) if not name.startswith("_"))
    return [*(name for name in ORDER if name in found), *others]


def summary(name: str) -> str:
    """A one-line description of a verb: the first line of its file."""
    for folder in _folders():
        if os.path.isfile(file := os.path.join(folder, f"{name}.py")):
            with open(file, encoding="utf-8") as text:
                return text.readline().strip().strip('"').partition(": ")[2].rstrip(".")
    return ""


def _folders() -> Iterable[str]:
    """Directories that contain verb files."""
    return list(import_module(PACKAGE).__path__)


def verbs() -> dict[str, ConfigVerb]:
    """The verbs that have a config, by name."""
    return {name: one for name in names() if isinstance(one := command(name), ConfigVerb)}


def command(name: str) -> Command:
    """The subcommand of that name."""
    module = import_module(f"{PACKAGE}.{name}")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Command)]
    (own,) = [kind for kind in kinds if kind.__module__ == module.__name__]
    return own()


def verb(name: str) -> ConfigVerb:
    """The verb of that name."""
    found = command(name)
    assert isinstance(found, ConfigVerb)
    return found
