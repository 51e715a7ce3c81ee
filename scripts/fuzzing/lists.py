"""Pairs, n-best lists and lines, from files and standard input, as `score`, `eval` and `generate` read them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from random import Random

import numpy as np

from fuzzing.values import accident, text, value
from lmctl.inference.input_lines import first_not_blank, incoming, lines_of, placed
from lmctl.inference.nbest import Lists, collected, rescored, tune
from lmctl.inference.pairs import pairs_in
from lmctl.verbs.score import _plain_text_only, guess

KEYS = ["id", "ref", "hyps", "good", "bad", "sentence_good", "sentence_bad", "text", "score", "x"]
STRANGE = ["", "  ", "\t", "a\tb", "{", "{}", "[]", '{"a": 1, "a": 1}', "[" * 9000, '{"hyps": ' * 5000, "3", "null"]


def nbest(draw: Random, folder: Path) -> None:
    """Lists that can be compared, tuned and counted."""
    lists = collected(placed(written(draw, folder, nbest_line)), "file")
    scores = np.array([[draw.uniform(-50, 0) for _ in range(max(len(u.texts) for u in lists))] for _ in lists])
    table = Lists(lists, scores)
    for utterance, chosen in zip(lists, table.first.tolist(), strict=True):
        assert utterance.scores[chosen] == max(utterance.scores)
        "".join([utterance.name, utterance.reference, *utterance.texts]).encode()
    rates = rescored(table, tune(table))
    assert 0 <= table.wer(table.oracle) <= table.wer(table.first)
    assert all(np.isfinite(rate) for rate in rates.values()), rates


def pairs(draw: Random, folder: Path) -> None:
    """Pairs of sentences, or whatever the first line makes `score` take them for."""
    file = written(draw, folder, pair_line)
    if draw.random() < 0.5:
        for pair in pairs_in(placed(file)):
            "".join(pair).encode()
        return
    first, stream = first_not_blank(placed(file))
    if first is not None:
        {"lines": lambda: list(_plain_text_only(stream)), "pairs": lambda: list(pairs_in(stream)),
         "nbest": lambda: collected(stream, file)}[guess(first)]()  # fmt: skip


def lines(draw: Random, folder: Path) -> None:
    """Lines of any bytes, from a file and by standard input in small pieces."""
    whole = "\n".join(text(draw).replace("\n", "") for _ in range(draw.randrange(6))) + draw.choice(["", "\n", "\r\n"])
    data = accident(draw, whole.encode())
    Path(folder, "a.txt").write_bytes(data)
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BufferedReader(Trickle(data, draw.randrange(1, 9))), encoding="utf-8")
    try:
        typed = list(incoming(None, "text", ""))
    finally:
        sys.stdin = before
    assert typed == list(lines_of("a.txt"))
    assert all("\n" not in line for line in typed)


class Trickle(io.RawIOBase):
    """A pipe that hands out a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self.content, self.size = io.BytesIO(content), size

    def readable(self) -> bool:
        return True

    def readinto(self, room) -> int:  # type: ignore[no-untyped-def,override]
        block = self.content.read(min(self.size, len(room)))
        room[: len(block)] = block
        return len(block)


def written(draw: Random, folder: Path, line) -> str:  # type: ignore[no-untyped-def]
    """The name of a file of a few lines, most of them good."""
    data = "\n".join(line(draw) for _ in range(draw.randrange(1, 6))).encode(errors="surrogatepass")
    name = draw.choice(["a.jsonl", "a.txt", "a.tsv", "a.gz"])
    Path(folder, name).write_bytes(accident(draw, data) if draw.random() < 0.2 else data)
    return name


def nbest_line(draw: Random) -> str:
    hyps = [{"text": text(draw), "score": draw.uniform(-9, 0)} for _ in range(draw.randrange(1, 5))]
    return row_line(draw, {"id": f"u{draw.randrange(9)}", "ref": text(draw), "hyps": hyps})


def pair_line(draw: Random) -> str:
    if draw.random() < 0.4:
        return "\t".join(text(draw).replace("\n", " ").replace("\t", " ") for _ in range(draw.choice([2, 2, 2, 1, 3])))
    sides = draw.choice([("good", "bad"), ("sentence_good", "sentence_bad")])
    return row_line(draw, {side: text(draw) for side in sides})


def row_line(draw: Random, row: dict[str, object]) -> str:
    """The row as JSON; in a sixth of them something is wrong."""
    kind = draw.randrange(30)
    if kind == 0:
        return draw.choice(STRANGE)
    if kind == 1:
        row.pop(draw.choice(sorted(row)))
    elif kind == 2:
        row[draw.choice(KEYS)] = value(draw, KEYS)
    elif kind == 3:
        row = {draw.choice(KEYS): value(draw, KEYS) for _ in range(draw.randrange(6))}
    elif kind == 4 and isinstance(row.get("hyps"), list):
        row["hyps"] = [{"text": value(draw, KEYS, 1), "score": value(draw, KEYS, 1)}]
    return json.dumps(row, ensure_ascii=draw.random() < 0.5)
