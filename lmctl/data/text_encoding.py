"""Guessing the encoding of text that is not UTF-8, with the command that converts it.

The guess is only shown: nothing is converted automatically, because a wrong guess would corrupt the training text.
"""

from __future__ import annotations

import codecs

_BINARY = {
    b"%PDF": ("a PDF", "take its text out first, with pdftotext"),
    b"PK\x03\x04": ("a zip archive, as docx, xlsx and epub are", "unpack it, or take its text out first, with pandoc"),
    b"\xd0\xcf\x11\xe0": ("an old Office document", "save it as plain text first"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it first"),
    b"Rar!": ("a rar archive", "unpack it first"),
    b"BZh": ("packed with bzip2", "unpack it first, with bunzip2"),
    b"\xfd7zXZ": ("packed with xz", "unpack it first, with unxz"),
    b"\x89PNG": ("a picture", "leave it out"),
    b"\xff\xd8\xff": ("a picture", "leave it out"),
    b"GIF8": ("a picture", "leave it out"),
    b"PAR1": ("a parquet file", "read it with data=table"),
    b"ARROW1": ("an arrow file", "read it with data=hub"),
    b"SQLite": ("a database", "write its text to a file first"),
}

_KANA = "のにはをたがでとしれさあいうえかきくけこすせそちつてなねほまみめもやゆよらりるろわんアイクシスタトラルンー、。"
_CYRILLIC = "оеаинтсрвлкмдпуяыьгзбчйхжшюц"
_FREQUENT = {
    "GBK": (0.15, "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过后，。"),
    "BIG5": (
        0.15,
        "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過後，。",
    ),
    "SHIFT_JIS": (0.3, _KANA),
    "EUC-JP": (0.3, _KANA),
    "EUC-KR": (0.15, "이다는의에을가고하지로은기도리사를한서자어나대시아인일과라있수들"),
    "CP1251": (0.8, _CYRILLIC),
    "KOI8-R": (0.8, _CYRILLIC),
}
"""Encoding (iconv's name) -> its frequent non-ASCII characters, and the share of them that supports a guess."""


def binary(head: bytes) -> tuple[str, str] | None:
    """The format of a known binary file by its first bytes, and a hint; None if it may be text."""
    return next((what for magic, what in _BINARY.items() if head.startswith(magic)), None)


def wide(head: bytes) -> str | None:
    """iconv's name of the encoding of text with NUL bytes, UTF-16 or UTF-32; None if it looks like neither."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    even, odd = head[0:200:2], head[1:200:2]
    if len(head) >= 8 and not even.count(0) and odd.count(0) * 2 >= len(odd):
        return "UTF-16LE"
    if len(head) >= 8 and not odd.count(0) and even.count(0) * 2 >= len(even):
        return "UTF-16BE"
    return None


def advice(name: str, sample: bytes) -> tuple[str, str]:
    """The probable encoding of a file with the invalid UTF-8 `sample`, cut anywhere, and a hint; `name` is the
    shell-quoted file name, empty for a pipe."""
    if b"\xed" in sample and _decodes(sample, "surrogatepass"):
        return "with halves of characters (surrogates)", f"without them: {_iconv('-c -f UTF-8', name)}"
    if _mostly_utf8(sample):
        return "all but a few bytes are", f"without these bytes: {_iconv('-c -f UTF-8', name)}"
    encoding = guess(sample)
    if encoding is None:
        return "of unknown encoding", f"if you know it: {_iconv('-f ENCODING', name)}"
    return conversion(encoding, name)


def conversion(encoding: str, name: str) -> tuple[str, str]:
    """As `advice`, for a guessed encoding."""
    command = _iconv(f"-f {encoding}", name)
    return f"it may be {encoding}", f"{'if this reads well, put it into a new file' if name else 'if so'}: {command}"


def _iconv(options: str, name: str) -> str:
    return f"iconv {options} -t UTF-8 {name}" if name else f"... | iconv {options} -t UTF-8 | lmctl ..."


def guess(sample: bytes) -> str | None:
    """iconv's name of the probable encoding of `sample`; None if there is no evidence."""
    high = [place for place, byte in enumerate(sample) if byte >= 0x80]
    alone = sum(sample[place - 1 : place] < b"\x80" and sample[place + 1 : place + 2] < b"\x80" for place in high)
    western = "CP1252" if any(0x80 <= sample[place] < 0xA0 for place in high) else "ISO-8859-1"
    if alone * 3 > len(high) * 2:  # isolated accents and curly quotes in ASCII text
        return western
    shares = {name: _share(sample, name, known) / least for name, (least, known) in _FREQUENT.items()}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] >= 1:
        return best
    return western if len(high) * 4 < len(sample) else None


def _share(sample: bytes, encoding: str, frequent: str) -> float:
    """Share of frequent characters among the non-ASCII ones, if the sample is decoded with this encoding."""
    text = sample.decode(encoding, errors="replace")
    others = [character for character in text if character >= "\x80"]
    return sum(character in frequent for character in others) / max(1, len(others))


def _decodes(sample: bytes, errors: str) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    try:
        decoder.decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _mostly_utf8(sample: bytes) -> bool:
    """Whether multi-byte characters are many and invalid bytes few."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(sample)
    wrong = text.count("\ufffd")
    right = sum(character >= "\x80" for character in text) - wrong
    return right >= max(1, 5 * wrong)
