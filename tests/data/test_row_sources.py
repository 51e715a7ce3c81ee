"""Labelled and parallel sources: every format gives the same rows, bad rows are named by file and line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from row_files import both, halves, refusal, rows, texts, write, write_rows

from lmctl.core.errors import DataError, Exit
from lmctl.data.hub import Hub
from lmctl.data.jsonl import JsonLines
from lmctl.data.number_words import chinese, english, german
from lmctl.data.numbers import Numbers
from lmctl.data.parallel import Parallel
from lmctl.data.pydocs_topics import TOPICS, PyDocsTopics
from lmctl.data.table import Table


def sides(source) -> set[tuple[str, ...]]:
    return {tuple(row.texts) for row in both(source)}


ROWS = [("1", "good film", "fine"), ("0", 'a "bad" one', "no"), ("1", "还不错，值得看", "好")]


@pytest.mark.parametrize("kind", ["tsv", "tsv.gz", "csv", "parquet", "jsonl"])
def test_the_same_rows_from_every_format(tmp_path: Path, kind: str):
    path = write_rows(tmp_path / f"rows.{kind}", [dict(zip(("label", "a", "b"), row, strict=True)) for row in ROWS])
    source = (JsonLines if kind == "jsonl" else Table)(path, text="a", text_b="b", label="label")
    assert source.yields == "labelled"
    assert {(*row.texts, row.label) for row in both(source)} == {(a, b, label) for label, a, b in ROWS}
    assert len(list(source.rows("valid"))) == 1


def test_nested_columns_labels_of_every_kind_and_sentences_as_a_list(tmp_path: Path):
    rows = [{"doc": {"body": f"text {i}"}, "tags": ["x", "y"]} for i in range(4)]
    source = JsonLines(write_rows(tmp_path / "a.jsonl", rows), text="doc.body", label="tags")
    assert [row.label for row in both(source)] == [["x", "y"]] * 4
    listed = write_rows(tmp_path / "b.jsonl", [{"text": [f"One {i}.", "Two."]} for i in range(4)])
    assert ("One 1.", "Two.") in sides(JsonLines(listed))
    assert JsonLines(listed).yields == "documents"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "not JSON"),
        ("[1, 2]", "not a JSON object but list"),
        ('{"text": "x", "label": null}', "column 'label' is empty"),
    ],
)
def test_a_bad_row_is_named_or_counted(tmp_path: Path, line: str, message: str):
    good = [json.dumps({"text": f"text {i}", "label": "a"}) for i in range(3)]
    path = write(tmp_path / "rows.jsonl", "\n".join([good[0], line, *good[1:]]))
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: {message}"):
        list(JsonLines(path, label="label").rows("train"))
    skipping = JsonLines(path, label="label", on_bad_row="skip")
    assert len(both(skipping)) == 3
    assert "1 bad row skipped, the first:" in skipping.describe()
    assert "rows.jsonl:2" in skipping.describe()


def test_rows_that_are_all_bad_are_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="all 2 rows are bad"):
        JsonLines(write(tmp_path / "x.jsonl", "{a\n{b\n"), on_bad_row="skip").describe()


def test_parallel_files_and_columns_are_the_same_text(tmp_path: Path):
    pairs = [(f"line {i}", f"Zeile {i}") for i in range(9)]
    en = write(tmp_path / "a.en", "\n".join(a for a, _ in pairs))
    de = write(tmp_path / "a.de", "\n".join(b for _, b in pairs))
    tsv = write(tmp_path / "a.tsv", "\n".join("\t".join(pair) for pair in pairs))
    assert sides(Parallel(en, de)) == sides(Parallel(path=tsv)) == set(pairs)


def test_parallel_files_must_match(tmp_path: Path):
    en = write(tmp_path / "a.en", "one\ntwo\nthree\n")
    with pytest.raises(DataError, match=r"a\.en has 3 lines and .*a\.de has 2"):
        list(Parallel(en, write(tmp_path / "a.de", "eins\nzwei\n")).rows("train"))
    de = write(tmp_path / "b.de", "eins\n\ndrei\n")
    with pytest.raises(DataError, match=r"a\.en:2: the target side is empty"):
        list(Parallel(en, de).rows("train"))
    assert len(both(Parallel(en, de, on_bad_row="skip"))) == 2


def test_a_carriage_return_or_an_odd_separator_does_not_shift_parallel_text(tmp_path: Path):
    """The right pairs are those of `paste`."""
    en = write(tmp_path / "p.en", "one\ntwo\rmore\nthree\u2028x\nfour\x0cy\n\ufefffive\x85\n")
    de = write(tmp_path / "p.de", "eins\r\nzwei\r\ndrei\r\nvier\rmehr\r\nfuenf\r\n")
    pairs = {("one", "eins"), ("two more", "zwei"), ("three x", "drei"), ("four y", "vier mehr"), ("five", "fuenf")}
    assert sides(Parallel(en, de)) == pairs
    tsv = tmp_path / "p.tsv"
    tsv.write_bytes(subprocess.run(["paste", en, de], capture_output=True, check=True).stdout)
    assert sides(Parallel(path=str(tsv))) == pairs
    mac = write(tmp_path / "mac.en", "one\rtwo\rthree\r")
    for options in ({"source": mac, "target": mac}, {"source": mac, "target": de}, {"path": mac}):
        with pytest.raises(DataError, match=r"mac\.en has carriage returns and no line ends"):
            list(Parallel(**options, on_bad_row="skip").rows("train"))


def test_several_files_a_side_go_by_their_names(tmp_path: Path):
    for number in (1, 2, 10):
        write(tmp_path / f"part{number}.en", f"first {number}\nsecond {number}\n")
        write(tmp_path / f"part{number}.de", f"erste {number}\nzweite {number}\n")
    source = Parallel(f"{tmp_path}/*.en", f"{tmp_path}/*.de")
    wanted = {(f"{a} {n}", f"{b} {n}") for a, b in (("first", "erste"), ("second", "zweite")) for n in (1, 2, 10)}
    assert sides(source) == wanted
    assert "3 files a side, 5 rows" in source.describe()
    for side in ("en", "de"):
        (tmp_path / side).mkdir()
        for number in (1, 2, 10):
            write(tmp_path / side / f"{number}.txt", (tmp_path / f"part{number}.{side}").read_text())
    folders = Parallel(str(tmp_path / "en"), str(tmp_path / "de"))
    assert sides(folders) == wanted
    assert folders.fingerprint() == source.fingerprint()
    (tmp_path / "de" / "2.txt").rename(tmp_path / "de" / "3.txt")
    with pytest.raises(DataError, match=r"en/2\.txt and .*de/3\.txt would be read side by side"):
        sides(folders)
    write(tmp_path / "de" / "4.txt", "vier\n")
    with pytest.raises(DataError, match="source means 3 files and target 4"):
        sides(folders)
    write(tmp_path / "part2.de", "erste 2\n")
    with pytest.raises(
        DataError, match=r"part2\.en has 2 lines and .*part2\.de has 1: line 2 of .*part2\.en has no part"
    ):
        sides(source)


def test_parquet_is_known_by_its_first_bytes(tmp_path: Path):
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "part-00000")
    assert texts(Table(str(tmp_path / "part-00000"))) == ["one"]


def test_damaged_parquet_is_named(tmp_path: Path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": [f"text {i} " * 9 for i in range(900)]}), path, compression="zstd")
    whole = path.read_bytes()
    damages = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}
    damages["page"] = whole[:40] + b"\0" * 60 + whole[100:]
    damages["footer"] = whole[:-30] + b"\xff" * 20 + whole[-10:]
    for name, data in damages.items():
        error = refusal(Table(write(tmp_path / f"{name}.parquet", data)))
        assert isinstance(error, DataError), name
        assert f"{name}.parquet is damaged" in str(error)
        assert "\n" not in str(error)
        assert error.code == Exit.DATA


def test_json_that_is_not_an_object_per_line_is_told_how_to_become_so(tmp_path: Path):
    listed = refusal(JsonLines(write(tmp_path / "a.json", '[{"text": "x"},\n {"text": "y"}]')))
    assert "a.json is a list" in str(listed)
    assert listed.hint is not None
    assert "jq -c '.[]' a.json > a.jsonl" in listed.hint
    assert "objects over several lines" in str(refusal(JsonLines(write(tmp_path / "b.json", '{\n "text": "x"\n}\n'))))
    deep = write(tmp_path / "deep.jsonl", '{"text": "x"}\n{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(DataError, match=r"deep\.jsonl:2: JSON nested too deeply"):
        rows(JsonLines(deep))
    assert texts(JsonLines(deep, on_bad_row="skip")) == ["x"]


@pytest.mark.parametrize(
    ("made", "name", "hint"),
    [
        (Table, "t.jsonl", "data=jsonl"),
        (Table, "T.JSON.gz", "data=jsonl"),
        (Table, "t.xlsx", "save the sheet as csv"),
        (JsonLines, "t.csv", "data=table"),
        (JsonLines, "t.parquet", "data=table"),
    ],
)
def test_files_of_another_kind_are_sent_to_their_reader(tmp_path: Path, made: Any, name: str, hint: str):
    error = refusal(made(write(tmp_path / name, "anything\n")))
    assert name in str(error)
    assert hint in str(error.hint)


ODD_CELLS = [("NA", "None"), ("null", "NA"), ("007", "01"), ("True", "false"), ("3.10", "1.0"), ("a, b", "2020-01-01")]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_table_has_the_same_rows_under_hub(tmp_path: Path, streaming: bool, suffix: str):
    cells = [*ODD_CELLS, ("", "x"), ("y", ""), ("z", " ")]
    path = write_rows(tmp_path / f"t.{suffix}", [{"text": text, "label": label} for text, label in cells])
    how: dict[str, Any] = {"label": "label", "on_bad_row": "skip"}
    table, hub = Table(path, **how), Hub(path, streaming=streaming, **how)
    assert [(row.texts[0], row.label) for row in rows(table)] == ODD_CELLS
    assert rows(hub) == rows(table), "with their places"
    with pytest.raises(DataError, match=rf"t\.{suffix}:8: column 'text' is empty"):
        rows(Hub(path, label="label", streaming=streaming))


def test_number_words():
    assert [english(n) for n in (0, 13, 40, 99, 100, 101, 1000, 21042, 999999)] == [
        "zero", "thirteen", "forty", "ninety-nine", "one hundred", "one hundred and one", "one thousand",
        "twenty-one thousand and forty-two", "nine hundred and ninety-nine thousand nine hundred and ninety-nine",
    ]  # fmt: skip
    assert [german(n) for n in (1, 16, 21, 101, 1001, 21042)] == [
        "eins", "sechzehn", "einundzwanzig", "einhunderteins", "eintausendeins", "einundzwanzigtausendzweiundvierzig",
    ]  # fmt: skip
    assert [chinese(n) for n in (10, 15, 20, 105, 110, 1001, 10010, 21042, 100000)] == [
        "十", "十五", "二十", "一百零五", "一百一十", "一千零一", "一万零一十", "二万一千零四十二", "十万",
    ]  # fmt: skip


@pytest.mark.parametrize("language", [english, german, chinese])
def test_every_number_has_words_of_its_own(language):
    numbers = [*range(3000), *range(9_990, 10_120), *range(99_900, 101_050), 999_999]
    assert len({language(n) for n in numbers}) == len(numbers)


def test_numbers_are_many_different_ones_of_every_length():
    source = Numbers(target_language="zh", size=500)
    rows = both(source)
    assert len({row.where for row in rows}) == 500
    assert len({len(row.where) for row in rows}) == 6
    with pytest.raises(ValueError, match="target_language must be one of en, de, zh"):
        Numbers(target_language="xx")


def test_topics_are_all_there_and_texts_are_told_apart():
    train, valid = halves(PyDocsTopics())
    assert {row.label for row in train} == set(TOPICS)
    assert not {row.texts[0] for row in train} & {row.texts[0] for row in valid}
    assert len(train) > 1000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Table(""), "path must name"),
        (lambda: Table("x", source="a"), "give both"),
        (lambda: Table("x", source="a", target="b", label="c"), "exclude each other"),
        (lambda: Table("x", text_b="b"), "give label as well"),
        (lambda: Table("x", quoting="odd"), "quoting must be one of"),
        (lambda: JsonLines("x", on_bad_row="ignore"), "on_bad_row must be error or skip"),
        (lambda: Parallel("a"), "two files"),
        (lambda: Parallel("a", "b", "c"), "two files"),
    ],
)
def test_options_that_do_not_go_together(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
