"""Batches, and the words for what is in them: kinds of rows, families of networks, targets, terms of a loss.

Shapes are written with R rows, L positions in a row, N targets, H hidden units, V pieces of vocabulary, here and in the
protocols beside this file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple, SupportsIndex, TypeAlias, overload

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Split: TypeAlias = Literal["train", "valid"]

Kind: TypeAlias = Literal["documents", "labelled", "parallel"]
"""What the rows of a source are: documents of sentences; one text or two with a label; a text and its translation."""

Family: TypeAlias = Literal["encoder", "decoder", "seq2seq"]
"""Which positions a network lets look at which: all at all; each at those before it; a decoder at an encoder."""

LabelKind: TypeAlias = Literal["class", "classes", "number"]
"""What a label is: one of several classes, any number of them, or a number."""

Document: TypeAlias = "list[str]"
"""The sentences of one document, in order, each a non-empty string without line breaks; or its lines, each with the
line break that ends it, where a text is read as it stands. A source that knows the text they were cut from gives
`Written` ones."""

Terms: TypeAlias = "dict[str, Tensor]"
"""Named parts of a loss, each a scalar *summed* over its targets; the runner divides once, by the global count."""


class Written(list[str]):
    """The sentences of a document that know the text they were cut from: `text`, as it stands in its file, white space
    and all. A slice knows its part of it. What is made of the sentences anew (noise, say) is a plain list again, unless
    `rewritten` makes it."""

    def __init__(self, sentences: Iterable[str] = (), text: str = "") -> None:
        super().__init__(sentences)
        self.text = text

    @overload
    def __getitem__(self, place: SupportsIndex) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: SupportsIndex | slice) -> str | list[str]:
        if not isinstance(place, slice):
            return super().__getitem__(place)
        part, spans = super().__getitem__(place), self._spans()[place]
        return Written(part, self.text[spans[0][0] : spans[-1][1]]) if spans else part

    def rewritten(self, sentences: Sequence[str]) -> list[str]:
        """Other sentences, as many, with what stands between them in the text."""
        text, end, spans = "", 0, self._spans()
        if not spans:
            return list(sentences)
        for other, (start, stop) in zip(sentences, spans, strict=True):
            text, end = text + self.text[end:start] + other, stop
        return Written(sentences, text + self.text[end:])

    def _spans(self) -> list[tuple[int, int]]:
        """Where each sentence begins and ends in the text, which holds the same characters in the same order but for
        white space; [] if it does not."""
        solid = [place for place, character in enumerate(self.text) if not character.isspace()]
        sizes = [len("".join(sentence.split())) for sentence in self]
        if sum(sizes) != len(solid) or 0 in sizes:
            return []
        ends = list(accumulate(sizes))
        return [(solid[end - size], solid[end - 1] + 1) for size, end in zip(sizes, ends, strict=True)]


def whole_text(sentences: Sequence[str]) -> str:
    """The text of a document: as it stands where that is known, else its sentences with a space between them; none
    where one ends in a line break, or where Chinese meets Chinese."""
    if isinstance(sentences, Written):
        return sentences.text
    text = ""
    for sentence in sentences:
        joint = text[-1:] + sentence[:1]
        text += sentence if not text or _NO_SPACE.search(joint) else " " + sentence
    return text


_WIDE = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_NO_SPACE = re.compile(rf"\s|[{_WIDE}]{{2}}")
"""White space on either side, or scripts that are written without spaces on both."""


class Row(NamedTuple):
    """One row of a source."""

    texts: list[str]
    """The sentences of a document; or one text, or two; or a text and its translation."""
    label: str | float | list[str] | None = None
    where: str = ""
    """`file:line`, for messages."""


@dataclass(frozen=True)
class Targets:
    """What one term of the loss is asked to predict."""

    positions: Tensor
    """int64 [N]: places in the flattened [R * L] batch (of the decoder's side, where there are two); the rows
    themselves, 0 to R - 1, where a whole row is asked about."""
    labels: Tensor
    """The right answer at each of them: int64 [N]; or float32 [N] for numbers, float32 [N, C] of zeros and ones
    where several classes may hold."""


class RowNumbers(NamedTuple):
    """Which rows of their task a batch is made of; in the host's memory."""

    numbers: np.ndarray
    """int64 [R]"""
    epochs: np.ndarray
    """int64 [R]: as it is in which epoch."""


@dataclass(frozen=True)
class Batch:
    """Rows of one task, ready for the model."""

    task: str
    inputs: dict[str, Tensor]
    """`input_ids` int64 [R, L]; where the task needs them

    - `token_type_ids` int64 [R, L];
    - `attention_mask` bool [R, L], only when there is padding;
    - in its place `documents` int64 [R, L] where documents that share a row must not see each other: the number of the
      document in its row, -1 for padding; with `position_ids` int64 [R, L] that begin anew in each;
    - `decoder_input_ids` int64 [R, T] and, only when there is padding, `decoder_attention_mask` bool [R, T];
    - `track` int64 [R] and `fresh` bool [R] where a recurrent network carries its state from batch to batch: the
      row goes on where the last row of its track ended, unless it is fresh;
    - `draws` float32 [N] in [0, 1): a random number for each of the masks that the network fills in itself."""
    targets: dict[str, Targets]
    """Per term of the loss. Its name is the name of the term."""
    tokens: int
    """Real tokens in the batch, padding not counted."""
    rows: RowNumbers | None = None
    """Where the rows can be found again by their numbers."""
    generated: bool = False
    """Whether the student wrote what is asked about: a teacher's opinion of it counts then, the text does not."""

    def counts(self) -> dict[str, int]:
        """Number of targets per term."""
        return {name: len(target.labels) for name, target in self.targets.items()}

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; copies do not block the host where memory is pinned."""
        if self.inputs["input_ids"].device == device:
            return self

        def move(tensor: Tensor) -> Tensor:
            return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

        targets = {name: Targets(move(t.positions), move(t.labels)) for name, t in self.targets.items()}
        inputs = {name: move(t) for name, t in self.inputs.items()}
        return replace(self, inputs=inputs, targets=targets)


def padding_mask(name: str, lengths: np.ndarray, width: int) -> dict[str, Tensor]:
    """`{name: bool [R, width]}`, true where rows of `lengths` int64 [R] have pieces; nothing if all are full."""
    import torch

    if (lengths >= width).all():
        return {}
    return {name: torch.from_numpy(np.arange(width) < lengths[:, None])}


def rectangle(rows: Sequence[np.ndarray], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of different lengths as int64 [R, longest], filled up at the end, and their lengths int64 [R]."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ids = np.full((len(rows), int(lengths.max(initial=0))), pad, dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    return ids, lengths
