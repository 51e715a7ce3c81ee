"""Errors as people make them when they type: pure functions of a text and a generator
(Belinkov and Bisk 2018, section 4).

Latin letters and digits go wrong on the keyboard. Chinese is typed by sound, and what goes wrong is the choice or
the order of characters; without a dictionary of sounds, a wrong character is taken from the text around it.
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
            # Each row of keys stands half a key to the right of the one above it.
            above = _ROWS[number - 1][place : place + 2] if number else ""
            below = _ROWS[number + 1][max(0, place - 1) : place + 1] if number + 1 < len(_ROWS) else ""
            near[key] = "".join((row[max(0, place - 1) : place], row[place + 1 : place + 2], above, below))
    return near


QWERTY = _neighbours()
"""The keys around each key, lower case."""


def words(text: str) -> list[str]:
    """The words of a text: each Chinese character, and what white space and Chinese characters separate."""
    return _WORD.findall(text)


def typos(text: str, rate: float, rng: np.random.Generator) -> str:
    """Each letter or digit with probability `rate` another key's, of the same case; each Chinese character one of
    those up to three places away."""
    draws = rng.random((len(text), 2))
    result = list(text)
    for place, character in enumerate(text):
        if draws[place, 0] >= rate:
            continue
        near = QWERTY.get(character.lower(), "")
        if CHINESE.match(character):
            around = text[max(0, place - 3) : place + 4]
            near = "".join(other for other in CHINESE.findall(around) if other != character)
        if near:
            wrong = near[int(draws[place, 1] * len(near))]
            result[place] = wrong.upper() if character.isupper() else wrong
    return "".join(result)


def swap_characters(text: str, rate: float, rng: np.random.Generator) -> str:
    """Each character with probability `rate` changes places with the next one of its word (in Chinese, of its run of
    Chinese characters); none moves twice."""
    draws = rng.random(len(text))
    result = list(text)
    place = 0
    while place + 1 < len(text):
        if draws[place] < rate and _together(text[place], text[place + 1]):
            result[place], result[place + 1] = text[place + 1], text[place]
            place += 1
        place += 1
    return "".join(result)


def drop_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """Each word (see `words`) left out with probability `rate`; of a text that has any, one at least is kept."""
    found = list(_WORD.finditer(text))
    if not found:
        return text
    draws = rng.random(len(found))
    kept = draws >= rate
    kept[int(draws.argmax())] = True
    parts, end = [], 0
    for keep, match in zip(kept, found, strict=True):
        if keep:
            # The white space before a word goes with it.
            parts.append(text[end : match.end()])
        end = match.end()
    return ("".join(parts) + text[end:]).strip() if not kept.all() else text


def swap_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """Each word (see `words`) with probability `rate` changes places with the next one; none moves twice."""
    found = list(_WORD.finditer(text))
    draws = rng.random(len(found))
    order = list(range(len(found)))
    place = 0
    while place + 1 < len(found):
        if draws[place] < rate:
            order[place], order[place + 1] = place + 1, place
            place += 1
        place += 1
    parts, end = [], 0
    for match, other in zip(found, order, strict=True):
        # What stands between the words stays where it is.
        parts += [text[end : match.start()], found[other].group()]
        end = match.end()
    return "".join(parts) + text[end:]


def _together(a: str, b: str) -> bool:
    """Whether two neighbours can change places: letters, digits or Chinese characters of one kind."""
    return a.isalnum() and b.isalnum() and bool(CHINESE.match(a)) == bool(CHINESE.match(b))
