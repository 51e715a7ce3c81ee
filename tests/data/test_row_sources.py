"""Labelled and parallel sources: what is read, what is refused with file and line, and that no text leaks."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmctl.core.batch import Row
from lmctl.core.errors import ConfigError, DataError
from lmctl.data.jsonl import JsonLines
from lmctl.data.number_words import chinese, english, german
from lmctl.data.numbers import Numbers
from lmctl.data.parallel import Parallel
from lmctl.data.pydocs_topics import TOPICS, PyDocsTopics
from lmctl.data.row_split import partition
from lmctl.data.table import Table


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def both(source) -> list[Row]:
    return [*source.rows("train"), *source.rows("valid")]


def texts(source) -> set[tuple[str, ...]]:
    return {tuple(row.texts) for row in both(source)}


ROWS = [("1", "good film", "fine"), ("0", 'a "bad" one', "no"), ("1", "还不错，值得看", "好")]


@pytest.mark.parametrize("kind", ["tsv", "tsv.gz", "csv", "parquet", "jsonl"])
def test_the_same_rows_from_every_format(tmp_path: Path, kind: str):
    path = tmp_path / f"rows.{kind}"
    lines = [("label", "a", "b"), *ROWS]
    if kind == "tsv":
        write(path, "\n".join("\t".join(cells) for cells in lines) + "\n")
    elif kind == "tsv.gz":
        path.write_bytes(gzip.compress("\n".join("\t".join(cells) for cells in lines).encode()))
    elif kind == "csv":
        write(path, "\n".join(",".join('"' + c.replace('"', '""') + '"' for c in cells) for cells in lines))
    elif kind == "parquet":
        pq.write_table(pa.table({name: [r[i] for r in ROWS] for i, name in enumerate(lines[0])}), path)
    else:
        write(path, "\n".join(json.dumps(dict(zip(lines[0], r, strict=True)), ensure_ascii=False) for r in ROWS))
    source = (JsonLines if kind == "jsonl" else Table)(str(path), text="a", text_b="b", label="label")
    assert source.yields == "labelled"
    assert {(*row.texts, row.label) for row in both(source)} == {(a, b, label) for label, a, b in ROWS}
    assert len(list(source.rows("valid"))) == 1


def test_a_table_without_header_counts_its_columns(tmp_path: Path):
    source = Table(write(tmp_path / "t.tsv", "1\tone\n2\ttwo\n"), text="1", label="0", header=False)
    assert texts(source) == {("one",), ("two",)}


def test_nested_columns_labels_of_every_kind_and_sentences_as_a_list(tmp_path: Path):
    rows = [{"doc": {"body": f"text {i}"}, "tags": ["x", "y"]} for i in range(4)]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    source = JsonLines(path, text="doc.body", label="tags")
    assert [row.label for row in both(source)] == [["x", "y"]] * 4
    listed = write(tmp_path / "b.jsonl", "\n".join(json.dumps({"text": [f"One {i}.", "Two."]}) for i in range(4)))
    assert ("One 1.", "Two.") in texts(JsonLines(listed))
    assert JsonLines(listed).yields == "documents"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "not JSON"),
        ("[1, 2]", "not a JSON object but list"),
        ('{"text": "", "label": "a"}', "column 'text' is empty"),
        ('{"text": null, "label": "a"}', "column 'text' is empty"),
        ('{"text": 7, "label": "a"}', "column 'text' is not text"),
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


def test_a_missing_column_and_a_short_row(tmp_path: Path):
    path = write(tmp_path / "t.tsv", "label\tsentence\n1\tone\n2\n")
    with pytest.raises(ConfigError, match=r"no column 'sentense'; did you mean sentence\?"):
        list(Table(path, text="sentense", label="label").rows("train"))
    with pytest.raises(DataError, match=r"t\.tsv:3: 1 cell, and there are 2 columns"):
        list(Table(path, text="sentence", label="label").rows("train"))


def test_parallel_files_and_columns_are_the_same_text(tmp_path: Path):
    pairs = [(f"line {i}", f"Zeile {i}") for i in range(9)]
    en = write(tmp_path / "a.en", "\n".join(a for a, _ in pairs))
    de = write(tmp_path / "a.de", "\n".join(b for _, b in pairs))
    tsv = write(tmp_path / "a.tsv", "\n".join("\t".join(pair) for pair in pairs))
    assert texts(Parallel(en, de)) == texts(Parallel(path=tsv)) == set(pairs)


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
    assert texts(Parallel(en, de)) == pairs
    tsv = tmp_path / "p.tsv"
    tsv.write_bytes(subprocess.run(["paste", en, de], capture_output=True, check=True).stdout)
    assert texts(Parallel(path=str(tsv))) == pairs
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
    assert texts(source) == wanted
    assert "3 files a side, 5 rows" in source.describe()
    for side in ("en", "de"):
        (tmp_path / side).mkdir()
        for number in (1, 2, 10):
            write(tmp_path / side / f"{number}.txt", (tmp_path / f"part{number}.{side}").read_text())
    folders = Parallel(str(tmp_path / "en"), str(tmp_path / "de"))
    assert texts(folders) == wanted
    assert folders.fingerprint() == source.fingerprint()
    (tmp_path / "de" / "2.txt").rename(tmp_path / "de" / "3.txt")
    with pytest.raises(DataError, match=r"en/2\.txt and .*de/3\.txt would be read side by side"):
        texts(folders)
    write(tmp_path / "de" / "4.txt", "vier\n")
    with pytest.raises(DataError, match="source means 3 files and target 4"):
        texts(folders)
    write(tmp_path / "part2.de", "erste 2\n")
    with pytest.raises(
        DataError, match=r"part2\.en has 2 lines and .*part2\.de has 1: line 2 of .*part2\.en has no part"
    ):
        texts(source)


def test_validation_text_is_not_trained_on(tmp_path: Path):
    train = write(tmp_path / "train.tsv", "label\ttext\n" + "".join(f"{i % 2}\trow {i}\n" for i in range(10)))
    valid = write(tmp_path / "valid.tsv", "label\ttext\n0\trow  3\n1\tnew\n")
    source = Table(train, label="label", valid_path=valid)
    assert "row 3" not in {row.texts[0] for row in source.rows("train")}
    assert len(list(source.rows("train"))) == 9
    assert [row.texts[0] for row in source.rows("valid")] == ["row 3", "new"]
    assert "1 dropped" in source.describe()


@pytest.mark.parametrize("kind", ["table", "jsonl"])
def test_a_source_text_with_several_translations_is_on_one_side(tmp_path: Path, kind: str):
    pairs = [(f"source {i}", f"Ziel {i} {k}") for i in range(40) for k in range(3)]
    if kind == "table":
        path = write(tmp_path / "t.tsv", "a\tb\n" + "".join(f"{a}\t{b}\n" for a, b in pairs))
    else:
        path = write(tmp_path / "t.jsonl", "".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in pairs))
    source = (Table if kind == "table" else JsonLines)(path, source="a", target="b", valid_share=0.3)
    train, valid = ({row.texts[0] for row in source.rows(split)} for split in ("train", "valid"))
    assert len(valid) == 12
    assert not train & valid


@given(st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=40), st.floats(0.05, 0.9))
def test_no_text_is_on_both_sides_and_none_is_lost(letters, share):
    rows = [Row([letter, str(place)]) for place, letter in enumerate(letters)]
    if len(set(letters)) < 2:
        return
    parts = partition(lambda: iter(rows), share, "letters", 1)
    train, valid = (list(parts.rows(split)) for split in ("train", "valid"))
    assert train
    assert valid
    assert not {row.texts[0] for row in train} & {row.texts[0] for row in valid}
    assert sorted(row.texts for row in train + valid) == sorted(row.texts for row in rows)
    turned = partition(lambda: iter(rows[::-1]), share, "letters", 1)
    assert {row.texts[0] for row in turned.rows("valid")} == {row.texts[0] for row in valid}


def labelled(rows: list[tuple[str, str | float | list[str]]], share: float = 0.05) -> tuple[list[Row], list[Row]]:
    parts = partition(lambda: iter([Row([text], label) for text, label in rows]), share, "rows", 1)
    return list(parts.rows("train")), list(parts.rows("valid"))


COMMON = [(f"good cat {n}", "pos") for n in range(60)] + [(f"bad dog {n}", "neg") for n in range(60)]


@pytest.mark.parametrize(
    "rare",
    [
        [(f"strange bird {n}", f"rare{n}") for n in range(25)],
        [(f"strange bird {n}", f"rare{n}") for n in range(400)],
        [(f"odd fish {n}", f"rare{n // 2}") for n in range(60)],
        [("good cat 3", "also"), ("bad dog 7", "too")],
        [(f"listed {n}", ["pos", f"tag{n}"]) for n in range(30)],
        [(f"numbered {n}", float(n)) for n in range(40)],
    ],
    ids=["one row each", "most of the rows", "two rows each", "texts of other classes", "lists", "numbers"],
)
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_no_class_is_held_out_altogether(rare, share):
    rows = COMMON + rare
    train, valid = labelled(rows, share)
    assert valid

    def labels(of: list[Row]) -> set[str]:
        return {str(part) for row in of for part in (row.label if isinstance(row.label, list) else [row.label])}

    assert labels(train) >= labels(valid)
    assert len(train) + len(valid) == len(rows)


@pytest.mark.parametrize(("good", "bad"), [(200, 200), (380, 20), (40, 40), (2000, 100)])
def test_classes_are_held_out_in_proportion(good, bad):
    for seed in range(20):
        rows = [(f"{seed} happy {n}", "happy") for n in range(good)] + [(f"{seed} sad {n}", "sad") for n in range(bad)]
        _, valid = labelled(rows)
        for label, count in (("happy", good), ("sad", bad)):
            held = sum(row.label == label for row in valid)
            assert int(0.05 * count / 1.25) <= held <= 0.05 * count * 1.25 + 1


def test_numbers_of_which_every_one_is_another_are_no_classes():
    _, valid = labelled([(f"text {n}", n / 7) for n in range(1000)])
    assert 38 <= len(valid) <= 63


def test_a_labelled_row_that_is_added_moves_no_other_one():
    rows = [(f"{label} {n}", label) for n in range(1500) for label in ("yes", "no", "maybe")]
    train, valid = labelled(rows)
    more_train, more_valid = labelled([*[(f"new {n}", "yes") for n in range(150)], *rows])
    assert {row.texts[0] for row in train} <= {row.texts[0] for row in more_train}
    assert {row.texts[0] for row in valid} <= {row.texts[0] for row in more_valid}


def split_of(source) -> tuple[list[Row], list[Row]]:
    return list(source.rows("train")), list(source.rows("valid"))


@pytest.mark.parametrize("kind", ["jsonl", "tsv"])
def test_labelled_twins_and_pairs_with_one_first_text_are_on_one_side(tmp_path: Path, kind: str):
    rows = [(f"{'Text' if n % 2 else 'TEXT'} number {n // 10}", f"second {n}", "ab"[n % 3 % 2]) for n in range(600)]
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        write(path, "\n".join(json.dumps(dict(zip(("text", "b", "label"), row, strict=True))) for row in rows))
    else:
        write(path, "text\tb\tlabel\n" + "\n".join("\t".join(row) for row in rows))
    source = (JsonLines if kind == "jsonl" else Table)(str(path), text_b="b", label="label")
    train, valid = split_of(source)
    assert len(train) + len(valid) == 600
    assert valid
    assert not {row.texts[0].lower() for row in train} & {row.texts[0].lower() for row in valid}


def test_given_validation_pairs_drop_only_the_same_pairs(tmp_path: Path):
    train = write(tmp_path / "train.tsv", "text\tb\tlabel\n" + "".join(f"one\tsecond {n}\ta\n" for n in range(9)))
    valid = write(tmp_path / "valid.tsv", "text\tb\tlabel\none\tsecond 4\ta\none\tnew\ta\n")
    rows, _ = split_of(Table(train, text_b="b", label="label", valid_path=valid))
    assert [row.texts[1] for row in rows] == [f"second {n}" for n in range(9) if n != 4]


@pytest.mark.parametrize("kind", ["parallel", "table"])
def test_neither_sources_nor_targets_of_held_out_rows_are_trained_on(tmp_path: Path, kind: str):
    """Each source with two translations, and each translation of two sources."""
    pairs = [(f"source {n % 150}", f"target {(n * 7) % 200}") for n in range(300)]
    text = "\n".join("\t".join(pair) for pair in pairs)
    if kind == "parallel":
        source = Parallel(path=write(tmp_path / "a.tsv", text))
    else:
        source = Table(write(tmp_path / "a.tsv", f"s\tt\n{text}"), source="s", target="t")
    train, valid = split_of(source)
    for side in (0, 1):
        assert not {row.texts[side] for row in train} & {row.texts[side] for row in valid}
    assert len(train) > 200
    lost = 300 - len(train) - len(valid)
    assert lost
    assert f"{len(train)} rows and {len(valid)} held out, {lost} dropped" in source.describe()


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_documents_of_columns_are_told_apart_by_all_they_say(tmp_path: Path, kind: str):
    texts = [f"The same beginning. And the same again. Text {n} ends differently." for n in range(400)]
    if kind == "jsonl":
        path = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": text}) for text in [*texts, *texts[:40]]))
    else:
        path = write(
            tmp_path / "a.csv", "n,text\n" + "\n".join(f'{n},"{text}"' for n, text in enumerate([*texts, *texts[:40]]))
        )
    source = (JsonLines if kind == "jsonl" else Table)(path)
    train, valid = split_of(source)
    assert 16 <= len(valid) <= 25
    ends = [row.texts[-1] for row in train + valid]
    assert sorted(ends) == sorted(f"Text {n} ends differently." for n in range(400))
    assert "40 duplicates dropped" in source.describe()


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
    source = PyDocsTopics()
    train, valid = list(source.rows("train")), list(source.rows("valid"))
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
