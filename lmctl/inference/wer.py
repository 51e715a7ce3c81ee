"""Word error rate: how many words of a reference are substituted, missing or too many."""

from __future__ import annotations


def word_errors(reference: str, hypothesis: str) -> int:
    """Levenshtein's distance between the words of two texts, case and punctuation as they are.

    Bit-parallel (Myers 1999, in the form of Hyyrö 2003, figure 2): a column of the table of distances is two whole
    numbers, whose bits say where it rises (`up`) and where it falls (`down`).
    """
    words = reference.split()
    if not words:
        return len(hypothesis.split())
    places: dict[str, int] = {}
    for place, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << place
    full, last = (1 << len(words)) - 1, 1 << (len(words) - 1)
    up, down, distance = full, 0, len(words)
    for word in hypothesis.split():
        match = places.get(word, 0)
        diagonal = ((((match & up) + up) ^ up) | match | down) & full
        rise, fall = (down | ~(diagonal | up)) & full, up & diagonal
        distance += bool(rise & last) - bool(fall & last)
        rise, fall = (rise << 1 | 1) & full, fall << 1 & full
        up, down = (fall | ~(diagonal | rise)) & full, rise & diagonal
    return distance
