"""Rows of a source kept in a temporary file while a corpus is prepared, so that its files are parsed once.

A corpus is gone through several times: to choose what is held out, to train the tokenizer, to tokenise each split. All
but the first reading get from here what the first one has found. Where there is no room for it, files are read again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from lmctl.core import progress

Item = TypeVar("Item")

Read = Callable[[], Iterator[Item]]
"""Reads a corpus from the start, always the same."""

_BLOCK = 1 << 20


class _Shelf:
    """The temporary files of one preparation, by the reading that they keep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[object, _File] = {}


class _File:
    """Items of one reading, one JSON value per line; nothing is kept once there is no room."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        with suppress(OSError):
            self._file = tempfile.TemporaryFile(dir=folder, buffering=_BLOCK)  # noqa: SIM115
        self.size = self.source = 0
        """Bytes written, and bytes of the source that were read meanwhile."""

    def add(self, value: Any) -> None:
        if self._file is not None:
            line = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
            self.size += len(line)
            try:
                self._file.write(line)
            except OSError:
                self.close()

    def complete(self, source: int) -> bool:
        """Whether all of it was kept, of `source` bytes, and as much room is left for what will be made of it."""
        self.source = source
        try:
            if self._file is not None:
                self._file.flush()
            return self._file is not None and shutil.disk_usage(self._folder).free > self.size
        except OSError:
            return False

    def __iter__(self) -> Iterator[Any]:
        """The values, with the same progress as when they were read from the source."""
        assert self._file is not None
        self._file.seek(0)
        read = reported = 0
        for line in self._file:
            yield json.loads(line.decode(errors="surrogatepass"))
            read += len(line)
            if read - reported >= _BLOCK or read == self.size:
                progress.advance(self.source * read // self.size - self.source * reported // self.size)
                reported = read

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what is in the buffer is of no use
                self._file.close()
            self._file = None


_shelf: _Shelf | None = None


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Context in which readings made by `kept` are kept in temporary files in `folder`, which need not exist yet."""
    global _shelf
    before, _shelf = _shelf, _Shelf(folder)
    try:
        yield
    finally:
        for file in _shelf.files.values():
            file.close()
        _shelf = before


def kept(read: Read[Item], pack: Callable[[Item], Any], unpack: Callable[[Any], Item]) -> Read[Item]:
    """`read`, from a temporary file after the first complete reading within `keeping`; `pack` makes JSON of an item,
    and `unpack` an item of it."""
    key = object()

    def rows() -> Iterator[Item]:
        if _shelf is None:
            return read()
        if key in _shelf.files:
            return map(unpack, _shelf.files[key])
        return _first_reading(read, pack, key, _shelf)

    return rows


def _first_reading(read: Read[Item], pack: Callable[[Item], Any], key: object, shelf: _Shelf) -> Iterator[Item]:
    begun, file = _done(), _File(shelf.folder)
    try:
        for item in read():
            file.add(pack(item))
            yield item
        if file.complete(_done() - begun):
            shelf.files[key] = file
    finally:
        if shelf.files.get(key) is not file:
            file.close()


def _done() -> int:
    stage = progress.now()
    return 0 if stage is None else stage.done
