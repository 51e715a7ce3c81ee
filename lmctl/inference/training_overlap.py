"""Train-test overlap: detecting rows that a model was trained on, by their content.

`eval` on a run's own text evaluates on its held-out rows. The text is recognised wherever it is stored and however it
is split now; if only a part of the data is training text, that part is dropped.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmctl.config.saved import recorded_config
from lmctl.config.table import without_none
from lmctl.core.batch import Kind, Row, Split
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.files import path_of
from lmctl.core.paths import IsPlace, Paths, run_of
from lmctl.core.regular_files import read_json
from lmctl.data.base import Source
from lmctl.data.file_status import FileStates
from lmctl.inference.trained_on import own_tasks


@dataclass(frozen=True)
class Unseen:
    """The rows to evaluate a model on."""

    source: Source
    split: str
    """The split: `all` or `valid`."""
    remark: str | None = None
    """A remark for the user."""


def unseen(model_path: str, trusted: tuple[str, ...], given: Source) -> Unseen:
    """The rows of `given` that neither the run at `model_path` nor the runs it started from were trained on.
    ConfigError if there are none."""
    runs = _lineage(model_path)
    tasks = [(task, print_) for place in runs for task, print_ in _tasks(place, trusted)]
    if not tasks:
        unknown = "whether the model learnt from these rows cannot be told: its run does not say which text it had"
        return Unseen(given, "all", unknown if runs else None)
    given_print = _plain(given.fingerprint())
    for task, print_ in tasks:
        if print_ == given_print:
            return Unseen(given, "valid")
        same = _reading(task.source, given)
        if same is not None and _fingerprint_of(same) == print_ and print_.get("columns") == given_print.get("columns"):
            return Unseen(same, "valid", "it is the run's own text, and split as the run split it")
    seen: set[bytes] = set()
    missing = []
    for task, print_ in tasks:
        found = next((one for one in (task.source, _reading(task.source, given)) if _is_unchanged(one, print_)), None)
        if found is None:
            missing.append(task.name)
        else:
            seen.update(_digest(row) for row in found.rows("train"))
    remark = None
    if missing:
        what = f"the text of its task{'s' * (len(missing) > 1)} {', '.join(dict.fromkeys(missing))}"
        remark = f"whether the model learnt from some of these rows cannot be told: {what} is not here, or is streamed"
    if not seen:
        return Unseen(given, "all", remark)
    rest = Rest(given, frozenset(seen))
    kept, known = rest.counts()
    if not known:
        return Unseen(given, "all", remark)
    if not kept:
        raise ConfigError(
            f"the model learnt from all {known:,} rows of these data, so nothing in them says how good it is",
            "leave data= out to measure it on what its run held out; split=all measures these rows all the same",
        )
    left = f"{known:,} of {kept + known:,} rows are left out, because the model learnt from them"
    return Unseen(rest, "all", f"{left}; {remark}" if remark else left)


@dataclass(frozen=True)
class Rest(Source):
    """A source without the rows whose digests are in `seen`."""

    original: Source
    seen: frozenset[bytes]

    @property
    def yields(self) -> Kind:
        return self.original.yields

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.original.label_names

    def fingerprint(self) -> Mapping[str, Any]:
        seen = hashlib.sha256(b"".join(sorted(self.seen))).hexdigest()
        return {"source": "rest", "original": dict(self.original.fingerprint()), "without": seen}

    def state(self) -> FileStates:
        return self.original.state()

    def rows(self, split: Split) -> Iterator[Row]:
        return (row for row in self.original.rows(split) if _digest(row) not in self.seen)

    def describe(self) -> str:
        return self.original.describe()

    def counts(self) -> tuple[int, int]:
        """Number of rows kept, and number dropped."""
        counts = [0, 0]
        splits: tuple[Split, ...] = ("train", "valid")
        for split in splits:
            for row in self.original.rows(split):
                counts[_digest(row) in self.seen] += 1
        return counts[0], counts[1]


@dataclass(frozen=True)
class _Task:
    name: str
    source: Source


def _lineage(model_path: str) -> list[str]:
    """The run, and the chain of runs that it was initialised from."""
    found: list[str] = []
    place: Any = model_path
    while isinstance(place, str) and place not in found and (run := Paths(run_of(path_of(place)))).config.is_file():
        found.append(place)
        try:
            config = recorded_config(run)
            place = None if OmegaConf.is_missing(config, "init_from") else config.get("init_from")
        except (LmctlError, OmegaConfBaseException):  # not a readable config: the chain ends
            break
    return found


def _tasks(place: str, trusted: tuple[str, ...]) -> Iterator[tuple[_Task, dict[str, Any]]]:
    """The tasks of a run, each with the fingerprint of its data at training time."""
    environment = read_json(Paths(run_of(path_of(place))).environment)
    prints: Any = environment.get("fingerprints") if isinstance(environment, dict) else None
    for name, task in own_tasks(place, trusted, needed=False).items():
        try:
            print_ = json.loads(prints[name])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        # Teacher-generated text was generated from an original source.
        yield _Task(name, task.source), print_.get("original", print_) if isinstance(print_, dict) else {}


def _reading(source: Source, given: Source) -> Source | None:
    """`source` reading the files of `given`: its training files, and its validation files if it has any; None if the
    classes differ, or have no files."""
    if type(source) is not type(given) or source.streamed:
        return None
    places = [key for key in _places(source) if getattr(source, key) is not None and getattr(given, key) is not None]
    changes = {key: getattr(given, key) for key in places}
    return cast("Source", replace(cast("Any", source), **changes)) if changes else None


def _is_unchanged(source: Source | None, print_: dict[str, Any]) -> bool:
    """Whether `source` can be read locally, and has not changed."""
    if source is None or source.streamed:
        return False
    values = [str(path_of(value)) for key in _places(source) if (value := getattr(source, key)) is not None]
    here = all(os.path.exists(value) or glob.glob(value) for value in values)
    return here and _fingerprint_of(source) == print_


def _places(source: Source) -> list[str]:
    hints = get_type_hints(type(source), include_extras=True)
    marked = [key for key, hint in hints.items() if IsPlace in getattr(without_none(hint), "__metadata__", ())]
    return [field.name for field in fields(cast("Any", source)) if field.name in marked]


def _fingerprint_of(source: Source) -> dict[str, Any] | None:
    try:
        return _plain(source.fingerprint())
    except (LmctlError, OSError):
        return None


def _plain(print_: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint as read back from environment.json."""
    return cast("dict[str, Any]", json.loads(json.dumps(dict(print_))))


def _digest(row: Row) -> bytes:
    """128-bit hash of a row's texts, white space normalised, without its label."""
    return hashlib.sha256(" ".join(" ".join(row.texts).split()).encode()).digest()[:16]
