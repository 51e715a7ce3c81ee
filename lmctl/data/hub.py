"""`data=hub`: datasets read by Hugging Face's library `datasets`, from the hub or local, in memory or streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Optional

from lmctl.core.batch import Row
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError
from lmctl.core.paths import Place
from lmctl.core.suggest import did_you_mean
from lmctl.data.base import Block, StreamPlace
from lmctl.data.columns import Columns
from lmctl.data.file_status import FileStates, check_unchanged, states
from lmctl.data.hub_dataset import PLACED, Built, Saved, explained, find, tables
from lmctl.data.hub_stream import BlockReader, Records
from lmctl.data.records import BadRow, NoColumn, Record, outermost, value_of
from lmctl.data.row_split import RowPartition, digest
from lmctl.data.table import Table

VERSION = 2
"""Version of the reading code: increase it when the same data and options yield other rows."""


@dataclass(frozen=True)
class Hub(Columns):
    """A dataset of the hub by name, one saved by `save_to_disk`, or a folder or file that `load_dataset` reads.

    Streamed, its training rows come in blocks of `buffer` rows. Everything finite (text for the tokenizer, word counts,
    held-out rows, labels that no feature names) then uses the first block.
    """

    config: Optional[str] = None
    revision: Optional[Place] = None
    train_split: str = "train"
    valid_split: Optional[str] = None
    streaming: bool = False
    buffer: int = 10_000

    option: ClassVar[str] = "hub"
    imports: ClassVar[tuple[str, ...]] = ("datasets",)
    what_path_is: ClassVar[str] = "a dataset on the hub (owner/name), a saved one, or a folder or file"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train_split or self.valid_split == "":
            raise ValueError("train_split and valid_split must name a split")
        if self.valid_split == self.train_split:
            raise ValueError(f"valid_split is train_split ({self.train_split}); null holds out valid_share of its rows")
        if self.buffer < 2:
            raise ValueError(f"buffer must be at least 2 rows, got {self.buffer}")

    @property
    def parts(self) -> tuple[str, str | None]:
        return self.train_split, self.valid_split

    @property
    def streamed(self) -> bool:
        return self.streaming

    @cached_property
    def _dataset(self) -> Saved | Built:
        found = find(self.path, self.config, self.revision)
        for key in ("train_split", "valid_split"):
            split = getattr(self, key)
            if split is not None and split not in found.splits:
                raise ConfigError(
                    f"data.{key}={split}: {self.path} has no such split{did_you_mean(split, found.splits)}",
                    f"splits: {', '.join(found.splits)}",
                )
        return found

    def _open(self, split: str, stream: bool) -> Any:
        """The rows of a split with only the columns that are read, so that no image or audio is decoded."""
        with explained(f"{self.path}[{split}] cannot be read"):
            if isinstance(self._dataset, Built) and (files := self._dataset.tables(split)) is not None:
                return tables(files, Table(self.path, self.text, self.text_b, self.label, self.source, self.target))
            dataset = self._dataset.stream(split) if stream else self._dataset.read(split)
            if dataset.features is None:  # csv files, before the first row is read
                return dataset
            wanted = {self._column(name, dataset.features, split): None for name in self.wanted}
            return dataset.select_columns(list(wanted))

    def _column(self, name: str, features: Mapping[str, Any], split: str) -> str:
        """The column named `name`, or the one that contains the nested key `a.b`."""
        column = outermost(name, features)
        if column is None:
            raise self._no_column(f"{self.path}[{split}]", NoColumn(name, features))
        return column

    def some_records(self) -> list[Record]:
        from datasets import ClassLabel, Value

        if isinstance(self._dataset, Built) and self._dataset.tables(self.train_split) is not None:
            return super().some_records()
        dataset = self._dataset.stream(self.train_split)
        if dataset.features is not None:  # images and audio are dropped
            plain = [name for name, feature in dataset.features.items() if isinstance(feature, ClassLabel | Value)]
            dataset = dataset.select_columns(plain)
        with explained(f"{self.path} cannot be read"):
            return list(dataset.take(20))

    @cached_property
    def _class(self) -> Any:
        """The `ClassLabel` feature of the label column; None if its values are labels themselves."""
        from datasets import ClassLabel

        features = self._open(self.train_split, self.streaming).features or {}
        try:
            feature = value_of(features, self.label) if self.label else None
        except NoColumn:  # nested in a column without a mapping of features, such as Translation
            return None
        feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
        return feature if isinstance(feature, ClassLabel) else None

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers, if the features name them."""
        return () if self._class is None else tuple(self._class.names)

    def _with_class_names(self, record: Record) -> Record:
        """`record` with class names in place of class numbers; -1 means unlabelled."""
        if self._class is None or self.label is None:
            return record
        value = value_of(record, self.label)
        numbers = value if isinstance(value, list) else [value]
        names = [self._class.int2str(number) for number in numbers if number is not None and number >= 0]
        return {**record, self.label: names if isinstance(value, list) else next(iter(names), None)}

    def records(self, part: str) -> Iterator[tuple[str, Record | BadRow]]:
        """The records of a part; of a streamed training split the first block only."""
        if self.streaming and part == self.train_split:
            rows: Iterator[tuple[str, Record]] = iter(self._first_block.found)
        else:
            rows = self._numbered(part)
        return self._records_with_class_names(rows)

    def _records_with_class_names(self, rows: Iterable[tuple[str, Record]]) -> Iterator[tuple[str, Record | BadRow]]:
        for where, record in rows:
            if PLACED in record:
                yield record[PLACED]
            else:
                yield where, self._with_class_names(record)

    def _numbered(self, part: str) -> Iterator[tuple[str, Record]]:
        name = f"{self.path}[{part}]"
        with explained(f"{name} cannot be read"):
            for number, record in enumerate(self._open(part, self.streaming), start=1):
                yield f"{name} row {number}", record

    @cached_property
    def _reader(self) -> BlockReader:
        return BlockReader(f"{self.path}[{self.train_split}]", lambda: self._open(self.train_split, True))

    @cached_property
    def _first(self) -> tuple[FileStates, Records]:
        """How the files stood, and then the first block."""
        return self.state(), self._reader.block(self.buffer, 0, None, None)

    @property
    def _first_block(self) -> Records:
        return self._first[1]

    @cached_property
    def _held_out(self) -> frozenset[int]:
        """Digests of the validation rows, which are dropped wherever they occur in the stream."""
        return frozenset(digest(row, self.sides) for row in self._partition.rows("valid"))

    def block(self, epoch: int, at: StreamPlace | None, order: CounterRng) -> Block:
        records = self._first_block
        if (epoch, at) != (0, None):
            records = self._reader.block(self.buffer, epoch, at, order)
            check_unchanged(self._first[0], self.state())
        rows: list[Row] = []
        for where, record in self._records_with_class_names(records.found):
            row = self.checked(where, record)
            if isinstance(row, BadRow):
                self.skip(where, row)
            elif not self._validates(row):
                rows.append(row)
        return Block(rows, records.after)

    def _validates(self, row: Row) -> bool:
        parts = self._partition
        translated = isinstance(parts, RowPartition) and parts.translated(row)
        return translated or digest(row, self.sides) in self._held_out

    def state(self) -> FileStates:
        return states(file for split in self.parts if split is not None for file in self._dataset.files(split))

    def fingerprint(self) -> Mapping[str, Any]:
        """Content hashes of local files, the commit of a dataset on the hub; the columns read, and the split.

        The library's own `_fingerprint` does not identify the content: it depends on how a dataset was made (file
        dates, random).
        """
        return {
            "source": type(self).__name__,
            "version": VERSION,
            "data": {split: self._dataset.identity(split) for split in self.parts if split is not None},
            "splits": list(self.parts),
            "columns": [self.text, self.text_b, self.label, self.source, self.target],
            "valid": self.valid_share if self.valid_split is None else None,
            "on_bad_row": self.on_bad_row,
            "stream": [self.buffer, self._dataset.stream(self.train_split).num_shards] if self.streaming else None,
        }

    def describe(self) -> str:
        """One line: name, columns, rows, unused splits; streamed, the use of the first block."""
        text = f"{super().describe()}; {self._dataset.kind}"
        if self.streaming:
            text += f"; streaming: tokenizer and word counts from the first {len(self._first_block.found):,} rows"
        others = [split for split in self._dataset.splits if split not in self.parts]
        if others and self.valid_split is None:
            text += f"; other splits (data.valid_split=): {', '.join(others)}"
        return text
