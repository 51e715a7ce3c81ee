"""Property tests of text readers: no character lost or added, line ends, alignment, standard input."""

from __future__ import annotations

import gzip
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from command import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from lmctl.core.errors import DataError
from lmctl.data.document_layout import LAYOUTS
from lmctl.data.parallel import Parallel
from lmctl.data.reading import aligned_lines, lines
from lmctl.data.text import TextCorpus
from lmctl.inference.input_lines import incoming, lines_of

sys.path.append(str(ROOT / "scripts"))

from fuzzing.lists import Trickle

PIECES = ["The cat sat. ", "It ran", ". ", "1. ", "今天很好。", "他说：“走吧。”", '"a.","b."', "= A heading =",
          "# Another", "a\tb", "\r\n", "\n\n", *"\n\n\n \té😀\ufeff\u2028\x85\x0b\x0c\x1c\u200b"]  # fmt: skip
OLD = [*PIECES, "\r", "\r\r"]
BAD = [b"\0", b"\xe9", b"caf\xe9 ol\xe9\n", b"\xed\xa0\xbd", b"\xe4\xb8", b"\xff\xfe", b"\x1f\x8b",
       b"\x28\xb5\x2f\xfd", b"%PDF"]  # fmt: skip

text = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=14).map("".join)
text_of_any_age = st.lists(st.sampled_from(OLD), max_size=14).map("".join)
anything = st.lists(st.sampled_from([*(piece.encode() for piece in OLD), *BAD]) | st.binary(max_size=4), max_size=12)
rows = st.lists(
    st.tuples(*[st.lists(st.sampled_from(["one", " two", "\r", "\u2028", "\ufeff", "中。", "\x0c", "\t"]))] * 2)
)


def encoded(text: str) -> bytes:
    return text.replace("\0", "").encode(errors="ignore")  # without what no text file can hold


def without_marks(text: str) -> str:
    """The text with `\\n` for line ends, and without the byte order marks that a line may begin with."""
    return re.sub(r"(^|\n)\ufeff+", r"\1", re.sub(r"\r\n?", "\n", text))


def keep_all(content: str, layout: str, sentences: str) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, "a.txt")
        file.write_bytes(encoded(content))
        wanted = without_marks(encoded(content).decode())
        found = TextCorpus.open(str(file), layout, sentences, "error").read()
        got = "".join("".join(document) for document in found)
        if layout == "verbatim":
            assert got == wanted + "\n" * (wanted[-1:] not in ("\n", ""))
        else:
            assert "".join(got.split()) == "".join(wanted.split())


def pair_up(pairs: list[tuple[list[str], list[str]]], ends: tuple[str, str], columns: bool) -> None:
    sides = [["".join(pair[side]).replace("\t", " " if columns else "\t") for pair in pairs] for side in (0, 1)]
    # A \r before the end belongs to the end.
    sides = [[line.rstrip("\r") for line in side] for side in sides]
    with TemporaryDirectory() as folder:
        if columns:
            names = {"path": f"{folder}/both.tsv"}
            both = ["\t".join(pair) for pair in zip(*sides, strict=True)]
            Path(names["path"]).write_bytes("".join(line + ends[0] for line in both).encode())
        else:
            names = {"source": f"{folder}/a.en", "target": f"{folder}/a.de"}
            for name, side, end in zip(names.values(), sides, ends, strict=True):
                Path(name).write_bytes("".join(line + end for line in side).encode())
                assert len(list(aligned_lines(Path(name)))) == Path(name).read_bytes().count(b"\n")
        clean = [[" ".join(line.lstrip("\ufeff").split()) for line in side] for side in sides]
        good = {number: list(pair) for number, pair in enumerate(zip(*clean, strict=True), start=1) if all(pair)}
        source = Parallel(**names, on_bad_row="skip", valid_share=0.5)
        try:
            train, valid = (list(source.rows(split)) for split in ("train", "valid"))
        except DataError:
            many_marks = any(side.count("\r") > 1 for side in map("".join, sides))
            assert len({pair[0].casefold() for pair in good.values()}) < 2 or (len(pairs) == 1 and many_marks)
            return
        found = {int(row.where.rpartition(":")[2]): row.texts for row in [*train, *valid]}
        assert found.items() <= good.items()
        held_out = {side.casefold() for row in valid for side in row.texts}
        # What is missing is dropped from training because one of its sides is held out.
        assert all(held_out & {side.casefold() for side in good[n]} for n in good.keys() - found.keys())


def come_in(content: bytes, size: int) -> None:
    """Standard input, in pieces of any size, is what the same bytes are in a file; so are they packed."""
    with TemporaryDirectory() as folder:
        file, packed = Path(folder, "plain"), Path(folder, "packed.gz")
        file.write_bytes(content)
        packed.write_bytes(gzip.compress(content))
        ways = [
            lambda: lines_of(str(file)),
            lambda: typed(content, size),
            lambda: lines_of(str(packed)),
            lambda: typed(gzip.compress(content), size),
        ]
        results = [outcome(way) for way in ways]
        if not content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
            assert all(result == results[0] for result in results)
        assert results[0][0] == "lines" or results[0] == ("refused", True)
        if results[0][0] == "lines":
            *complete, last = content.split(b"\n")
            last = last.decode().lstrip("\ufeff").encode()
            wanted = [line.decode().removesuffix("\r") for line in [*complete, *([last] if last else [])]]
            assert results[0][1] == [line.lstrip("\ufeff") for line in wanted]


def typed(content: bytes, size: int) -> Iterator[str]:
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BufferedReader(Trickle(content, size)), encoding="utf-8")
    try:
        yield from incoming(None, "text", "")
    finally:
        sys.stdin = before


def outcome(way) -> tuple[str, object]:
    try:
        return "lines", list(way())
    except DataError as error:
        # Which of several things is wrong depends on what comes first.
        return "refused", re.search(r"byte offset \d|binary|damaged| is an? | is packed", str(error)) is not None


def splits(content: str) -> None:
    """What ends a line is `\\n`, `\\r\\n` and `\\r`, and nothing else."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "a")
        file.write_bytes(content.encode())
        wanted = [line.lstrip("\ufeff") for line in io.StringIO(content, newline=None).read().split("\n")]
        assert list(lines(file)) == wanted[: len(wanted) - (not wanted[-1])]


layouts = st.sampled_from(["auto", *LAYOUTS])
cuts = st.sampled_from(["auto", "line", "split"])
CHECKS = {
    "nothing lost": (keep_all, [text | text_of_any_age, layouts, cuts]),
    "parallel": (pair_up, [rows, st.tuples(*[st.sampled_from(["\n", "\r\n"])] * 2), st.booleans()]),
    "standard input": (come_in, [anything.map(b"".join) | text.map(encoded), st.integers(1, 9)]),
    "line ends": (splits, [text_of_any_age]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_any_text_is_read_right_or_refused(name):
    check, arguments = CHECKS[name]
    settings(max_examples=80, deadline=None)(given(*arguments)(check))()
