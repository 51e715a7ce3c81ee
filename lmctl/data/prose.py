"""Extracting prose from docstrings and manual pages, for language models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc

from lmctl.data.sentences import join_lines, split_sentences

VERSION = 2
"""Version of the cleaning, part of the fingerprints of its users: increase it when the result changes."""

_RULE = re.compile(r"\s*([=~\-*^\"'`#+_.:])\1{2,}\s*|[\s+|=\-]{4,}")
_ITEM = re.compile(r"\s*(?:[-*•+o]|\(?\d{1,2}[.)]|\[\d+\])\s+")
_FIELD = re.compile(r"\s*(?::[a-z]+(?: [^:]*)?:|@\w+|\.\.)(?:\s|$)")
_ROLE = re.compile(r":[a-z:+]+:(?=`)")
_LINK = re.compile(r"`([^`<>]+?)\s*<[^>]*>`_{0,2}")
_TICKS = re.compile(r"`+|(?<!\w)\*{1,2}(?=[^\s*])([^*\n]*?[^\s*])\*{1,2}(?!\w)")
_CODE = re.compile(
    r">>> |::=| -> |^\s*\$ |[{};=]$"
    r"|^(?:from \S+ import|import \w+$|def \w+\(|class \w+.*:$|return\b.*[()\[\]])"
)


def prose_sentences(text: str) -> list[str]:
    """The sentences of a docstring or plain-text manual page, without code, tables, rules and markup."""
    sentences = []
    for paragraph in _paragraphs(cleandoc(text.expandtabs())):
        joined = re.sub(r"(?<=[a-z])- (?=[a-z]+\b)", "-", join_lines(paragraph)) if len(paragraph) > 1 else paragraph[0]
        plain = _TICKS.sub(lambda match: match[1] or "", _LINK.sub(r"\1", _ROLE.sub("", joined)))
        sentences += [sentence for sentence in split_sentences(" ".join(plain.split())) if _is_prose(sentence)]
    return sentences


def _paragraphs(text: str) -> Iterator[list[str]]:
    """Paragraphs as groups of lines, without literal blocks and doctests."""
    literal_below: int | None = None  # Indentation of a line that ends in "::"; deeper lines are a literal block.
    indent = 0
    paragraph: list[str] = []
    for line in [*text.split("\n"), ""]:
        blank = not line.strip()
        depth = len(line) - len(line.lstrip())
        if not blank and literal_below is not None:
            if depth > literal_below:
                continue
            literal_below = None
        begins = blank or _RULE.fullmatch(line) or _ITEM.match(line) or _FIELD.match(line) or depth < indent
        if begins and paragraph:
            if paragraph[-1].endswith("::"):
                paragraph[-1] = paragraph[-1].removesuffix(":")
                literal_below = indent
            if not any(map(_CODE.search, paragraph)):
                yield paragraph
            paragraph = []
            if not blank and literal_below is not None and depth > literal_below:
                continue
        if blank or _RULE.fullmatch(line):
            continue
        if not paragraph:
            indent = depth
            for marker in (_ITEM, _FIELD):
                line = line[found.end() :] if (found := marker.match(line)) else line
        if line.strip():
            paragraph.append(line.strip())


def _is_prose(sentence: str) -> bool:
    """Whether it has at least three words and is mostly letters."""
    if len(sentence) < 12 or sentence.count(" ") < 2:
        return False
    letters = sum(map(str.isalpha, sentence))
    return letters + sentence.count(" ") >= 0.85 * len(sentence)
