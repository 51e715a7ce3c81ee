"""Base class of the group `data`: sources of text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from lmctl.core.component import Component

if TYPE_CHECKING:
    from lmctl.core.batch import Kind, Row, Split
    from lmctl.core.counter_rng import CounterRng
    from lmctl.data.file_status import FileStates

StreamPlace: TypeAlias = "dict[str, Any]"
"""A position in a source's stream, as JSON: all that is needed to seek to it."""


@dataclass(frozen=True)
class Block:
    """Consecutive training rows of a stream, without held-out rows."""

    rows: list[Row]
    after: StreamPlace | None
    """Position of the next block; None at the end of the stream."""


class Source(Component):
    """Group `data`: a source of rows."""

    @property
    @abstractmethod
    def yields(self) -> Kind:
        """The kind of its rows."""

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values that change whenever `rows` would yield something else: file contents, options."""

    def state(self) -> FileStates:
        """How the files that it reads stand now (`lmctl.data.files.states`). Taken before the fingerprint and after
        the last row was read, it says whether the rows are those of the fingerprint. Empty: they cannot change."""
        return ()

    @abstractmethod
    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of one split, always the same in the same order."""

    @abstractmethod
    def describe(self) -> str:
        """A short description: what was found, and how it was read."""

    @property
    def place(self) -> str | None:
        """The configured file or folder, if there is one."""
        return None

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes in order, if known before reading the rows (some may not occur in them); empty if not."""
        return ()

    @property
    def on_bad_row(self) -> str:
        """Handling of bad rows: "error" raises at the first one, "skip" drops them."""
        return "error"

    @property
    def embedded(self) -> bool:
        """Whether its text is part of Python or lmctl, so that `lmctl plan` may read it without permission."""
        return False

    @property
    def streamed(self) -> bool:
        """Whether training rows are read block by block while training (`block`), with only a block or two in memory.
        Everything finite (tokenizer training, held-out rows) uses the first block: `rows("train")` yields that only."""
        return False

    def block(self, epoch: int, at: StreamPlace | None, order: CounterRng) -> Block:
        """The block of a streamed source at position `at` (None: the start) of pass `epoch` over the stream: the same
        rows for the same arguments in every process. From the second pass on, shards may be shuffled by `order`.
        DataError if it cannot be read, or if a row is bad."""
        raise NotImplementedError(f"{type(self).__name__} is not streamed")
