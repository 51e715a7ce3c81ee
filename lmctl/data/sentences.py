"""Rule-based sentence splitting: English (also tokenised, with a space before the mark) and Chinese.

In doubt a sentence is not split: half sentences are worse training text than double ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WIDE = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
"""CJK characters: scripts written without spaces, and full-width punctuation."""

_MARK = re.compile(r"[。！？；]+|…{2,}|[.!?…]+")
_CLOSERS = "”’」』）】》〉)]}'"
_FINAL = re.compile(rf"[.!?…。！？；][\s\"{re.escape(_CLOSERS)}]*$")
_WIDE_EDGE = re.compile(rf"[{_WIDE}]")
_VISIBLE = re.compile(r"\S")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘]*$")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[A-HJ-Z]")

# Only abbreviations that hardly ever end a sentence; "etc." and "Inc." often do.
_ABBREVIATION = re.compile(
    r"adm|al|approx|apr|aug|brig|ca|capt|cf|cmdr|col|dec|dr|e\.g|eg|eq|esp|ex|feb|fig|figs|fr|ft|gen|gov|"
    r"hon|i\.e|ie|jan|jul|lt|maj|messrs|mr|mrs|ms|mt|nov|oct|p|pp|pres|prof|rep|rev|sen|sept|sgt|sr|st|vol|"
    r"vs|viz",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"nos?|art|ch|sec|ver", re.IGNORECASE)
"""Abbreviations only if a number follows."""


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, stripped; joined they are the text again, up to white space.

    Linear time, however long a line is: each mark is decided from a few characters around it and from state that is
    carried along.
    """
    sentences = []
    start = 0
    quotes = _Quotes(text)
    first = _first_visible(text, 0)
    for mark in _MARK.finditer(text):
        if mark.start() < start:
            continue
        end = _after_closers(text, mark, quotes)
        if _is_break(text, start, first, mark, end):
            sentences.append(text[start:end].strip())
            start = end
            quotes.forget(end)
            first = _first_visible(text, start)
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def ends_sentence(line: str) -> bool:
    """Whether the line ends in sentence-final punctuation, optionally followed by closing quotes and brackets."""
    return _FINAL.search(line) is not None


def join_lines(lines: Iterable[str]) -> str:
    """Join wrapped lines with spaces, but without a space between two CJK characters."""
    parts: list[str] = []
    for line in map(str.strip, lines):
        if not line:
            continue
        wide = parts and _WIDE_EDGE.match(parts[-1][-1]) and _WIDE_EDGE.match(line[0])
        parts += [line] if wide or not parts else [" ", line]
    return "".join(parts)


class _Quotes:
    """Tracks whether a straight quote is open, queried at ascending positions."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.counted = 0
        """Position up to which `number` quotes of the sentence are counted."""
        self.number = 0

    def forget(self, start: int) -> None:
        """Start a new sentence: earlier quotes do not count."""
        self.counted, self.number = start, 0

    def open_at(self, place: int) -> bool:
        """Whether the sentence has an odd number of straight quotes before `place`."""
        self.number += self.text.count('"', self.counted, place)
        self.counted = place
        return self.number % 2 == 1


def _first_visible(text: str, start: int) -> int:
    """Position of the first character from `start` on that is not white space."""
    found = _VISIBLE.search(text, start)
    return len(text) if found is None else found.start()


def _after_closers(text: str, mark: re.Match[str], quotes: _Quotes) -> int:
    """The end of the sentence after the mark: behind closing quotes and brackets."""
    end = mark.end()
    while end < len(text):
        if text[end] in _CLOSERS:
            end += 1
            continue
        # A straight quote closes if one is open; in tokenised text it follows a space, as in `said . " Then`.
        apart = text.startswith(' " ', end) or (end == len(text) - 2 and text.endswith(' "'))
        quote = end + 1 if apart else end
        if text[quote] != '"' or not quotes.open_at(end):
            break
        end = quote + 1
    return end


def _is_break(text: str, start: int, first: int, mark: re.Match[str], end: int) -> bool:
    """Whether a new sentence starts after `end`; the current one starts at `start`, its first visible character is at
    `first`."""
    rest = text[end : end + 40].lstrip()
    if not rest:
        return True
    if mark[0][0] in "。！？；" or mark[0].startswith("……"):
        return not _MARK.match(rest)
    spaced = text[end].isspace()
    if not spaced:
        return bool(set(mark[0]) & set("!?")) and _WIDE_EDGE.match(rest) is not None
    follower = rest.lstrip("\"'“‘([{<*_-–— ")
    if not follower or _MARK.match(follower):
        return False
    if follower[0].islower() and "<" not in rest[: len(rest) - len(follower)]:  # A placeholder, <unk>, may start one.
        return False
    if mark[0] != ".":
        return True
    before = _LAST_WORD.search(text, max(start, mark.start() - 60), mark.start())
    word = before[0] if before else ""
    if word.isdecimal() and first >= mark.start() - len(word):
        return False  # "1. First item": the number belongs to the next words.
    if _ABBREVIATION.fullmatch(word) or _INITIALS.fullmatch(word):
        return False
    return not (_NUMBERED.fullmatch(word) and follower[0].isdigit())
