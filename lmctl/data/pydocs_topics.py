"""`data=pydocs_topics`: text classification of the standard library's docstrings by the topic of their module."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from lmctl.core.batch import Kind, Row, Split
from lmctl.data import prose
from lmctl.data.base import Source
from lmctl.data.pydocs import docstrings, sources
from lmctl.data.reading import fingerprint
from lmctl.data.row_split import RowPartition, partition
from lmctl.data.split import check_share

TOPICS = {
    "concurrency": "asyncio concurrent multiprocessing queue sched selectors signal subprocess "
    "threading _threading_local",
    "files": "bz2 filecmp fileinput fnmatch glob gzip lzma ntpath os pathlib posixpath shutil stat tarfile tempfile "
    "zipfile zipimport genericpath shelve dbm",
    "language": "ast bdb cProfile code codeop contextlib dis doctest importlib inspect pdb pkgutil profile pstats "
    "pydoc runpy symtable timeit tokenize trace traceback types typing unittest warnings pickletools",
    "network": "cgi email ftplib html http imaplib ipaddress mailbox nntplib poplib smtplib socket socketserver ssl "
    "telnetlib urllib webbrowser wsgiref xmlrpc",
    "numbers": "_pydecimal bisect calendar colorsys datetime _pydatetime decimal fractions heapq numbers random "
    "statistics zoneinfo",
    "text": "argparse codecs configparser csv difflib encodings gettext json locale optparse plistlib pprint re "
    "shlex string stringprep textwrap tomllib xml",
    "windows": "curses tkinter turtle",
}
"""Topic -> modules, after the chapters of the library reference."""
_TOPIC = {module: topic for topic, modules in TOPICS.items() for module in modules.split()}
LEAST_WORDS = 6


@dataclass(frozen=True)
class PyDocsTopics(Source):
    """One row per docstring; no text is in both splits."""

    valid_share: float = 0.1

    yields: ClassVar[Kind] = "labelled"
    embedded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share(self.valid_share)

    @cached_property
    def _rows(self) -> list[Row]:
        rows: dict[str, Row] = {}
        for path in sources():
            topic = _topic(path)
            if topic is None:
                continue
            for text in docstrings(path):
                words = " ".join(prose.prose_sentences(text))
                if len(words.split()) >= LEAST_WORDS:
                    rows.setdefault(words, Row([words], topic, path.name))
        return list(rows.values())

    @cached_property
    def _partition(self) -> RowPartition:
        return partition(lambda: iter(self._rows), self.valid_share, "the documentation of this interpreter", 1)

    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of one split; DataError if the Python installation has no sources."""
        return self._partition.rows(split)

    def fingerprint(self) -> Mapping[str, Any]:
        """The contents of the interpreter's sources, the topics, and how rows are split."""
        files = [path for path in sources() if _topic(path) is not None]
        return {
            "source": "pydocs_topics",
            "version": prose.VERSION,
            "files": fingerprint(files),
            "topics": TOPICS,
            "valid": self.valid_share,
        }

    def describe(self) -> str:
        """One line: rows and topics."""
        return f"docstrings by topic ({', '.join(TOPICS)}): {self._partition}"


def _topic(path: Path) -> str | None:
    """The topic of the module, or of its package."""
    return _TOPIC.get(Path(path.relative_to(sysconfig.get_path("stdlib")).parts[0]).stem)
