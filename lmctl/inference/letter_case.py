"""The case of a text before it is scored: recognisers write in capitals, language models have read books."""

from __future__ import annotations

import re

_I = re.compile(r"\bi\b")


def cased(text: str, case: str) -> str:
    """`text` as_is; lower; or sentence: lower, but its first letter and the English word I."""
    if case == "as_is":
        return text
    lower = text.lower()
    if case == "lower":
        return lower
    return _I.sub("I", lower[:1].upper() + lower[1:])
