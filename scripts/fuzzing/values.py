"""Random texts, values and accidents that all readers share."""

from __future__ import annotations

import gzip
from random import Random
from typing import Any

import zstandard

NAMES = ["text", "label", "b", "a.b", "a", " label ", "", "名", "x=y", "text"]
CLEAN = ["the cat sat", "It ran. It hid.", "一只猫。", "no", "yes", "a b c", "3", "-1.5", "1", "0", "x,y", "7 mats"]
ODD = "ab ,;|\t\"'\n\r\\\u3000\u200b\ufeff你①²é\x1f\x85\u2028🙂"
SCALARS = [None, True, False, 0, 1, -1, 10**400, 9007199254740993, 1e308, 0.1, float("nan"), float("inf"),
           -float("inf"), "", " ", "NaN", "null", "1", "1.0", "x\ty", "\ud83d", "a\ud83db", "--2", "②",
           "a" * 3000]  # fmt: skip
INSERTED = [b'"', b"\n", b"\r", b"\t", b",", b"\x00", b"\xff", b"{", b"[", b"\\", b"'", b"\xe4\xb8", b"\xef\xbb\xbf"]


def text(draw: Random, odd: float = 0.4) -> str:
    """As people write it; a share `odd` of them of the characters that go wrong."""
    if draw.random() >= odd:
        return draw.choice(CLEAN)
    return "".join(draw.choices(ODD, k=draw.randrange(13)))


def value(draw: Random, names: list[str], depth: int = 2) -> Any:
    """Anything that JSON can hold, and some that it can not."""
    kind = draw.random()
    if kind < 0.35 or depth == 0:
        return draw.choice(SCALARS)
    if kind < 0.7:
        return text(draw)
    if kind < 0.85:
        return [value(draw, names, depth - 1) for _ in range(draw.randrange(4))]
    return {draw.choice(names): value(draw, names, depth - 1) for _ in range(draw.randrange(4))}


def accident(draw: Random, whole: bytes, packed: bool = True) -> bytes:
    """`whole`, or (one in three) what is left of it; it may be `packed`, and that be damaged, too."""
    data = _damaged(draw, whole) if draw.random() < 0.33 else whole
    pack = draw.choice([None, None, None, None, gzip.compress, zstandard.compress]) if packed else None
    if pack is None:
        return data
    data = pack(data)
    return _damaged(draw, data) if draw.random() < 0.2 else data


def _damaged(draw: Random, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(data) + 1)
        match draw.choice(["cut", "flip", "insert", "insert", "drop", "twice"]):
            case "cut":
                del data[at:]
            case "flip" if at < len(data):
                data[at] ^= draw.randrange(1, 256)
            case "insert":
                data[at:at] = draw.choice(INSERTED)
            case "drop":
                del data[at : at + draw.randrange(1, 10)]
            case _:
                data[at:at] = data[at : at + draw.randrange(1, 50)]
    return bytes(data)
