"""What a verb of the command line is: one class in a file of its own in `lmctl/verbs/`, which is called as the verb is.

The first line of the file says what the verb does, and the class all else that the command line has to know of it, so
that a new verb is a new file and nothing else.
Verbs are found by their names, as components are by their `_target_`: nothing below the command line imports one.
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
"""What a verb is given: its own dataclass, or what it makes of it."""

PACKAGE = "lmctl.verbs"
ORDER = (
    *("train", "distill", "plan", "prepare", "peek"),
    *("eval", "predict", "generate", "translate", "score", "list"),
)
"""How verbs are listed; those that are not named here come last."""
NOTHING_TO_SAVE = "interrupted; nothing had to be saved"
"""Of verbs that read and tokenise before they do anything that could be saved."""
OWN_TEXT = "to train on your own text write data=text data.path={}"
"""Of verbs that are about what is learnt."""


class Command:
    """What can stand behind `lmctl`."""

    interrupted: ClassVar[str] = "interrupted"
    """What is said when a signal ends it where nothing has to be saved."""

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]


class WordsCommand(Command, ABC):
    """One that takes words, and composes no config."""

    @abstractmethod
    def run(self, words: Sequence[str]) -> None:
        """Do it. Errors are raised."""


class Verb(Command, ABC, Generic[C]):
    """One with a config: `lmctl VERB group=option key=value`."""

    purpose: ClassVar[str] = ""
    """The first line of its own help; what `summary` says if it is empty."""
    examples: ClassVar[Sequence[str]] = ()
    """Three commands."""
    often: ClassVar[Sequence[str]] = ()
    """Groups and keys that people set most, at most ten: the first thing that its help shows."""
    schema: ClassVar[type[Any]]
    """The table of its config (`lmctl.config.table`): the frozen dataclass whose rows are its keys and config groups.
    Of its groups the last one may choose options of those before it."""
    alone: ClassVar[str | None] = None
    """What a path that stands alone was probably meant to be: settings, with {} for the path."""
    results: ClassVar[str | None] = None
    """The key that names the file of results. A job of a sweep that has no run directory keeps it in its own."""
    plans_grids: ClassVar[bool] = False
    """Whether `-m`, and `stages`, are told in one table by `run_grid`, instead of being run job by job."""

    @property
    def has_run_dir(self) -> bool:
        """Whether it writes a run directory, in which it can be gone on with."""
        return "run_dir" in rows(self.schema)

    def read(self, cfg: DictConfig) -> C:
        """What `run` is given, from a composed config: the dataclass `schema`, whose groups are components. ConfigError
        for all that is wrong, told together."""
        from lmctl.config.build import read_root

        return cast(C, read_root(cfg, self.schema))

    def check(self, cfg: DictConfig) -> None:
        """ConfigError for what ends a sweep if one of its jobs is like that: wrong keys, values and components."""
        from lmctl.config.build import check

        check(cfg, self.schema)

    def refuse(self, cfg: DictConfig) -> None:
        """ConfigError for what is told of a job in the table of its sweep: a combination that is not legal."""

    @abstractmethod
    def run(self, config: C) -> None:
        """Do it. Errors are raised."""

    def run_grid(self, jobs: Sequence[tuple[str, list[str], DictConfig]]) -> int:
        """Do it for all jobs (name, overrides, config) of a sweep, or of stages; how many were refused."""
        raise NotImplementedError


def names() -> list[str]:
    """All verbs, in the order in which they are listed; none of them is imported."""
    found = {file.removesuffix(".py") for folder in _folders() for file in os.listdir(folder) if file.endswith(".py")}
    others = sorted(name for name in found - set(ORDER) if not name.startswith("_"))
    return [*(name for name in ORDER if name in found), *others]


def summary(name: str) -> str:
    """What a verb does, in half a line: the first line of its file says it, as that of an option's YAML does."""
    for folder in _folders():
        if os.path.isfile(file := os.path.join(folder, f"{name}.py")):
            with open(file, encoding="utf-8") as text:
                return text.readline().strip().strip('"').partition(": ")[2].rstrip(".")
    return ""


def _folders() -> Iterable[str]:
    """Where the files of verbs lie."""
    return list(import_module(PACKAGE).__path__)


def verbs() -> dict[str, Verb[Any]]:
    """The verbs that have a config, by name."""
    return {name: one for name in names() if isinstance(one := command(name), Verb)}


def command(name: str) -> Command:
    """The verb of that name."""
    module = import_module(f"{PACKAGE}.{name}")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Command)]
    (own,) = [kind for kind in kinds if kind.__module__ == module.__name__]
    return own()


def verb(name: str) -> Verb[Any]:
    """The verb of that name, which has a config."""
    found = command(name)
    assert isinstance(found, Verb)
    return found
