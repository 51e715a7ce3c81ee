"""Case normalisation before scoring: speech recognisers write upper case, language models are trained on mixed case."""

from __future__ import annotations

import re

_I = re.compile(r"\bi\b")


def cased(text: str, case: str) -> str:
    """`text` unchanged (`as_is`); in lower case (`lower`); or lower case except its first letter and the English word I
    (`sentence`)."""
    if case == "as_is":
        return text
    lower = text.lower()
    if case == "lower":
        return lower
    return _I.sub("I", lower[:1].upper() + lower[1:])
