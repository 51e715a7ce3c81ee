"""Splitting very long texts, for code whose memory or time grows with the length of one text."""

from __future__ import annotations

from collections.abc import Iterator

_SPACES = " \n\t\u3000"


def parts(text: str, longest: int) -> Iterator[str]:
    """`text` in parts of at most `longest` characters, split before white space where possible, so that no word is
    cut."""
    begin = 0
    while len(text) - begin > longest:
        end = max(text.rfind(space, begin + 1, begin + longest) for space in _SPACES)
        end = end if end > begin else begin + longest
        yield text[begin:end]
        begin = end
    yield text[begin:] if begin else text
