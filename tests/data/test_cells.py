"""Parsing tables (csv, tsv, jsonl, parquet): delimiters and quotes, which cells are text, messages for bad rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_files import refusal, rows, texts, write

from lmctl.core.errors import ConfigError, DataError
from lmctl.data.dialect import Dialect, detect
from lmctl.data.jsonl import JsonLines
from lmctl.data.table import Table

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
        ("", "is empty"),
        (None, "is empty"),
        (7, "not text but a number"),
    ],
)
@pytest.mark.parametrize("label", [None, "label"])
def test_what_is_no_text(tmp_path: Path, value: Any, words: str, label: str | None):
    lines = [{"text": "fine", "label": "a"}, {"text": value, "label": "b"}, {"text": "too", "label": "c"}]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=rf"t\.jsonl:2: column 'text' .*{words}"):
        rows(JsonLines(path, label=label))
    assert texts(JsonLines(path, label=label, on_bad_row="skip")) == ["fine", "too"]


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
