"""Very long texts in parts, for what takes memory or time by the length of one text."""

from __future__ import annotations

from collections.abc import Iterator

_SPACES = " \n\t\u3000"


def parts(text: str, longest: int) -> Iterator[str]:
    """`text`, or if it has more than `longest` characters its parts, cut before white space where there is some: there
    a word ends, so that they have the words of the whole."""
    begin = 0
    while len(text) - begin > longest:
        end = max(text.rfind(space, begin + 1, begin + longest) for space in _SPACES)
        end = end if end > begin else begin + longest
        yield text[begin:end]
        begin = end
    yield text[begin:] if begin else text
