"""Cutting running text into sentences: English (also tokenised, with a space before the mark) and Chinese.

Rules, no model. When in doubt a sentence stays whole: half sentences teach more nonsense than double ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WIDE = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
"""Characters of scripts written without spaces: Chinese, Japanese kana, and their full-width punctuation."""

_MARK = re.compile(r"[。！？；]+|…{2,}|[.!?…]+")
_CLOSERS = "”’」』）】》〉)]}'"
_FINAL = re.compile(rf"[.!?…。！？；][\s\"{re.escape(_CLOSERS)}]*$")
_WIDE_EDGE = re.compile(rf"[{_WIDE}]")
_VISIBLE = re.compile(r"\S")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘]*$")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[A-HJ-Z]")

# Only what hardly ever ends a sentence; "etc." and "Inc." often do.
_ABBREVIATION = re.compile(
    r"adm|al|approx|apr|aug|brig|ca|capt|cf|cmdr|col|dec|dr|e\.g|eg|eq|esp|ex|feb|fig|figs|fr|ft|gen|gov|"
    r"hon|i\.e|ie|jan|jul|lt|maj|messrs|mr|mrs|ms|mt|nov|oct|p|pp|pres|prof|rep|rev|sen|sept|sgt|sr|st|vol|"
    r"vs|viz",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"nos?|art|ch|sec|ver", re.IGNORECASE)
"""Abbreviations only before a number."""


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, stripped; put together they are the text again, up to white space.

    Takes time in proportion to the text, however long a line is: nothing looks at more than a few characters around
    a mark, and what must be known of the sentence up to it is carried along.
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
    """Whether the line ends in sentence-final punctuation, closing quotes and brackets allowed behind it."""
    return _FINAL.search(line) is not None


def join_lines(lines: Iterable[str]) -> str:
    """Wrapped lines as one: with a space between them, but none where Chinese meets Chinese."""
    parts: list[str] = []
    for line in map(str.strip, lines):
        if not line:
            continue
        wide = parts and _WIDE_EDGE.match(parts[-1][-1]) and _WIDE_EDGE.match(line[0])
        parts += [line] if wide or not parts else [" ", line]
    return "".join(parts)


class _Quotes:
    """Whether a straight quote is open, asked at places further and further on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.counted = 0
        """Up to here `number` quotes of the sentence are counted."""
        self.number = 0

    def forget(self, start: int) -> None:
        """A new sentence begins: quotes before it do not count."""
        self.counted, self.number = start, 0

    def open_at(self, place: int) -> bool:
        """Whether the sentence has an odd number of straight quotes before `place`."""
        self.number += self.text.count('"', self.counted, place)
        self.counted = place
        return self.number % 2 == 1


def _first_visible(text: str, start: int) -> int:
    """Where the first character from `start` on stands that is no white space."""
    found = _VISIBLE.search(text, start)
    return len(text) if found is None else found.start()


def _after_closers(text: str, mark: re.Match[str], quotes: _Quotes) -> int:
    """Where the sentence would end: behind the quotes and brackets that the mark stands in."""
    end = mark.end()
    while end < len(text):
        if text[end] in _CLOSERS:
            end += 1
            continue
        # A straight quote closes when one is open; in tokenised text it stands apart, as in `said . " Then`.
        apart = text.startswith(' " ', end) or (end == len(text) - 2 and text.endswith(' "'))
        quote = end + 1 if apart else end
        if text[quote] != '"' or not quotes.open_at(end):
            break
        end = quote + 1
    return end


def _is_break(text: str, start: int, first: int, mark: re.Match[str], end: int) -> bool:
    """Whether the text goes on with a new sentence behind `end`; the one before it begins at `start`, its first
    visible character stands at `first`."""
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
    if follower[0].islower() and "<" not in rest[: len(rest) - len(follower)]:  # A placeholder, <unk>, may begin one.
        return False
    if mark[0] != ".":
        return True
    before = _LAST_WORD.search(text, max(start, mark.start() - 60), mark.start())
    word = before[0] if before else ""
    if word.isdecimal() and first >= mark.start() - len(word):
        return False  # "1. First item": the number belongs to what follows.
    if _ABBREVIATION.fullmatch(word) or _INITIALS.fullmatch(word):
        return False
    return not (_NUMBERED.fullmatch(word) and follower[0].isdigit())
