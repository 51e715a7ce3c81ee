"""Layout detection of text files: where documents end, and whether a line is a sentence, a paragraph or wrapped text.

Both are detected from a sample, so that a folder of text needs no description; both can be set instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from lmctl.core.batch import Document, DocumentWithText
from lmctl.data.files import BadFile
from lmctl.data.reading import lines
from lmctl.data.sentences import ends_sentence, join_lines, split_sentences

Layout = Literal["one_document_per_file", "blank_line_between_documents", "one_document_per_line", "verbatim"]
LAYOUTS: tuple[Layout, ...] = (
    "one_document_per_file",
    "blank_line_between_documents",
    "one_document_per_line",
    "verbatim",  # each file is a document; all its lines, also empty ones, are kept with their line ends
)

LineIs = Literal["sentence", "paragraph", "piece"]
"""One sentence; a paragraph of whole sentences; or hard-wrapped text."""

_SAMPLE = 1 << 20
_SAMPLED_FILES = 8
_MOSTLY = 0.6
MOST_OF_DOCUMENT = 1 << 28
"""Memory in bytes that the lines of one document may take; splitting it takes several times as much."""
_PER_LINE = 64
"""Bytes that Python takes for a line besides its characters."""
_HEADING = re.compile(r"=+ .* =+|#{1,6} .*")
"""Titles in Wikipedia dumps (`= = History = =`) and Markdown. They belong to the text below them."""


def sample(files: Sequence[Path]) -> list[list[str]]:
    """The first lines of the first files, about a megabyte in all, with white space normalised."""
    share = _SAMPLE // min(len(files), _SAMPLED_FILES)
    return [list(_first(file, share)) for file in files[:_SAMPLED_FILES]]


def detect_layout(files: Sequence[Path], heads: Sequence[list[str]]) -> Layout:
    """Detect how documents are separated.

    In several files, blank lines separate documents only around groups of whole sentences, the layout of BERT's own
    sample; elsewhere they are gaps between paragraphs of one text.
    """
    blocks = [block for head in heads for block in _blocks(head)]
    rows = [row for block in blocks for row in block]
    if not rows:
        return "one_document_per_line"
    has_blank = any("" in head[:-1] for head in heads)
    if has_blank and len(rows) >= 2 * len(blocks) and _share_final(rows) >= _MOSTLY:
        return "blank_line_between_documents"
    if len(files) > 1:
        return "one_document_per_file"
    return "blank_line_between_documents" if has_blank else "one_document_per_line"


def detect_line(heads: Sequence[list[str]], layout: Layout) -> LineIs:
    """Detect what a line contains."""
    rows = [row for head in heads for row in head if row and not _HEADING.fullmatch(row)]
    if layout == "one_document_per_line" or not rows:
        return "paragraph"
    if _share_final(rows) >= _MOSTLY:
        split = sum(len(split_sentences(row)) for row in rows)
        return "sentence" if split < 1.25 * len(rows) else "paragraph"
    # Without punctuation (verses, transcripts), joined lines would become one sentence.
    joined = [join_lines(block) for head in heads for block in _blocks(head)]
    whole = sum(ends_sentence(sentence) for text in joined for sentence in split_sentences(text))
    return "piece" if whole * 20 >= len(rows) else "sentence"


def read_documents(files: Iterable[Path], layout: Layout, line_is: LineIs) -> Iterator[Document]:
    """The documents of all files in order; a document never spans files."""
    for file in files:
        room = _Room(file)
        if layout == "verbatim":
            if document := [line + "\n" for line in room.lines()]:
                yield document
            continue
        if layout == "one_document_per_line":
            groups: Iterable[list[str]] = ([line] for line in lines(file))
        elif layout == "blank_line_between_documents":
            groups = _with_headings(_raw_blocks(room.lines()))
        else:
            groups = [list(room.lines())]
        for group in groups:
            room.taken = 0
            blocks = _blocks(map(_normalise, group))
            if sentences := [sentence for block in blocks for sentence in _sentences(block, line_is)]:
                yield DocumentWithText(sentences, "\n".join(group).strip("\n"))


class _Room:
    """The lines of a file; BadFile once those of one document take more memory than one may."""

    def __init__(self, file: Path) -> None:
        self.file, self.taken = file, 0

    def lines(self) -> Iterator[str]:
        for number, line in enumerate(lines(self.file), start=1):
            self.taken += len(line) + _PER_LINE
            if self.taken > MOST_OF_DOCUMENT:
                raise BadFile(
                    f"{self.file}:{number}: a document that has not ended after {MOST_OF_DOCUMENT >> 20} MiB",
                    "data.layout=one_document_per_line, or blank lines between documents and "
                    "data.layout=blank_line_between_documents",
                    "too long a document",
                )
            yield line


def _first(file: Path, characters: int) -> Iterator[str]:
    for line in lines(file):
        yield _normalise(line[:characters])
        characters -= len(line) + 1
        if characters <= 0:
            return


def _normalise(line: str) -> str:
    return " ".join(line.split())


def _share_final(rows: Sequence[str]) -> float:
    return sum(map(ends_sentence, rows)) / len(rows)


def _blocks(rows: Iterable[str]) -> Iterator[list[str]]:
    """Groups of lines between blank lines."""
    block: list[str] = []
    for row in rows:
        if row:
            block.append(row)
        elif block:
            yield block
            block = []
    if block:
        yield block


def _raw_blocks(rows: Iterable[str]) -> Iterator[list[str]]:
    """Groups of unchanged lines, each with the blank lines before it."""
    block: list[str] = []
    for row in rows:
        if not row.strip() and any(map(str.strip, block[-1:])):
            yield block
            block = []
        block.append(row)
    if any(map(str.strip, block)):
        yield block


def _with_headings(blocks: Iterable[list[str]]) -> Iterator[list[str]]:
    """Blocks, where a heading on its own is merged into the next block."""
    headings: list[str] = []
    for block in blocks:
        if all(_HEADING.fullmatch(row) for row in map(_normalise, block) if row):
            headings += block
            continue
        yield headings + block
        headings = []
    if headings:
        yield headings


def _sentences(block: Sequence[str], line_is: LineIs) -> Document:
    if line_is == "sentence":
        return list(block)
    if line_is == "paragraph":
        return [sentence for row in block for sentence in split_sentences(row)]
    document: Document = []
    paragraph: list[str] = []
    for row in block:
        if _HEADING.fullmatch(row):
            document += [*split_sentences(join_lines(paragraph)), row]
            paragraph = []
        else:
            paragraph.append(row)
    return document + split_sentences(join_lines(paragraph))
