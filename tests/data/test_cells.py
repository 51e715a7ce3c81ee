"""What stands in the cells of tables: how lines are cut, what can be a text or a label, what is said of the rest."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmctl.core.batch import Row
from lmctl.core.errors import ConfigError, DataError, Exit, LmctlError
from lmctl.data.dialect import Dialect, detect
from lmctl.data.hub import Hub
from lmctl.data.jsonl import JsonLines
from lmctl.data.records import BadRow, label_of
from lmctl.data.table import Table
from lmctl.mix.mix import Task
from lmctl.objective.classify import Classify
from lmctl.train.class_labels import Labels, check_repeated, labelled
from lmctl.train.prepare import check_kind


def write(path: Path, text: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def rows(source: Any) -> list[Row]:
    return list(source.read(source.parts[0]))


def texts(source: Any) -> list[str]:
    return [" ".join(row.texts) for row in rows(source)]


def refusal(source: Any) -> LmctlError:
    with pytest.raises(LmctlError) as caught:
        rows(source)
    return caught.value


# How lines are cut into cells


def test_a_csv_of_one_column_has_quotes_and_no_delimiter(tmp_path: Path):
    path = write(tmp_path / "one.csv", 'text\n"Hello, world. It is late."\n"two\nlines here"\nplain, as typed\n')
    assert texts(Table(path)) == ["Hello, world. It is late.", "two lines here", "plain, as typed"]
    path = write(tmp_path / "one.tsv", 'text\n"Hello," she said.\n')
    assert texts(Table(path)) == ['"Hello," she said.'], "as in any table with tabs, a quote is a character"


@pytest.mark.parametrize("name", ["t.tsv", "t.txt", "t.tsv.gz"])
def test_the_delimiter_is_the_one_that_most_lines_agree_on(tmp_path: Path, name: str):
    text = "one, two, three, and more\tx\n" + "".join(f"plain {i}\ty\n" for i in range(9))
    path = write(tmp_path / name, gzip.compress(text.encode()) if name.endswith("gz") else text)
    found = rows(Table(path, text="0", label="1", header=False))
    assert [row.label for row in found] == ["x", *"y" * 9]


@pytest.mark.parametrize("sign", ["\t", ",", ";", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
@pytest.mark.parametrize("header", [True, False])
def test_every_delimiter_under_every_suffix(tmp_path: Path, sign: str, name: str, header: bool):
    lines = [["label", "text"]] * header + [["x", "a one"], ["y", "b two"]]
    path = write(tmp_path / name, "\n".join(map(sign.join, lines)))
    columns = {"text": "text", "label": "label"} if header else {"text": "1", "label": "0"}
    assert [(row.label, row.texts[0]) for row in rows(Table(path, header=header, **columns))] == [
        ("x", "a one"), ("y", "b two"),
    ]  # fmt: skip


def test_the_columns_that_are_wanted_tell_the_delimiter(tmp_path: Path):
    path = write(tmp_path / "prices.csv", "text;label\nfor 1,5;2,5\nfor 3,5;4,5\n")
    assert [(row.texts[0], row.label) for row in rows(Table(path, label="label"))] == [
        ("for 1,5", "2,5"), ("for 3,5", "4,5"),
    ]  # fmt: skip


written = st.lists(
    st.lists(st.text(st.sampled_from('ab\t",;|\n '), max_size=8), min_size=2, max_size=2), min_size=1, max_size=12
)


@given(written, st.sampled_from(["\t", ",", ";", "|"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_what_a_writer_of_csv_wrote_is_read_again(table: list[list[str]], sign: str, quoting: int):
    """The cells are those that were written, unless no cell shows that quotes are more than characters."""
    out = io.StringIO()
    csv.writer(out, delimiter=sign, quoting=quoting, lineterminator="\n").writerows([["text", "label"], *table])  # type: ignore[arg-type]
    lines = out.getvalue().split("\n")[:-1]
    how = detect(lines, True, ".tsv" if sign == "\t" else ".csv", ("text", "label"))
    assert how.delimiter == sign
    assert how.quoted == (sign != "\t" or '"' in out.getvalue())


def test_tables_with_tabs_as_pandas_and_as_glue_write_them(tmp_path: Path):
    cells = ['He said "hi"', "plain", "two\nlines", "a\ttab"]
    pd.DataFrame({"text": cells, "label": list("abab")}).to_csv(tmp_path / "pandas.tsv", sep="\t", index=False)
    assert texts(Table(str(tmp_path / "pandas.tsv"), label="label")) == [" ".join(cell.split()) for cell in cells]
    glue = 'text\tlabel\n"quoted" it\ta\n5" disk\tb\n"all of it"\ta\n'
    assert texts(Table(write(tmp_path / "glue.tsv", glue), label="label")) == ['"quoted" it', '5" disk', '"all of it"']
    assert detect(['"a"\t"b"', '"x"\t1'], True, ".tsv", ()) == Dialect("\t", True), "R"


def test_a_quote_that_comes_late_is_answered_with_the_option(tmp_path: Path):
    text = "text\tlabel\n" + "plain\tx\n" * 3000 + '"a\tb"\tx\n'
    error = refusal(Table(write(tmp_path / "late.tsv", text), label="label"))
    assert "late.tsv:3002: 3 cells, and there are 2 columns" in str(error)
    assert "data.quoting=csv" in str(error.hint)
    error = refusal(Table(write(tmp_path / "ragged.csv", "text,label\na\tb,x\nc\n"), label="label"))
    assert "ragged.csv:3: 1 cell, and there are 2 columns" in str(error)
    assert "data.delimiter=tab" in str(error.hint)


def test_cells_of_any_length(tmp_path: Path):
    long = "word " * 60_000
    for name, text in (("a.csv", f"text,label\n{long},a\nshort,b\n"), ("a.tsv", f"text\tlabel\n{long}\ta\nshort\tb\n")):
        assert [len(text) for text in texts(Table(write(tmp_path / name, text), label="label"))] == [299_999, 5]


def test_headers_and_rows_as_people_type_them(tmp_path: Path):
    spaced = write(tmp_path / "spaced.csv", '\ufefftext, label\n"a, b", x\nc, "y, z"\n')
    assert [(row.texts[0], row.label) for row in rows(Table(spaced, label="label"))] == [("a, b", "x"), ("c", "y, z")]
    trailing = write(tmp_path / "trailing.csv", "text,label\na,x,\nb,y,,\n\n   \n")
    assert texts(Table(trailing, label="label")) == ["a", "b"]
    odd = write(tmp_path / "odd.csv", "内容,a=b,c.d e,\n你好,x,y,\n")
    assert [(row.texts, row.label) for row in rows(Table(odd, text="内容", label="c.d e"))] == [(["你好"], "y")]
    twice = refusal(Table(write(tmp_path / "twice.csv", "text,label,text\na,b,c\n"), label="label"))
    assert "twice.csv:1: 2 columns are called 'text'" in str(twice)
    headless = refusal(Table(write(tmp_path / "headless.csv", "fine film,1\nbad film,0\n"), label="label"))
    assert "data.header=false" in str(headless.hint)


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ('text,label\nok,1\n"never closed,1\nb,0\n', 3, "a quote that is never closed"),
        ('text,label\n"great" film,1\n', 2, "goes on behind its closing quote"),
    ],
)
def test_broken_quotes_are_named_where_the_row_begins(tmp_path: Path, text: str, where: int, words: str):
    error = refusal(Table(write(tmp_path / "t.csv", text), label="label"))
    assert f"t.csv:{where}: " in str(error)
    assert words in str(error)
    assert "data.quoting=none" in str(error.hint)


def test_the_suffix_is_part_of_the_fingerprint_because_it_has_a_say(tmp_path: Path):
    text = 'text\n"one"\n"two"\n'
    csv_file, tsv_file = (Table(write(tmp_path / f"t.{suffix}", text)) for suffix in ("csv", "tsv"))
    assert texts(csv_file) != texts(tsv_file)
    assert csv_file.fingerprint() != tsv_file.fingerprint()


# What can be a text, and what a label


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("\ud83d alone", r"has half a character \(\\ud83d"),
        (["One here.", None], "a list with null"),
        (["One here.", ["x", "y"]], "a list with a list"),
        (["One here.", 3], "a list with a number"),
        ([], "is empty"),
        (["", " "], "is empty"),
        ({"en": "text"}, "not text but an object"),
        (True, "not text but true or false"),
        ("\u3000 ", "is empty"),
    ],
)
@pytest.mark.parametrize("label", [None, "label"])
def test_what_is_no_text(tmp_path: Path, value: Any, words: str, label: str | None):
    lines = [{"text": "fine", "label": "a"}, {"text": value, "label": "b"}, {"text": "too", "label": "c"}]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=rf"t\.jsonl:2: column 'text' .*{words}"):
        rows(JsonLines(path, label=label))
    assert texts(JsonLines(path, label=label, on_bad_row="skip")) == ["fine", "too"]


NO_LABELS = [None, "", " ", "\u3000", "\u200b", float("nan"), float("inf"), -float("inf"), {"id": 1}, ["a", None],
             ["a", ["b"]], ["a", ""], "\ud83d", b"\xff", Decimal("NaN"), datetime.date(2020, 1, 1), np.float32("nan"),
             pd.NaT]  # fmt: skip


@pytest.mark.parametrize("value", NO_LABELS, ids=repr)
def test_what_is_no_label(value: Any):
    with pytest.raises(BadRow):
        label_of({"label": value}, "label")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (9007199254740993, "9007199254740993"),
        (10**30 + 1, str(10**30 + 1)),
        (1, "1"),
        (1.0, "1"),
        ("1", "1"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (True, "true"),
        (" a b ", "a b"),
        (b"bytes", "bytes"),
        (Decimal("2.00"), "2"),
        (Decimal("2.50"), "2.5"),
        (np.int64(7), "7"),
        (np.float32(0.5), "0.5"),
    ],
    ids=repr,
)
def test_the_class_that_a_label_is(value: Any, name: str):
    labels = Labels("class", None)
    labels.add(Row(["text"], label_of({"label": value}, "label")))
    assert labels.arrays()[1] == [name]
    several = Labels("classes", None)
    several.add(Row(["text"], label_of({"label": [value, value]}, "label")))
    assert several.arrays()[1] == [name]


def test_lists_of_texts_are_cut_as_they_are_and_evened_out(tmp_path: Path):
    path = write(tmp_path / "t.jsonl", json.dumps({"text": ["One\nhere. Two.", " ", "Three"]}))
    assert rows(JsonLines(path))[0].texts == ["One here. Two.", "Three"]


def test_text_in_parquet_comes_in_many_types(tmp_path: Path):
    table = pa.table(
        {
            "binary": pa.array([b"caf\xc3\xa9", b"\xff", b"fine"]),
            "named": pa.array(["x", "y", "x"]).dictionary_encode(),
            "number": pa.array([1, None, 2], pa.int64()),
            "far": pa.array([2**62, 0, 0], pa.timestamp("us")),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    path = str(tmp_path / "t.parquet")
    found = rows(Table(path, text="binary", label="named", on_bad_row="skip"))
    assert [(row.texts, row.label) for row in found] == [(["café"], "x"), (["fine"], "x")]
    assert "row 2: column 'binary' is not text but bytes that are not UTF-8" in str(
        refusal(Table(path, text="binary", label="named"))
    )
    assert [row.label for row in rows(Table(path, text="named", label="number", on_bad_row="skip"))] == [1, 2]
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], "int32").tobytes()), pa.py_buffer(b"\xffa")]
    )
    pq.write_table(pa.table({"text": bad}), tmp_path / "latin.parquet")
    assert texts(Table(str(tmp_path / "latin.parquet"), on_bad_row="skip")) == ["a"]


# Columns that are not there


def test_a_row_that_lacks_a_column_is_a_bad_row(tmp_path: Path):
    lines = ['{"text": "a", "label": "q"}', '{"text": "b"}', '{"m": null}', '{"text": "c", "label": "x"}']
    for order, first in ((lines, 2), (lines[::-1], 2), (lines[1:], 1)):
        path = write(tmp_path / "k.jsonl", "\n".join(order))
        with pytest.raises(DataError, match=rf"k\.jsonl:{first}: no column"):
            rows(JsonLines(path, label="label"))
        assert sorted(texts(JsonLines(path, label="label", on_bad_row="skip"))) == ["a", "c"][lines[0] not in order :]


def test_a_null_on_the_way_to_a_nested_column_is_an_empty_cell(tmp_path: Path):
    path = write(tmp_path / "m.jsonl", '{"m": {"text": "a"}}\n{"m": null}\n{"m": {}}\n{"m.text": "flat"}\n{"m": "x"}\n')
    assert texts(JsonLines(path, text="m.text", on_bad_row="skip")) == ["a", "flat"]
    with pytest.raises(DataError, match=r"m\.jsonl:2: column 'm\.text' is empty"):
        rows(JsonLines(path, text="m.text"))
    struct = pa.array([{"text": "a"}, None, {"text": None}, {"text": "d"}])
    pq.write_table(pa.table({"m": struct}), tmp_path / "m.parquet")
    assert texts(Table(str(tmp_path / "m.parquet"), text="m.text", on_bad_row="skip")) == ["a", "d"]


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_a_column_that_no_row_has_is_a_mistake_in_the_settings(tmp_path: Path, on_bad_row: str):
    path = write(tmp_path / "k.jsonl", '{"text": "b"}\n{"text": "a", "label": "q"}\n')
    error = refusal(JsonLines(path, label="labl", on_bad_row=on_bad_row))
    assert isinstance(error, ConfigError)
    assert str(error) == f"{path}:1: no column 'labl'; did you mean label?"
    assert error.hint == "columns: text, label; say which it is: data.label=COLUMN"


# Files


def test_hidden_files_are_left_alone_and_suffixes_may_be_in_capitals(tmp_path: Path):
    table = "text,label\n{0},x\n"
    for name in ("a.csv", "B.CSV", ".ipynb_checkpoints/a-checkpoint.csv", "._a.csv", "sub/c.Tsv"):
        write(tmp_path / name, table.format(Path(name).stem))
    write(tmp_path / "sub" / "c.Tsv", "text\tlabel\nc\tx\n")
    pq.write_table(pa.table({"text": ["d"], "label": ["x"]}), tmp_path / "D.PARQUET")
    assert sorted(texts(Table(str(tmp_path), label="label"))) == ["B", "a", "c", "d"]
    for name in ("a.jsonl", "B.JSONL", ".x/a.jsonl", "._a.jsonl"):
        write(tmp_path / name, json.dumps({"text": name}))
    assert sorted(texts(JsonLines(str(tmp_path)))) == ["B.JSONL", "a.jsonl"]


def test_parquet_is_known_by_its_first_bytes(tmp_path: Path):
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "part-00000")
    assert texts(Table(str(tmp_path / "part-00000"))) == ["one"]


def test_damaged_parquet_is_named(tmp_path: Path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": [f"text {i} " * 9 for i in range(900)]}), path, compression="zstd")
    whole = path.read_bytes()
    damages = {
        "cut": whole[: len(whole) // 2],
        "page": whole[:40] + b"\0" * 60 + whole[100:],
        "empty": b"",
        "text": b"hello",
    }
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
    path = tmp_path / f"t.{suffix}"
    lines = [("text", "label"), *ODD_CELLS, ("", "x"), ("y", ""), ("z", " ")]
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter="," if suffix == "csv" else "\t").writerows(lines)
    how: dict[str, Any] = {"label": "label", "on_bad_row": "skip"}
    table, hub = Table(str(path), **how), Hub(str(path), streaming=streaming, **how)
    assert [(row.texts[0], row.label) for row in rows(table)] == ODD_CELLS
    assert rows(hub) == rows(table), "with their places"
    with pytest.raises(DataError, match=rf"t\.{suffix}:8: column 'text' is empty"):
        rows(Hub(str(path), label="label", streaming=streaming))


# Labels as classes and as numbers


def test_names_of_classes_that_look_like_numbers():
    for names in (["②", "①"], ["²", "³"], ["--2", "1"], ["٣", "1"], ["9" * 5000, "1"]):
        labels = Labels("class", None)
        for name in names:
            labels.add(Row(["text"], name))
        assert labels.arrays()[1] == sorted(names)
    labels = Labels("class", None)
    for name in ("10", "9", "-1", "007"):
        labels.add(Row(["text"], name))
    assert labels.arrays()[1] == ["-1", "007", "9", "10"]


def test_labels_that_are_no_single_classes_say_what_to_write():
    """Numbers with fractions, and lists: what the setting is then, by the name of its task."""

    def rows(labels: list[Any]) -> list[Row]:
        return [Row(["text"], label) for label in labels]

    for ratings in ([f"{i / 100:.2f}" for i in range(90)], [i / 7 for i in range(60)], ["1e-3", *map(str, range(40))]):
        with pytest.raises(DataError, match="the labels are numbers such as") as said:
            check_repeated(rows(ratings), "class", "mine")
        assert said.value.hint == "to learn the numbers themselves: mix.tasks.mine.objective.labels=number"
        check_repeated(rows(ratings), "number", "mine")
    with pytest.raises(DataError, match="every row has a list of labels") as said:
        check_repeated(rows([["a"], ["a", "b"]]), "class", "mine")
    assert said.value.hint == "to learn several labels per row: mix.tasks.mine.objective.labels=classes"
    check_repeated(rows([["a"], ["a", "b"]]), "classes", "mine")
    stars = [f"{i / 2:.1f}" for i in range(11)]
    check_repeated(rows(stars), "class", "mine")  # half stars: few enough to be classes
    check_repeated(rows([f"{i}.{i % 3}" for i in range(30)] * 20), "class", "mine")  # numbered sections, often each
    check_repeated(rows([str(i) for i in range(200)]), "class", "mine")
    check_repeated(rows([["a"], "b"] * 40), "class", "mine")  # one by one, as on_bad_row says


def test_a_column_of_names_of_rows_is_refused_in_time():
    def numbered(count: int, classes: int) -> list[Row]:
        return [Row(["text"], str(i % classes)) for i in range(count)]

    for kind in ("class", "classes"):
        with pytest.raises(DataError, match="20,000 different labels in 20,000 rows"):
            check_repeated(numbered(20_000, 20_000), kind, "classify")  # type: ignore[arg-type]
        check_repeated(numbered(20_000, 4_000), kind, "classify")  # type: ignore[arg-type]
        check_repeated(numbered(900, 900), kind, "classify")  # type: ignore[arg-type]
    check_repeated(numbered(20_000, 20_000), "number", "rate")
    labels = Labels("class", None)
    for row in numbered(20_000, 20_000):
        labels.add(row)
    begin = time.process_time()
    assert labels.arrays()[1] == [str(i) for i in range(20_000)]
    assert time.process_time() - begin < 5, "hundredths of a second; minutes if every name asks about all names"


@pytest.mark.parametrize("label", ["one", "nan", "inf", 1e39, 10**400, ["1", "2"]])
def test_what_is_no_number(label: Any):
    with pytest.raises(DataError, match=r"t:1: label .* is not a number"):
        Labels("number", None).add(Row(["text"], label, "t:1"))


def test_rows_whose_label_cannot_be_are_left_out_where_bad_rows_are_skipped():
    labels, left_out = Labels("number", None), []
    given = [Row(["a"], "1"), Row(["b"], "high", "t:2"), Row(["c"], 2.5)]
    assert list(labelled(given, labels, True, left_out)) == [["a"], ["c"]]
    assert labels.arrays()[0].tolist() == [1.0, 2.5]
    assert left_out == ["t:2: label 'high' is not a number that can be learnt"]
    with pytest.raises(DataError, match="t:2: label 'high'"):
        list(labelled(given, Labels("number", None), False, []))
    unknown = labelled([Row(["a"], "x"), Row(["b"], "z", "t:2")], Labels("class", ["x", "y"]), True, left_out)
    assert list(unknown) == [["a"]]


def test_a_mix_that_wants_labels_names_the_columns(tmp_path: Path):
    path = write(tmp_path / "t.csv", "Review,Sentiment\na nice film,pos\na bad film,neg\nbad,neg\n")
    for alone, key in ((True, "data.label"), (False, "mix.tasks.topics.data.label")):
        with pytest.raises(ConfigError, match="Classify reads labelled rows") as caught:
            check_kind("topics", Task(Classify(), Table(path)), alone)
        assert f"data.text=Review {key}=Sentiment" in str(caught.value.hint)


def test_how_to_get_labels_is_told_in_the_names_of_the_columns(tmp_path: Path):
    films = "id,Review,Sentiment,year\n" + "".join(
        f"{i},a film that is number {i},{'pos' if i % 3 else 'neg'},19{i}\n" for i in range(10, 40)
    )
    path = write(tmp_path / "my films.csv", films)
    how = Table(path).how_to_label()
    assert how is not None
    assert "its columns: id, Review, Sentiment, year" in how
    assert f"data=table 'data.path={path}' data.text=Review data.label=Sentiment" in how
    assert Hub(path).how_to_label() == how.replace("data=table", "data=hub")
    lines = [json.dumps({"text": f"text {i}", "label": i % 2}) for i in range(9)]
    path = write(tmp_path / "t.jsonl", "\n".join(lines))
    for source, name in ((JsonLines(path), "jsonl"), (Hub(path), "hub")):
        assert f"data={name} data.path={path} data.text=text data.label=label" in str(source.how_to_label())
    there = JsonLines(path).how_to_label("mix.tasks.topics.")
    assert f"data@mix.tasks.topics.data=jsonl mix.tasks.topics.data.path={path}" in str(there)
