"""Numbers from 0 to 999,999 in words, in English, German and Chinese."""

from __future__ import annotations

from collections.abc import Callable
from re import findall

_EN = findall(
    r"\w+",
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen""",
)
_EN_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_DE = findall(
    r"\w+",
    """null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn
    siebzehn achtzehn neunzehn""",
)
_DE_TENS = ["zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
_ZH = "零一二三四五六七八九"
_ZH_UNITS = ("", "十", "百", "千")


def english(number: int) -> str:
    """21042: twenty-one thousand and forty-two."""
    if number < 20:
        return _EN[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _EN_TENS[tens - 2] + (f"-{_EN[ones]}" if ones else "")
    unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    many, rest = divmod(number, unit)
    link = " and " if rest < 100 else " "
    return f"{english(many)} {name}" + (f"{link}{english(rest)}" if rest else "")


def german(number: int) -> str:
    """21042: einundzwanzigtausendzweiundvierzig."""
    return _german(number, "eins")


def _german(number: int, one: str) -> str:
    """`one`: the form of a final "one", which depends on what follows."""
    if number < 20:
        return one if number == 1 else _DE[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return (f"{_german(ones, 'ein')}und" if ones else "") + _DE_TENS[tens - 2]
    unit, name = (1000, "tausend") if number >= 1000 else (100, "hundert")
    many, rest = divmod(number, unit)
    return f"{_german(many, 'ein')}{name}" + (_german(rest, one) if rest else "")


def chinese(number: int) -> str:
    """21042: 二万一千零四十二."""
    if number < 10:
        return _ZH[number]
    if number >= 10000:
        many, rest = divmod(number, 10000)
        gap = "零" if 0 < rest < 1000 else ""
        return f"{chinese(many)}万{gap}{_below_ten_thousand(rest) if rest else ''}"
    words = _below_ten_thousand(number)
    return words[1:] if 10 <= number < 20 else words


def _below_ten_thousand(number: int) -> str:
    words, gap = "", False
    for place in (3, 2, 1, 0):
        digit = number // 10**place % 10
        if digit:
            words += ("零" if gap and words else "") + _ZH[digit] + _ZH_UNITS[place]
        gap = not digit
    return words


LANGUAGES: dict[str, Callable[[int], str]] = {"en": english, "de": german, "zh": chinese}
