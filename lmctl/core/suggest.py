"""Spelling suggestions: "did you mean ...?" for mistyped names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most similar to `word`, or None; `ONNX` is as similar to onnx as can be."""
    choices = list(choices)
    folded = {choice.casefold(): choice for choice in reversed(choices)}
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return (
        close[0]
        if close
        else next((folded[one] for one in difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)), None)
    )


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean X?`, or all choices if none is similar, to append to a message."""
    choices = list(choices)
    close = nearest(word, choices)
    return f"; did you mean {close}?" if close else f"; there are: {listed(choices)}" if choices else ""


def listed(choices: Iterable[str], most: int = 40) -> str:
    """The choices separated by commas, at most `most`, and the number of those left out."""
    choices = list(choices)
    more = f", and {len(choices) - most:,} more" if len(choices) > most else ""
    return ", ".join(choices[:most]) + more
