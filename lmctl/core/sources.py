"""Where text comes from, how it is changed and cut: the groups `data`, `augment` and `tokenizer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerFast

    from lmctl.core.batch import Kind, Row, Split
    from lmctl.core.draws import Draws
    from lmctl.core.vocabulary import Vocabulary


@runtime_checkable
class Source(Protocol):
    """Group `data`: where text comes from.

    Three attributes are optional. `label_names`: the classes in their order, where the source knows them beforehand
    and the training rows need not show them all. `streamed` True: it is a `StreamedSource`. `embedded` True: its text
    comes with Python or lmctl, so that nobody minds if `lmctl plan` looks at it.
    """

    @property
    def yields(self) -> Kind:
        """What its rows are."""
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values that change whenever `rows` would yield something else: file contents, options."""
        ...

    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of one split, always the same ones in the same order."""
        ...

    def describe(self) -> str:
        """The source in a few words: what was found, and how it was read."""
        ...


StreamPlace: TypeAlias = "dict[str, Any]"
"""Where a source stands in its stream, as JSON: what it needs to find the place again."""


@dataclass(frozen=True)
class Block:
    """Rows of a stream that follow each other, fit for training: none of them is held out."""

    rows: list[Row]
    after: StreamPlace | None
    """Where the block behind it begins; None: there is none, the stream has ended."""


class StreamedSource(Source, Protocol):
    """A source whose training rows are read in blocks while training, so that no more than a block or two of them is
    ever at hand. All that must be finite comes from its first block: `rows("train")` yields that one only."""

    streamed: bool

    def block(self, epoch: int, at: StreamPlace | None, order: Draws) -> Block:
        """The block of pass `epoch` over the stream that begins at `at`, None being its beginning: the same rows
        for the same arguments in every process. Parts of the stream may come in another order in every pass, drawn
        from `order`, but for the first one. DataError if it cannot be read, or if a row is bad."""
        ...


def streamed(source: Source) -> StreamedSource | None:
    """`source` if its training rows are streamed, else None."""
    return cast("StreamedSource", source) if getattr(source, "streamed", False) else None


@runtime_checkable
class TokenizerSpec(Protocol):
    """Group `tokenizer`: how text becomes pieces."""

    def identity(self) -> Mapping[str, Any]:
        """JSON values that, with the training text, determine the tokenizer."""
        ...

    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Train on `sentences` (or load, and leave them alone)."""
        ...


Rewrite: TypeAlias = "Callable[[np.ndarray, np.random.Generator], np.ndarray]"
"""An augmentation at work: the pieces of one text int64 [n] in, other pieces int64 [m] (m above 0) out."""


@runtime_checkable
class Augment(Protocol):
    """Group `augment`: how a text is changed before it is learnt from."""

    def rewriter(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Rewrite | None:
        """The augmentation for texts of this tokenizer; None: texts stay as they are."""
        ...
