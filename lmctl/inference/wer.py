"""Word error rate: substitutions, deletions and insertions per reference word."""

from __future__ import annotations


def word_errors(reference: str, hypothesis: str) -> int:
    """Levenshtein distance between the words of two texts, with case and punctuation.

    Bit-parallel (Myers 1999, in the form of Hyyrö 2003, figure 2): a column of the dynamic programming table is two
    integers, whose bits mark increases (`up`) and decreases (`down`).
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
