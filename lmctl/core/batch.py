"""Batches and the types in them: kinds of rows, families of networks, targets, terms of a loss.

Shapes are written with R rows, L positions in a row, N targets, H hidden units, V tokens in the vocabulary, here and in
the base classes of the groups.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple, SupportsIndex, TypeAlias, overload

import numpy as np

from lmctl.core.ragged import Ragged, joined

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Split: TypeAlias = Literal["train", "valid"]

Kind: TypeAlias = Literal["documents", "labelled", "parallel"]
"""The kind of rows of a source: documents of sentences; one or two texts with a label; a text and its translation."""

Family: TypeAlias = Literal["encoder", "decoder", "seq2seq"]
"""Attention pattern of a network: bidirectional; causal; a decoder with cross-attention to an encoder."""

LabelKind: TypeAlias = Literal["class", "classes", "number"]
"""The kind of a label: one of several classes (single-label), any number of them (multi-label), or a number
(regression)."""

Document: TypeAlias = "list[str]"
"""The sentences of one document, in order, each a non-empty string without line breaks; or its lines, each with its
line break, where the raw text is read. A source that knows the raw text gives `DocumentWithText` documents."""

Terms: TypeAlias = "dict[str, Tensor]"
"""Terms of a loss by name, each a scalar *summed* over its targets; the train step divides once, by the global
count."""


class DocumentWithText(list[str]):
    """The sentences of a document together with the raw text they were split from: `text`, exactly as it stands in its
    file, with its white space. A slice keeps its part of the text. A list built from the sentences (with noise, say) is
    a plain list, unless `rewritten` builds it."""

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
        return DocumentWithText(part, self.text[spans[0][0] : spans[-1][1]]) if spans else part

    def rewritten(self, sentences: Sequence[str]) -> list[str]:
        """As many replacement sentences, joined by the same separators (white space) as in the text."""
        text, end, spans = "", 0, self._spans()
        if not spans:
            return list(sentences)
        for other, (start, stop) in zip(sentences, spans, strict=True):
            text, end = text + self.text[end:start] + other, stop
        return DocumentWithText(sentences, text + self.text[end:])

    def _spans(self) -> list[tuple[int, int]]:
        """(start, end) of each sentence in the text; [] if the characters of both differ in more than white space."""
        solid = [place for place, character in enumerate(self.text) if not character.isspace()]
        sizes = [len("".join(sentence.split())) for sentence in self]
        if sum(sizes) != len(solid) or 0 in sizes:
            return []
        ends = list(accumulate(sizes))
        return [(solid[end - size], solid[end - 1] + 1) for size, end in zip(sizes, ends, strict=True)]


def whole_text(sentences: Sequence[str]) -> str:
    """The raw text of a document if it is known, else its sentences joined by spaces; no space beside white space or
    between two CJK characters."""
    if isinstance(sentences, DocumentWithText):
        return sentences.text
    text = ""
    for sentence in sentences:
        joint = text[-1:] + sentence[:1]
        text += sentence if not text or _NO_SPACE.search(joint) else " " + sentence
    return text


_WIDE = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_NO_SPACE = re.compile(rf"\s|[{_WIDE}]{{2}}")
"""White space on either side, or CJK characters on both."""


class Row(NamedTuple):
    """One row (example) of a source."""

    texts: list[str]
    """The sentences of a document; or one text, or two; or a text and its translation."""
    label: str | float | list[str] | None = None
    where: str = ""
    """`file:line`, for messages."""


@dataclass(frozen=True)
class Targets:
    """What one term of the loss predicts: positions and labels."""

    positions: Tensor
    """int64 [N]: indices into the flattened [R * L] batch (of the decoder's inputs in an encoder-decoder); row indices
    0 to R - 1 where the label belongs to a whole row."""
    labels: Tensor
    """The label of each: int64 [N] classes; or float32 [N] for regression, float32 [N, C] of zeros and ones for
    multi-label classification."""


class RowNumbers(NamedTuple):
    """Row number and epoch of each row of a batch, as numpy arrays on the host."""

    numbers: np.ndarray
    """int64 [R]"""
    epochs: np.ndarray
    """int64 [R]: the epoch of each row; masks and noise differ between epochs."""


@dataclass(frozen=True)
class Batch:
    """Rows of one task, collated for the model."""

    task: str
    inputs: dict[str, Tensor]
    """`input_ids` int64 [R, L]; where the task needs them

    - `token_type_ids` int64 [R, L];
    - `attention_mask` bool [R, L], only when there is padding;
    - instead of it `documents` int64 [R, L] where attention must not cross the documents of a row: the index of the
      document in its row, -1 for padding; with `position_ids` int64 [R, L] that restart in each document;
    - `decoder_input_ids` int64 [R, T] and, only when there is padding, `decoder_attention_mask` bool [R, T];
    - `track` int64 [R] and `fresh` bool [R] where a recurrent network carries its state between batches: a row
      continues from the final state of the last row of its track, unless it is fresh;
    - `draws` float32 [N] in [0, 1): a random number for each mask that the network fills in itself (ELECTRA)."""
    targets: dict[str, Targets]
    """By the name of the loss term."""
    tokens: int
    """Tokens in the batch without padding."""
    rows: RowNumbers | None = None
    """Row numbers and epochs, by which cached teacher logits are found."""
    generated: bool = False
    """Whether the student generated the targets (on-policy distillation): only the teacher's loss counts then, not
    cross-entropy."""

    def counts(self) -> dict[str, int]:
        """Number of targets per term."""
        return {name: len(target.labels) for name, target in self.targets.items()}

    def by_itself(self) -> Batch:
        """The same rows without what is carried from row to row (recurrent states by track)."""
        return replace(self, inputs={name: t for name, t in self.inputs.items() if name not in ("track", "fresh")})

    def pinned(self) -> Batch:
        """The same batch in pinned memory, from which copies to a GPU are asynchronous."""
        return self._moved(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`, copied from pinned memory to a GPU."""
        if self.inputs["input_ids"].device == device:
            return self
        batch = self.pinned() if device.type == "cuda" else self  # what is pinned already stays where it is
        return batch._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Batch:
        targets = {name: Targets(move(t.positions), move(t.labels)) for name, t in self.targets.items()}
        return replace(self, inputs={name: move(t) for name, t in self.inputs.items()}, targets=targets)


def padding_mask(name: str, lengths: np.ndarray, width: int) -> dict[str, Tensor]:
    """Attention mask `{name: bool [R, width]}`, true at the tokens of rows with `lengths` int64 [R]; {} if there is no
    padding."""
    import torch

    if (lengths >= width).all():
        return {}
    return {name: torch.from_numpy(np.arange(width) < lengths[:, None])}


def pad_rows(rows: Sequence[np.ndarray], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Pad rows of different lengths at the end: int64 [R, longest], and their lengths int64 [R]."""
    return joined([Ragged.of(rows)], len(rows), pad)
