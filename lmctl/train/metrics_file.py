"""metrics.jsonl: one line per log point and validation, and the checksum by which a resumed run knows its own record.

A checkpoint has the size of the file and the sha256 of its bytes, which grows with each line at no cost. A run that
goes on cuts the file to that size. If it is not as it was, it is set aside and its readable lines are kept: a damaged
record ends no training.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lmctl.core.files import disk_error, sync_file, whole
from lmctl.core.regular_files import open_to_append

LINE_BYTES = 1 << 20
"""A longer line is none of ours."""


class MetricsFile:
    """Appends lines to metrics.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size, self._hash = 0, hashlib.sha256()

    def begin(self, size: int, sha256: str, step: int) -> str | None:
        """Cut the file to the first `size` bytes, whose checksum is `sha256` ("": unknown), because the steps after
        `step` are repeated. Returns a line for people if they are not there."""
        try:
            with open_to_append(self.path) as file:
                found = _hash_of(file, size)
                if found is not None and sha256 in ("", found.hexdigest()) and (sha256 or _is_whole(file, size)):
                    file.truncate(size)
                    self._size, self._hash = size, found
                    return None
            return self._rescue(step)
        except OSError as error:
            raise disk_error(self.path, error) from error

    def append(self, line: dict[str, Any]) -> None:
        """Append one line."""
        data = (json.dumps(line) + "\n").encode()
        try:
            with open_to_append(self.path) as file:
                file.write(data)
        except OSError as error:
            raise disk_error(self.path, error) from error
        self._size += len(data)
        self._hash.update(data)

    def sync(self) -> tuple[int, str]:
        """fsync the file; returns its size in bytes and its checksum, which a checkpoint is about to record."""
        try:
            sync_file(self.path)
        except OSError as error:
            raise disk_error(self.path, error) from error
        return self._size, self._hash.hexdigest()

    def _rescue(self, step: int) -> str:
        """Set the damaged file aside, and begin another one with its readable lines."""
        number = 0
        while (aside := self.path.with_name(f"metrics.broken-{number}.jsonl")).exists():
            number += 1
        os.rename(self.path, aside)
        kept = 0
        with open(aside, "rb") as damaged, whole(self.path) as file:
            for text in _readable(damaged, step):
                file.write(text)
                self._size, kept = self._size + len(text.encode()), kept + 1
                self._hash.update(text.encode())
        return (
            f"record: {self.path.name} is not what the checkpoint of step {step:,} saw; it was set aside as "
            f"{aside.name}, and its {kept:,} readable lines up to this step are kept"
        )


def _hash_of(file: BinaryIO, size: int) -> Any:
    """sha256 of the first `size` bytes of a file; None if it has fewer."""
    found, left = hashlib.sha256(), size
    with open(file.fileno(), "rb", closefd=False) as reader:
        reader.seek(0)
        while left and (data := reader.read(min(left, LINE_BYTES))):
            found.update(data)
            left -= len(data)
    return None if left else found


def _is_whole(file: BinaryIO, size: int) -> bool:
    """Whether the first `size` bytes end with a line: all that can be told of a record without a checksum."""
    return size == 0 or os.pread(file.fileno(), 1, size - 1) == b"\n"


def _readable(file: BinaryIO, step: int) -> Iterator[str]:
    """The lines of a damaged record that are those of a run, up to `step`."""
    while data := file.readline(LINE_BYTES):
        try:
            text = data.decode()
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        match line:
            case {"step": int(at), "split": "train" | "valid"} if 0 <= at <= step and text.endswith("\n"):
                yield text
