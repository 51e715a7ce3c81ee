"""The contract of the group `data`: where text comes from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from lmctl.core.component import Component

if TYPE_CHECKING:
    from lmctl.core.batch import Kind, Row, Split
    from lmctl.core.counter_rng import CounterRng

StreamPlace: TypeAlias = "dict[str, Any]"
"""Where a source stands in its stream, as JSON: what it needs to find the place again."""


@dataclass(frozen=True)
class Block:
    """Rows of a stream that follow each other, fit for training: none of them is held out."""

    rows: list[Row]
    after: StreamPlace | None
    """Where the block behind it begins; None: there is none, the stream has ended."""


class Source(Component):
    """Group `data`: where text comes from."""

    @property
    @abstractmethod
    def yields(self) -> Kind:
        """What its rows are."""

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values that change whenever `rows` would yield something else: file contents, options."""

    @abstractmethod
    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of one split, always the same ones in the same order."""

    @abstractmethod
    def describe(self) -> str:
        """The source in a few words: what was found, and how it was read."""

    @property
    def place(self) -> str | None:
        """The file or folder that it was told to read, if it was told one."""
        return None

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes in their order, where the source knows them beforehand and the training rows need not show them
        all; empty: it does not."""
        return ()

    @property
    def on_bad_row(self) -> str:
        """Rows that cannot be used: "error" ends at the first one, "skip" leaves them out."""
        return "error"

    @property
    def embedded(self) -> bool:
        """Whether its text comes with Python or lmctl, so that nobody minds if `lmctl plan` looks at it."""
        return False

    @property
    def streamed(self) -> bool:
        """Whether training rows are read in blocks while training (`block`), so that no more than a block or two of
        them is ever at hand. All that must be finite comes from the first block: `rows("train")` yields that only."""
        return False

    def block(self, epoch: int, at: StreamPlace | None, order: CounterRng) -> Block:
        """Of a streamed source the block of pass `epoch` over the stream that begins at `at`, None being its beginning:
        the same rows for the same arguments in every process. Parts of the stream may come in another order in every
        pass, drawn from `order`, but for the first one. DataError if it cannot be read, or if a row is bad."""
        raise NotImplementedError(f"{type(self).__name__} is not streamed")
