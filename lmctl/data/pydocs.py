"""`data=pydocs`: the documentation in the Python installation, so that the first run needs no files.

One document per chapter of the language reference behind `help()` and one per module of the standard library, made of
its docstrings. All sources are parsed; nothing is imported or executed.
"""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from lmctl.core.batch import Document, Kind, Row, Split
from lmctl.core.errors import DataError
from lmctl.data import prose
from lmctl.data.base import Source
from lmctl.data.reading import fingerprint
from lmctl.data.split import Partition, by_content, check_share

_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3", "idlelib"}
_TOPICS = Path("pydoc_data", "topics.py")


@dataclass(frozen=True)
class PyDocs(Source):
    """The interpreter's reference documentation and the docstrings of its standard library."""

    valid_share: float = 0.1

    yields: ClassVar[Kind] = "documents"
    embedded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share(self.valid_share)

    @cached_property
    def _partition(self) -> Partition:
        documents = list(_documents())
        return by_content(lambda: iter(documents), self.valid_share, "the documentation of this interpreter")

    def fingerprint(self) -> Mapping[str, Any]:
        """Contents of the interpreter's sources, versions of cleaning and split."""
        return {
            "source": "pydocs",
            "version": prose.VERSION,
            "files": fingerprint(sources()),
            "valid": self.valid_share,
        }

    def documents(self, split: Split) -> Iterator[Document]:
        """The documents of one split; DataError if the Python installation has no sources."""
        return self._partition.read(split)

    def rows(self, split: Split) -> Iterator[Row]:
        return map(Row, self.documents(split))

    def describe(self) -> str:
        """One line: whose documentation, documents."""
        return f"documentation of Python {sys.version.split()[0]}: {self._partition}"


def sources() -> list[Path]:
    """The standard library's .py files, sorted, so that the order does not depend on the file system."""
    files = []
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted(set(folders) - _SKIPPED)
        files += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
    if not files:
        raise DataError(
            "this Python interpreter came without the sources of its standard library, which data=pydocs reads",
            "use your own text: data=text data.path=...",
        )
    return files


def _documents() -> Iterator[Document]:
    for path in sources():
        texts = _topics(path) if path.parts[-2:] == _TOPICS.parts else ["\n\n".join(docstrings(path))]
        for text in texts:
            if document := prose.prose_sentences(text):
                yield document


def _parse(path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Invalid escapes in strings.
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])  # A template or a deliberately broken file.


def _topics(path: Path) -> list[str]:
    """The chapters ordered by name; `topics = {...}` is one literal in the file."""
    for node in _parse(path).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(node.value)
            return [topics[name] for name in sorted(topics)]
    return []


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a module, its classes and their functions, in source order."""
    waiting: list[ast.AST] = [_parse(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if text := ast.get_docstring(node):
                yield text
            waiting += reversed(node.body)
        elif isinstance(node, (ast.If, ast.Try)):
            waiting += reversed(node.body)
