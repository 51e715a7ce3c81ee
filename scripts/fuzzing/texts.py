"""Texts in every layout, and parallel texts, as training reads them."""

from __future__ import annotations

from pathlib import Path
from random import Random

from fuzzing.values import accident
from lmctl.data.document_layout import LAYOUTS
from lmctl.data.parallel import Parallel
from lmctl.data.reading import aligned_lines
from lmctl.data.text import TextFiles

PIECES = ["The cat sat. ", "It ran", ". ", "1. ", "今天很好。", "他说：“走吧。”", '"a.","b."', "= A heading =",
          "# Another", "a\tb", "\n", "\n", "\n", "\r\n", "\n\n", " ", "\t", "é", "😀", "word " * 50]  # fmt: skip
ODD = ["\ufeff", "\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\u200b", "\r", "\r\r", "\u202e", "\ufffd", "\x1b[0m"]
NAMES = [
    "a.txt",
    "b.txt",
    "c",
    "d.md",
    "e.txt.gz",
    "f.zst",
    ".hidden",
    "g.html",
    "h.pdf",
    "sub/i.txt",
    "名.txt",
    "j.en",
]


def text(draw: Random, folder: Path) -> None:
    """Files of a folder, in any layout; what is read of them is text, and all that training asks can be told."""
    for name in draw.sample(NAMES, k=draw.choice([1, 1, 2, 3])):
        file = folder / "t" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(accident(draw, prose(draw).encode()))
    layout = draw.choice(["auto", "auto", *LAYOUTS])
    source = TextFiles(
        draw.choice(["t", "t", "t", "t", "t", "t/*", "t/a.txt", "t/**/*.txt", "t/[ab].txt"]),
        layout,
        draw.choice(["auto", "line", "split"]),
        valid_share=draw.choice([0.05, 0.3]),
        on_bad_file=draw.choice(["error", "skip", "skip"]),
    )
    for split in ("train", "valid"):
        for document in source.documents(split):
            assert all(sentence if layout == "verbatim" else sentence.strip() for sentence in document), document
            "".join(document).encode()
    source.fingerprint()
    source.describe().encode()


def parallel(draw: Random, folder: Path) -> None:
    """Two files, several pairs of them, or two columns; row i of both sides belongs together."""
    rows = [(side(draw), side(draw)) for _ in range(draw.choice([0, 1, 4, 12]))]
    how = {"on_bad_row": draw.choice(["error", "skip", "skip"]), "valid_share": draw.choice([0.05, 0.5])}
    if draw.random() < 0.4:
        content = "".join(f"{source}\t{target}{draw.choice(ENDS)}" for source, target in rows)
        Path("both.tsv").write_bytes(accident(draw, content.encode()))
        found = Parallel(path="both.tsv", **how)
    else:
        count = draw.choice([1, 1, 1, 2])
        for number in range(count):
            for name, place in (("en", 0), ("de", 1)):
                content = "".join(row[place] + draw.choice(ENDS) for row in rows)
                whole = content.encode() if draw.random() < 0.7 else accident(draw, content.encode())
                Path(f"{number}.{name}").write_bytes(whole)
        names = ("0.en", "0.de") if count == 1 and draw.random() < 0.8 else ("*.en", "*.de")
        if draw.random() < 0.1:
            how |= {"valid_source": "0.en", "valid_target": "0.de"}
        found = Parallel(*names, **how)
    for split in ("train", "valid"):
        for row in found.rows(split):
            assert len(row.texts) == 2
            assert all(text.strip() and "\n" not in text for text in row.texts)
            file, _, line = row.where.rpartition(":")
            "".join([*row.texts, row.where]).encode()
            if file in ("0.en", "both.tsv"):
                stands = list(aligned_lines(Path(file)))[int(line) - 1]
                first = stands.partition("\t")[0] if file == "both.tsv" else stands
                assert first.split() == row.texts[0].split(), (stands, row)
    found.fingerprint()
    found.describe().encode()


ENDS = ["\n", "\n", "\n", "\n", "\r\n"]


def side(draw: Random) -> str:
    """One side of a row: in a tenth of them something odd, in another nothing."""
    kind = draw.random()
    if kind < 0.85:
        return " ".join(draw.choices(["one", "two", "中。", "drei", "x", "y"], k=draw.randrange(1, 5)))
    return "".join(draw.choice(["a", "\r", "\u2028", "\ufeff", "\x0c", "\t", " "]) for _ in range(draw.randrange(4)))


def prose(draw: Random) -> str:
    """Text with line ends and blank lines anywhere; in half of them nothing odd."""
    pieces = PIECES if draw.random() < 0.5 else [*PIECES, *ODD]
    return "".join(draw.choice(pieces) for _ in range(draw.choice([0, 3, 10, 30, 100])))
