"""`data=text`: the user's own text files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Optional

from lmctl.core.batch import Document, Kind, Row, Split
from lmctl.core.errors import DataError
from lmctl.core.paths import Place
from lmctl.data.base import Source
from lmctl.data.document_layout import LAYOUTS, Layout, LineIs, detect_layout, detect_line, read_documents, sample
from lmctl.data.file_status import FileStates, check_lasting, states
from lmctl.data.files import BadFile, Found, all_bad, counted, find, kind_of
from lmctl.data.reading import fingerprint, problem
from lmctl.data.split import Partition, by_content, by_text, check_share

VERSION = 2
"""Version of the reading code: increase it when the same files and options yield other documents."""

SKIP = "data.on_bad_file=skip leaves such files out"


@dataclass
class Tally:
    """Statistics of the last complete reading of a corpus."""

    documents: int = 0
    short: int = 0
    """Number of documents with one line or sentence."""
    characters: int = 0
    longest: int = 0
    """Length in characters of the longest document."""
    empty: int = 0
    """Number of files without text."""

    def add(self, document: Document) -> None:
        size = sum(map(len, document))
        self.documents += 1
        self.short += len(document) == 1
        self.characters += size
        self.longest = max(self.longest, size)


@dataclass
class TextCorpus:
    """Text files with their detected layout."""

    found: Found
    layout: Layout
    line_is: LineIs
    tally: Tally = field(default_factory=Tally)

    @classmethod
    def open(cls, path: str, layout: str, sentences: str, on_bad_file: str) -> TextCorpus:
        """Find the files and detect what is "auto"; DataError if there is no readable file."""
        found = find(path)
        if on_bad_file == "skip":
            found = _readable(found, path)
        elif found.bad:
            raise _all_bad(found, found.files, found.bad[0])
        files = found.files
        check_lasting(files)
        try:
            heads = sample(files)
        except BadFile as error:
            raise _all_bad(found, files, error) from error
        chosen = next((name for name in LAYOUTS if name == layout), None) or detect_layout(files, heads)
        line_is: LineIs = "sentence"
        if sentences != "line":
            line_is = detect_line(heads, chosen)
        if sentences == "split" and line_is == "sentence":
            line_is = "paragraph"
        return cls(found, chosen, line_is)

    def read(self) -> Iterator[Document]:
        """All documents in the order of the files; DataError that names all bad files, at the first of them."""
        tally = Tally()
        for place, file in enumerate(self.found.files):
            before = tally.documents
            try:
                for document in read_documents([file], self.layout, self.line_is):
                    tally.add(document)
                    yield document
            except BadFile as error:
                raise _all_bad(self.found, self.found.files[place + 1 :], error) from error
            tally.empty += tally.documents == before
        self.tally = tally

    def fingerprint(self) -> list[str]:
        return [fingerprint(self.found.files), self.layout, self.line_is]

    def notes(self) -> list[str]:
        """Remarks on the corpus, one line each; complete after a full reading."""
        left_out = self.found.left_out + Counter({"empty": self.tally.empty})
        notes = [f"left out: {counted(left_out)}"] if left_out else []
        if self.found.bad:
            notes.append(f"the first file that cannot be read: {self.found.bad[0]}")
        marked = Counter(MARKUP[kind] for kind in map(kind_of, self.found.files) if kind in MARKUP)
        notes += [f"{count:,} file{'s' * (count != 1)} read as plain text: {what}" for what, count in marked.items()]
        tally = self.tally
        if self.layout == "blank_line_between_documents" and tally.short * 2 > tally.documents > 1:
            notes.append(
                f"{tally.short:,} of {tally.documents:,} documents are one line only: is it one text? "
                "data.layout=one_document_per_file, or verbatim, keeps it together"
            )
        if tally.short == tally.documents > 0:
            notes.append("no document has two sentences, and pairs of segments (nsp, sop) cannot be made of such ones")
        if tally.documents > 2 and tally.longest * 2 > tally.characters:
            share = 100 * tally.longest // tally.characters
            notes.append(f"one document is {share} % of the text: all of it is for training, or all for validation")
        return notes


MARKUP = {
    **dict.fromkeys((".html", ".htm", ".xhtml"), "tags and scripts included; pandoc -t plain takes the text out"),
    **dict.fromkeys((".xml", ".tex", ".rtf"), "its markup included"),
    **dict.fromkeys((".csv", ".tsv"), "its columns are not told apart; data=table does that"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "its keys are not told apart; data=jsonl does that"),
}
"""Suffix of a markup or data file -> a note on how it is read if it is named explicitly."""


def _readable(found: Found, path: str) -> Found:
    """`found` without unreadable files; these are counted among the ignored ones."""
    problems = {file: error for file in found.files if (error := problem(file)) is not None}
    bad = [*found.bad, *problems.values()]
    files = [file for file in found.files if file not in problems]
    if not files:
        raise DataError(f"{path} has no file that can be read; the first: {bad[0]}", bad[0].hint)
    return Found(files, bad, found.left_out + Counter(error.kind for error in bad))


def _all_bad(found: Found, files: list[Path], first: BadFile) -> DataError:
    """One error for all unreadable files of `found`: `first` was met first, and `files` have not been read yet."""
    bad = [*found.bad, *filter(None, map(problem, files))]
    if str(first) not in map(str, bad):
        bad.insert(0, first)
    if len(found.files) + len(found.bad) == 1:
        return bad[0]
    return all_bad(bad, len(found.files) + len(found.bad), SKIP)


@dataclass(frozen=True)
class TextFiles(Source):
    """Text files, plain, .gz or .zst, split into documents and sentences, with a held-out split by document."""

    path: Place
    layout: str = "auto"
    sentences: str = "auto"
    valid_path: Optional[Place] = None
    valid_share: float = 0.05
    on_bad_file: str = "error"

    yields: ClassVar[Kind] = "documents"

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a file, a folder or a pattern")
        if self.layout not in ("auto", *LAYOUTS):
            raise ValueError(f"layout must be one of auto, {', '.join(LAYOUTS)}, got {self.layout!r}")
        if self.sentences not in ("auto", "line", "split"):
            raise ValueError(f"sentences must be one of auto, line, split, got {self.sentences!r}")
        if self.on_bad_file not in ("error", "skip"):
            raise ValueError(f"on_bad_file must be error or skip, got {self.on_bad_file!r}")
        check_share(self.valid_share)

    @cached_property
    def _corpus(self) -> TextCorpus:
        return self._open(self.path)

    @cached_property
    def _valid_corpus(self) -> TextCorpus | None:
        return None if self.valid_path is None else self._open(self.valid_path)

    def _open(self, path: str) -> TextCorpus:
        return TextCorpus.open(path, self.layout, self.sentences, self.on_bad_file)

    @cached_property
    def _partition(self) -> Partition:
        if self._valid_corpus is None:
            return by_content(self._corpus.read, self.valid_share, self.path)
        return by_text(self._corpus.read, self._valid_corpus.read, self.path, str(self.valid_path))

    def fingerprint(self) -> Mapping[str, Any]:
        """File contents (not their names), the detected layout, and the split."""
        valid = self._valid_corpus
        return {
            "source": "text",
            "version": VERSION,
            "files": self._corpus.fingerprint(),
            "valid": self.valid_share if valid is None else valid.fingerprint(),
        }

    def state(self) -> FileStates:
        valid = self._valid_corpus
        return states(self._corpus.found.files + (valid.found.files if valid else []))

    def documents(self, split: Split) -> Iterator[Document]:
        """The documents of one split; DataError if a file is not readable text or too little is left."""
        return self._partition.read(split)

    def rows(self, split: Split) -> Iterator[Row]:
        return map(Row, self.documents(split))

    @property
    def place(self) -> str:
        return self.path

    def describe(self) -> str:
        """One line: files, layout, documents; below it, indented, remarks, if any. Reads everything once."""
        corpus = self._corpus
        count = len(corpus.found.files)
        how = "detected" if self.layout == "auto" else "given"
        read = f"{count:,} file{'s' * (count != 1)}, {corpus.layout} ({how}), a line is a {corpus.line_is}"
        first = f"{self.path}: {read}, {self._partition}"
        valid = self._valid_corpus
        notes = corpus.notes() + ([f"{self.valid_path}: {note}" for note in valid.notes()] if valid else [])
        return "\n  ".join([first, *notes])
