"""`lmctl predict` on files and pipes of every kind: rows stay in line with the input, and bad ones keep their place."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from predictions import NAMES, TEXTS, lines_of, predicted
from row_files import write_rows
from use_models import records, said

from lmctl.core.errors import ConfigError, DataError


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    """A file of rows; in one of lines they are pairs."""
    file = folder / f"rows.{kind}"
    if kind == "txt":
        file.write_text(lines_of(["\t".join(row[key] for key in ("text", "text_b")) for row in rows]))
    else:
        write_rows(file, rows)
    return file


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl", "txt"])
def test_every_kind_of_file_gives_the_same_answers(model, tmp_path, kind):
    rows = [{"n": str(n), "text": text, "text_b": TEXTS[-n]} for n, text in enumerate(TEXTS)]
    found = predicted(model, file=str(write(tmp_path, kind, rows)))
    typed = lines_of([f"{row['text']}\t{row['text_b']}" for row in rows])
    piped = predicted(model, typed)
    assert [row["probabilities"] for row in found] == [pytest.approx(row["probabilities"]) for row in piped]
    expected = rows if kind != "txt" else [{key: row[key] for key in ("text", "text_b")} for row in rows]
    assert [row["input"] for row in found] == expected


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "txt"])
def test_standard_input_is_read_as_files_are(model, tmp_path, kind):
    rows = [{"text": 'a , "b" c', "text_b": "the cat"}, {"text": "red dog", "text_b": "a"}]
    file = write(tmp_path, kind, rows)
    piped = predicted(model, file.read_text(), file="-")
    assert piped == predicted(model, file=str(file))
    if kind in ("csv", "tsv"):  # a header is told by the run's column in it
        assert piped == predicted(model, file.read_text(), file="-", input="table")
    if kind == "csv":
        assert len(predicted(model, file.read_text(), file="-", input="lines")) == len(piped) + 1
    assert len({row["probability"] for row in piped}) == 2


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize(("name", "text"), [
    ("rows.csv", "text,n\nthe cat,1\na dog,2\n"),
    ("rows.jsonl", '{"text": "the cat"}\n{"text": "a dog"}\n'),
])  # fmt: skip
def test_a_table_has_the_same_lines_on_standard_input_as_in_a_file(model, tmp_path, name, text, end):
    """Some programs end lines with \\r alone."""
    file = tmp_path / name
    file.write_bytes(text.replace("\n", end).encode())
    kind = {"rows.csv": "table"}.get(name, "jsonl")
    found = predicted(model, file.read_bytes().decode(), file="-", input=kind)
    assert [row["texts"] for row in found] == [["the cat"], ["a dog"]]
    assert found == predicted(model, file=str(file))


def test_columns_are_those_of_the_run_unless_others_are_named(model, tmp_path):
    file = write(tmp_path, "csv", [{"text": "the cat", "other": "a dog", "label": "x"}])
    [plain], [other] = predicted(model, file=str(file)), predicted(model, file=str(file), text="other")
    assert (plain["texts"], other["texts"]) == (["the cat"], ["a dog"])
    [pair] = predicted(model, file=str(file), text_b="other")
    assert pair["texts"] == ["the cat", "a dog"]
    with pytest.raises(
        ConfigError, match=r"rows\.csv:2: no column 'texts'.*did you mean 'text'|no column 'texts'"
    ) as bad:
        predicted(model, file=str(file), text="texts")
    assert "text=COLUMN says which" in str(bad.value.hint)


def test_an_empty_line_has_an_empty_answer(model):
    typed = "\nthe cat\n\n  \na dog\n"
    alone = [predicted(model, f"{text}\n")[0] for text in ("the cat", "a dog")]
    found = predicted(model, typed)
    assert [row["label"] for row in found] == [None, alone[0]["label"], None, None, alone[1]["label"]]
    assert [row["row"] for row in found] == [1, 2, 3, 4, 5]
    assert len(said("predict", model, typed).splitlines()) == 5
    assert said("predict", model, typed).splitlines()[2] == "\t\t"


BAD = {
    "csv": ('text,n\nthe cat,1\n"",2\na dog,3,3\nred dog,4\n', 3, "column 'text' is empty"),
    "jsonl": ('{"text": "the cat"}\n{"text": null}\n[]\n{"text": "red dog"}\n', 2, "column 'text' is empty"),
    "txt": ("the cat\ta\nno pair\na\tb\tc\nred dog\ta\n", 2, "not a pair: 0 tabs"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("shown", ["text", "json", "csv", "tsv"])
def test_bad_rows_end_it_or_keep_their_place(model, tmp_path, kind, shown, capsys):
    text, line, message = BAD[kind]
    (tmp_path / f"rows.{kind}").write_text(text)
    settings = {"file": str(tmp_path / f"rows.{kind}"), "format": shown}
    with pytest.raises(DataError, match=f"rows.{kind}:{line}: {message}"):
        said("predict", model, **settings)
    printed = said("predict", model, **settings, on_bad_row="skip")
    if shown == "json":
        labels = [row["label"] for row in records(printed)]
    elif shown == "text":
        labels = [row.split("\t")[0] for row in printed.splitlines()]
    else:
        read = csv.DictReader(io.StringIO(printed), delimiter="\t" if shown == "tsv" else ",")
        labels = [row["label"] for row in read]
    assert [bool(label) for label in labels] == [True, False, False, True]
    assert f"4 rows, 2 of them bad and without an answer; the first: {tmp_path}/rows.{kind}:{line}: {message}" in (
        " ".join(capsys.readouterr().err.split())
    )


def test_text_csv_and_json_say_the_same(model, tmp_path):
    rows = [
        {"text": 'the "cat", sits', "label": "gold", "probability": "x"},
        {"text": "a", "label": "", "probability": "y"},
    ]
    file = str(write(tmp_path, "csv", rows))
    whole = predicted(model, file=file)
    table = list(csv.DictReader(io.StringIO(said("predict", model, file=file, format="csv", probabilities=True))))
    plain = [line.split("\t") for line in said("predict", model, file=file, probabilities=True).splitlines()]
    for given, one, cells, words in zip(rows, whole, table, plain, strict=True):
        assert {name: cells[name] for name in given} == given  # gold labels are not written over
        assert (cells["predicted_label"], float(cells["predicted_probability"])) == (one["label"], one["probability"])
        shares = [float(cells[f"probability_{name}"]) for name in NAMES]
        assert shares == list(one["probabilities"].values())
        assert words == [one["label"], f"{one['probability']:.4f}", *(f"{s:.4f}" for s in shares), given["text"]]


def test_csv_of_several_labels_is_read_back_as_labels(several, tmp_path):
    texts = [row["texts"][0] for row in predicted(several, lines_of(TEXTS)) if row["label"]]
    assert len(texts) > 2
    file = write(tmp_path, "csv", [{"text": text} for text in texts])
    said("predict", several, file=str(file), format="csv", out=str(tmp_path / "labelled.csv"))
    data = {"_target_": "lmctl.data.table.Table", "path": str(tmp_path / "labelled.csv"), "label": "label"}
    said("eval", several, suite="classification", data=data, split="all", out=str(tmp_path / "eval.json"))
    assert json.loads((tmp_path / "eval.json").read_text())["classification"]["accuracy"] == 1.0


@pytest.mark.parametrize("first", ['{"text": "a"', '{"text": "a", }', "{}", '{ "x": 1}'])
def test_a_first_line_that_is_broken_json_is_not_taken_for_text(model, first):
    with pytest.raises((DataError, ConfigError), match="standard input:1: "):
        predicted(model, first + '\n{"text": "b"}\n')
    assert predicted(model, "{ a b }\n")[0]["texts"] == ["{ a b }"]
    assert predicted(model, first + "\n", input="lines")[0]["texts"] == [first]


def test_half_a_surrogate_pair_is_a_bad_row_and_can_be_shown(model, capsys):
    """In a column that is read it is no text; in another one it is replaced, so that the line is valid JSON."""
    typed = '{"text": "\\ud83d", "x": 1}\n{"text": "a", "x": "\\ud83d"}\n'
    with pytest.raises(DataError, match=r"standard input:1: .*surrogate"):
        predicted(model, typed)
    first, second = predicted(model, typed, on_bad_row="skip")
    assert (first["label"], second["input"]["x"]) == (None, "\ufffd")
    assert "standard input:1" in str(first["error"])
    capsys.readouterr()


def test_other_keys_in_later_rows_are_not_lost(model, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a", "x": [1, null]}\n{"text": "b", "y": 1}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:2: has a column 'y' that the first row has not"):
        said("predict", model, file=str(file), format="csv")
    assert [row["input"] for row in predicted(model, file=str(file))] == [
        {"text": "a", "x": [1, None]},
        {"text": "b", "y": 1},
    ]


def test_a_file_is_written_whole_or_not_at_all(model, tmp_path):
    out, file = tmp_path / "out.csv", tmp_path / "rows.jsonl"
    out.write_text("before")
    file.write_text('{"text": "a"}\n' * 200 + '{"text": 5}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:201: column 'text' is not text"):
        said("predict", model, file=str(file), batch=2, format="csv", out=str(out))
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "rows.jsonl"]
    assert said("predict", model, file=str(file), out=str(out), on_bad_row="skip") == ""
    assert len(out.read_text().splitlines()) == 201
