"""Locating a dataset for the library `datasets`: saved by `save_to_disk`, in local files, or on the hub.

No code of a dataset is executed, and the token for private ones is read from the environment (HF_TOKEN) by the library
itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lmctl.core.errors import ConfigError, DataError, LmctlError
from lmctl.core.files import is_local_path, nearest_place, path_of
from lmctl.core.suggest import did_you_mean
from lmctl.data.file_status import not_plain
from lmctl.data.hub_places import CARDS, check_cards, check_inside, check_plain, outside
from lmctl.data.reading import fingerprint
from lmctl.data.records import BadRow, Record
from lmctl.data.table import Table, suffix

_LONGEST_WORDS = 300
"""Longest line in characters that is shown of the library's errors."""


@dataclass(frozen=True)
class Saved:
    """A directory written by `save_to_disk`: Arrow files, read in place."""

    parts: dict[str, Any]
    """`datasets.Dataset` by split."""
    kind: str = "saved by save_to_disk"

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def read(self, split: str) -> Any:
        """A dataset whose rows can be iterated any number of times."""
        return self.parts[split]

    def stream(self, split: str) -> Any:
        """The same rows as an `IterableDataset`, one shard per file."""
        part = self.parts[split]
        return part.to_iterable_dataset(num_shards=max(1, min(len(part), len(part.cache_files))))

    def files(self, split: str) -> list[Path]:
        """The files that its rows are read from; [] if they cannot change."""
        return [Path(file["filename"]) for file in self.parts[split].cache_files]

    def identity(self, split: str) -> dict[str, Any]:
        return {"files": fingerprint(self.files(split)), "features": self.parts[split].features.to_dict()}


@dataclass(frozen=True)
class Built:
    """Data files read by one of the library's own builders: local ones, or those of a commit on the hub."""

    builder: Any
    commit: str | None
    """None for local files."""

    @property
    def kind(self) -> str:
        return f"on the hub, commit {self.commit[:12]}" if self.commit else f"local {self.builder.name} files"

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(map(str, self.builder.config.data_files or self.builder.info.splits or ()))

    def read(self, split: str) -> Any:
        """As `Saved.read`. Hub files are downloaded. Local files are read again each time: the library would find a
        converted copy by file date, and could return it after the file has changed."""
        if self.commit is None:
            return self.stream(split)
        self.builder.download_and_prepare()
        return self.builder.as_dataset(split=split)

    def stream(self, split: str) -> Any:
        """As `Saved.stream`."""
        return self.builder.as_streaming_dataset(split=split)

    def tables(self, split: str) -> list[Path] | None:
        """The files of a split, if they are csv without further settings: `data=table`'s reader then reads them. The
        library's reader, pandas, would read NA, None and null as missing, and 007 as 7."""
        config = self.builder.config
        if self.commit is not None or self.builder.name != "csv" or self.builder.info.features is not None:
            return None
        usual = type(config)()
        own = {"name", "version", "data_dir", "data_files", "description", "sep", "na_filter"}
        differs = any(getattr(config, f.name) != getattr(usual, f.name) for f in fields(config) if f.name not in own)
        if differs or config.sep not in (",", "\t"):
            return None
        return self._data(split)

    def identity(self, split: str) -> dict[str, Any]:
        if self.commit is not None:
            return {"commit": self.commit, "config": self.builder.config.name}
        suffixes = sorted({suffix(file) for file in self._data(split)})
        return {
            "format": [self.builder.name, suffixes],
            "files": fingerprint(self._data(split)),
            "cards": fingerprint(self._cards()),
        }

    def files(self, split: str) -> list[Path]:
        """As `Saved.files`."""
        return [] if self.commit is not None else [*self._data(split), *self._cards()]

    def _data(self, split: str) -> list[Path]:
        return list(map(Path, self.builder.config.data_files[split]))

    def _cards(self) -> list[Path]:
        return [card for name in CARDS if (card := Path(self.builder.base_path, name)).is_file()]


PLACED = "\x1fplaced"
"""Key of a record that wraps (position, record or BadRow)."""


def tables(files: list[Path], how: Table) -> Any:
    """The rows of csv files as an `IterableDataset`, one shard per file, each row `{PLACED: (position, record)}`."""
    from datasets import IterableDataset

    return IterableDataset.from_generator(_rows_of, gen_kwargs={"files": files, "how": how})


def _rows_of(files: list[Path], how: Table) -> Iterator[dict[str, tuple[str, Record | BadRow]]]:
    for file in files:
        for placed in how.in_file(file):
            yield {PLACED: placed}


def find(path: str, config: str | None, revision: str | None) -> Saved | Built:
    """The dataset at `path`; ConfigError or DataError with the problem and what is available."""
    _be_quiet()
    place = path_of(path)
    if not place.exists() and not is_local_path(path):
        return _on_hub(path, config, revision)
    if not place.exists():
        raise DataError(f"{path} does not exist", nearest_place(place))
    if kind := not_plain(place):
        raise DataError(f"{path} is {kind}, and a dataset is read from files")
    if revision is not None:
        raise ConfigError(f"data.revision={revision} is a version of a dataset on the hub, and {path} is here")
    if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
        if config is not None:
            raise ConfigError(f"data.config={config}: {path} was saved as one dataset and has no configurations")
        return _saved(place, path)
    where, files = (place, None) if place.is_dir() else (place.parent, place.name)
    # An empty cache: results of earlier load_dataset calls would change the types of columns.
    where = where.resolve()
    with explained(f"data.path={path} cannot be loaded"):
        check_cards(path, where)
    with TemporaryDirectory() as empty:
        builder = _builder(str(where), path, config, data_files=files, cache_dir=empty)
    for some in (builder.config.data_files or {}).values():
        check_inside(path, where, map(str, some))
        check_plain(path, map(Path, some))
    return Built(builder, None)


def _saved(place: Path, path: str) -> Saved:
    from datasets import DatasetDict, load_from_disk

    with explained(f"{path} cannot be read"):
        found = load_from_disk(str(place), keep_in_memory=False)
        parts = dict(found) if isinstance(found, DatasetDict) else {"train": found}
        for part in parts.values():
            check_inside(path, Path(os.path.abspath(place)), [file["filename"] for file in part.cache_files])
        return Saved({str(split): part.with_format(None) for split, part in parts.items()})


def _on_hub(path: str, config: str | None, revision: str | None) -> Built:
    commit = _commit(path, revision)
    builder = _builder(path, path, config, revision=commit or revision)
    if commit is None and revision is not None and builder.hash != revision:
        raise DataError(
            f"data.revision={revision} is not what was downloaded of {path} before, which is {builder.hash}",
            "without HF_HUB_OFFLINE it is fetched; or data.revision=null",
        )
    for some in (builder.config.data_files or {}).values():
        for file in map(str, some):
            if not file.startswith("hf://datasets/") or ".." in file.split("/") or "::" in file:
                raise outside(path, file)
    return Built(builder, builder.hash)


def _commit(path: str, revision: str | None) -> str | None:
    """The commit of `revision` (or of the newest version) of a dataset on the hub; None in offline mode."""
    from huggingface_hub import HfApi, errors

    try:
        return HfApi().dataset_info(path, revision=revision, timeout=20).sha
    except errors.OfflineModeIsEnabled:
        return None
    except errors.RevisionNotFoundError:
        raise ConfigError(f"data.revision={revision}: {path} has no such branch, tag or commit") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise DataError(
            f"data.path={path}: neither a file or folder here nor a dataset on the hub",
            _nearby(path) or "hub names are owner/name; private datasets need HF_TOKEN in the environment",
        ) from None
    except Exception as error:  # exceptions differ between HTTP libraries
        raise DataError(
            f"data.path={path} is not here, and the hub cannot be reached: {_first_line(error)}",
            _nearby(path) or "without a network HF_HUB_OFFLINE=1 takes what was downloaded before",
        ) from error


def _builder(where: str, path: str, config: str | None, **how: Any) -> Any:
    import datasets

    with explained(f"data.path={path} cannot be loaded", _nearby(path)):
        try:
            builder = datasets.load_dataset_builder(where, config, **how)
            if builder.name == "csv" and builder.info.features is None:  # else pandas reads "NA" and "None" as missing
                builder = datasets.load_dataset_builder(where, config, na_filter=False, **how)
            return builder
        except RuntimeError as error:
            if "script" not in str(error):
                raise
            raise ConfigError(
                f"data.path={path} is a loading script, and no code that comes with data is run",
                "the hub converts many of them: data.revision=refs/convert/parquet",
            ) from error
        except ValueError as error:
            if "onfig" not in str(error):  # "BuilderConfig 'x' not found", "Config name is missing"
                raise
            if "cache" in str(error):  # offline: the names cannot be requested
                raise ConfigError(f"data.path={path}: {_first_line(error)}", "give data.config as before") from error
            names = datasets.get_dataset_config_names(where, how.get("revision"), data_files=how.get("data_files"))
            if config is None:
                raise ConfigError(
                    f"data.path={path} has several configurations, so data.config is required",
                    f"there are: {', '.join(names)}",
                ) from error
            near = did_you_mean(config, names)
            raise ConfigError(f"data.config={config}: {path} has no such configuration{near}") from error


def _nearby(path: str) -> str | None:
    """A hint: the local file or folder that was perhaps meant; a name with a slash is a hub id."""
    return None if "/" in path else nearest_place(Path(path))


@contextmanager
def explained(what: str, hint: str | None = None) -> Iterator[None]:
    """Context manager: any exception of the library, whose readers raise many types, becomes a DataError."""
    try:
        yield
    except LmctlError:
        raise
    except Exception as error:
        raise DataError(f"{what}: {_first_line(error)}", hint) from error


def _first_line(error: BaseException) -> str:
    """The most informative line: the library wraps the cause in general errors."""
    while type(error).__name__ == "DatasetGenerationError" and error.__cause__ is not None:
        error = error.__cause__
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= _LONGEST_WORDS else f"{line[:_LONGEST_WORDS]}..."


def _be_quiet() -> None:
    import datasets
    from huggingface_hub.utils import logging as hub

    datasets.logging.set_verbosity_error()
    hub.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
