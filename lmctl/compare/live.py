"""The page of runs that are still going: written anew as they proceed, and never the reason why one of them ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from lmctl.compare.comparison import Comparison, Reader
from lmctl.compare.page import write_page
from lmctl.core.errors import LmctlError

LEAST_SECONDS = 15.0
"""Interval between two versions of the page, which its scripts reload as often; writing takes a share of
1 / WRITING of the time at most."""
WRITING = 50


class LivePage:
    """Writes a page when it is due. An error is said once, and nothing is written any more."""

    def __init__(self, reader: Reader, title: str, file: Path, say: Callable[[str], None]) -> None:
        self.reader, self.title, self.file, self._say = reader, title, file, say
        self._next = 0.0
        self._failed = False

    def write_if_due(self) -> None:
        """Write the page, unless it is recent."""
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> Comparison | None:
        """Write the page; returns what is on it, or None if it failed."""
        if self._failed:
            return None
        began = time.monotonic()
        try:
            comparison = self.reader.read()
            write_page(comparison, self.title, self.file)
        except Exception as error:  # a full disk, a damaged record: none may end what is compared
            why = str(error) if isinstance(error, LmctlError) else f"{type(error).__name__}: {error}"
            self._say(f"warning: {self.file} cannot be written ({why}); the runs are unaffected")
            self._failed = True
            return None
        now = time.monotonic()
        self._next = now + max(LEAST_SECONDS, WRITING * (now - began))
        return comparison
