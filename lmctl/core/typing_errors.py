"""Synthetic typing errors: pure functions of a text and a random generator (Belinkov and Bisk 2018, section 4).

Latin letters and digits get a neighbouring key. Chinese is typed by pronunciation, so errors are wrong or swapped
characters; without a pronunciation dictionary, a wrong character is taken from the text around it.
"""

from __future__ import annotations

import re

import numpy as np

_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
"""One Chinese character."""
_WORD = re.compile(rf"{CHINESE.pattern}|(?:(?!{CHINESE.pattern})\S)+")


def _neighbours() -> dict[str, str]:
    near: dict[str, str] = {}
    for number, row in enumerate(_ROWS):
        for place, key in enumerate(row):
            # Each row of keys is shifted half a key to the right of the row above.
            above = _ROWS[number - 1][place : place + 2] if number else ""
            below = _ROWS[number + 1][max(0, place - 1) : place + 1] if number + 1 < len(_ROWS) else ""
            near[key] = "".join((row[max(0, place - 1) : place], row[place + 1 : place + 2], above, below))
    return near


QWERTY = _neighbours()
"""The neighbouring keys of each key, lower case."""


def words(text: str) -> list[str]:
    """Split a text into words: each Chinese character, and what is between white space and Chinese characters."""
    return _WORD.findall(text)


def typos(text: str, rate: float, rng: np.random.Generator) -> str:
    """Replace each letter or digit with probability `rate` by a neighbouring key, of the same case; each Chinese
    character by one at most three positions away."""
    draws = rng.random((len(text), 2))
    result = list(text)
    for place in np.flatnonzero(draws[:, 0] < rate).tolist():
        result[place] = _substitute(text, place, draws[place, 1])
    return "".join(result)


def mistype(text: str, rate: float, rng: np.random.Generator) -> str:
    """Change the share `rate` of all letters, digits and Chinese characters: half are substituted (see `typos`), half
    swapped with a neighbour in their word."""
    typed = [place for place, character in enumerate(text) if character.isalnum()]
    pairs = [i for i in range(len(text) - 1) if _swappable(text[i], text[i + 1]) and text[i] != text[i + 1]]
    result = list(text)
    moved: set[int] = set()
    most = 2 * _rounded(rate * len(typed) / 4, rng)
    for place in rng.permutation(pairs).tolist():
        if len(moved) < most and not moved & {place, place + 1}:
            result[place : place + 2] = text[place + 1], text[place]
            moved |= {place, place + 1}
    left = _rounded(rate * len(typed) / 2 + most - len(moved), rng)
    for place in rng.permutation([place for place in typed if place not in moved]).tolist():
        if left > 0 and (wrong := _substitute(text, place, rng.random())) != text[place]:
            result[place] = wrong
            left -= 1
    return "".join(result)


def _substitute(text: str, place: int, draw: float) -> str:
    """The substitute for the character at `place`; the same character if there is no neighbour."""
    character = text[place]
    near = QWERTY.get(character.lower(), "")
    if CHINESE.match(character):
        around = text[max(0, place - 3) : place + 4]
        near = "".join(other for other in CHINESE.findall(around) if other != character)
    if not near:
        return character
    wrong = near[int(draw * len(near))]
    return wrong.upper() if character.isupper() else wrong


def _rounded(expected: float, rng: np.random.Generator) -> int:
    """Stochastic rounding of `expected` to an integer, unbiased."""
    return max(0, int(np.floor(expected + rng.random())))


def swap_characters(text: str, rate: float, rng: np.random.Generator) -> str:
    """Swap each character with probability `rate` with the next one of its word (in Chinese, of its run of Chinese
    characters); none moves twice."""
    result = list(text)
    moved = -1
    for place in np.flatnonzero(rng.random(len(text)) < rate).tolist():
        if place > moved and _swappable(text[place], text[place + 1 : place + 2]):
            result[place], result[place + 1] = text[place + 1], text[place]
            moved = place + 1
    return "".join(result)


def drop_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """Drop each word (see `words`) with probability `rate`; at least one word is kept."""
    found = list(_WORD.finditer(text))
    if not found:
        return text
    draws = rng.random(len(found))
    kept = draws >= rate
    kept[int(draws.argmax())] = True
    parts, end = [], 0
    for keep, match in zip(kept, found, strict=True):
        if keep:
            # A word is dropped with the white space before it.
            parts.append(text[end : match.end()])
        end = match.end()
    return ("".join(parts) + text[end:]).strip() if not kept.all() else text


def swap_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """Swap the share `rate` of all words (see `words`) with a neighbour; none moves twice."""
    found = list(_WORD.finditer(text))
    swaps = min(_rounded(rate * len(found) / 2, rng), len(found) // 2)
    places = rng.choice(len(found) - swaps, size=swaps, replace=False) if swaps else np.empty(0, dtype=np.int64)
    order = list(range(len(found)))
    for place in (np.sort(places) + np.arange(swaps)).tolist():
        order[place], order[place + 1] = place + 1, place
    parts, end = [], 0
    for match, other in zip(found, order, strict=True):
        # White space between words stays in place.
        parts += [text[end : match.start()], found[other].group()]
        end = match.end()
    return "".join(parts) + text[end:]


def _swappable(a: str, b: str) -> bool:
    """Whether two adjacent characters may be swapped: letters, digits or Chinese characters, both of one kind."""
    return a.isalnum() and b.isalnum() and bool(CHINESE.match(a)) == bool(CHINESE.match(b))
