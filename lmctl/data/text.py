"""`data=text`: the user's own text files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Optional

from lmctl.core.batch import Document, Kind, Row, Split
from lmctl.data.layout import LAYOUTS, Layout, LineIs, detect_layout, detect_line, read_documents, sample
from lmctl.data.reading import fingerprint, text_files
from lmctl.data.split import Partition, by_content, by_text, check_share

VERSION = 2
"""Raise it when the same files and options begin to yield other documents."""


@dataclass(frozen=True)
class Corpus:
    """Some text files and what their lines are."""

    files: list[Path]
    layout: Layout
    line_is: LineIs

    @classmethod
    def open(cls, path: str, layout: str, sentences: str) -> Corpus:
        """Find the files and fill in what is "auto" by looking at them."""
        files = text_files(path)
        heads = sample(files)
        chosen = next((name for name in LAYOUTS if name == layout), None) or detect_layout(files, heads)
        line_is: LineIs = "sentence"
        if sentences != "line":
            line_is = detect_line(heads, chosen)
        if sentences == "split" and line_is == "sentence":
            line_is = "paragraph"
        return cls(files, chosen, line_is)

    def read(self) -> Iterator[Document]:
        return read_documents(self.files, self.layout, self.line_is)

    def fingerprint(self) -> list[str]:
        return [fingerprint(self.files), self.layout, self.line_is]


@dataclass(frozen=True)
class TextFiles:
    """Text files, plain, .gz or .zst, cut into documents and sentences and split by document."""

    path: str
    layout: str = "auto"
    sentences: str = "auto"
    valid_path: Optional[str] = None
    valid_share: float = 0.05

    yields: ClassVar[Kind] = "documents"

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a file, a folder or a pattern")
        if self.layout not in ("auto", *LAYOUTS):
            raise ValueError(f"layout must be one of auto, {', '.join(LAYOUTS)}, got {self.layout!r}")
        if self.sentences not in ("auto", "line", "split"):
            raise ValueError(f"sentences must be one of auto, line, split, got {self.sentences!r}")
        check_share(self.valid_share)

    @cached_property
    def _corpus(self) -> Corpus:
        return Corpus.open(self.path, self.layout, self.sentences)

    @cached_property
    def _valid_corpus(self) -> Corpus | None:
        return None if self.valid_path is None else Corpus.open(self.valid_path, self.layout, self.sentences)

    @cached_property
    def _partition(self) -> Partition:
        if self._valid_corpus is None:
            return by_content(self._corpus.read, self.valid_share, self.path)
        return by_text(self._corpus.read, self._valid_corpus.read, self.path, str(self.valid_path))

    def fingerprint(self) -> Mapping[str, Any]:
        """File contents (not their names), what was detected in them, and how they are split."""
        valid = self._valid_corpus
        return {
            "source": "text",
            "version": VERSION,
            "files": self._corpus.fingerprint(),
            "valid": self.valid_share if valid is None else valid.fingerprint(),
        }

    def documents(self, split: Split) -> Iterator[Document]:
        """The documents of one split; DataError if a file cannot be read as text or too little is left."""
        return self._partition.read(split)

    def rows(self, split: Split) -> Iterator[Row]:
        return map(Row, self.documents(split))

    def describe(self) -> str:
        """One line: files, layout, documents. Reads everything once."""
        corpus = self._corpus
        files = f"{len(corpus.files):,} file{'s' * (len(corpus.files) != 1)}"
        how = "detected" if self.layout == "auto" else "given"
        return f"{self.path}: {files}, {corpus.layout} ({how}), a line is a {corpus.line_is}, {self._partition}"
