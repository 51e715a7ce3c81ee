"""Labels: which values of a cell are one, names of classes, numbers, and columns that cannot be labels."""

from __future__ import annotations

import datetime
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from row_files import write

from lmctl.core.batch import Row
from lmctl.core.errors import ConfigError, DataError
from lmctl.data.hub import Hub
from lmctl.data.jsonl import JsonLines
from lmctl.data.records import BadRow, label_of
from lmctl.data.table import Table
from lmctl.mix.mix import Task
from lmctl.objective.classify import Classify
from lmctl.train.class_labels import Labels, check_repeated, labelled
from lmctl.train.prepare import check_kind


def classes(*labels: Any, kind: Any = "class") -> Any:
    """The names of the classes of rows with these labels."""
    found = Labels(kind, None)
    for label in labels:
        found.add(Row(["text"], label))
    return found.arrays()[1]


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
    assert classes(label_of({"label": value}, "label")) == [name]
    assert classes(label_of({"label": [value, value]}, "label"), kind="classes") == [name]


def test_names_of_classes_that_look_like_numbers():
    for names in (["②", "①"], ["²", "³"], ["--2", "1"], ["٣", "1"], ["9" * 5000, "1"]):
        assert classes(*names) == sorted(names)
    assert classes("10", "9", "-1", "007") == ["-1", "007", "9", "10"]


def rows(labels: list[Any]) -> list[Row]:
    return [Row(["text"], label) for label in labels]


def test_labels_that_are_no_single_classes_say_what_to_write():
    """Numbers with fractions, and lists: what the setting is then, by the name of its task."""
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
    def numbered(count: int, different: int) -> list[Row]:
        return rows([str(i % different) for i in range(count)])

    for kind in ("class", "classes"):
        with pytest.raises(DataError, match="20,000 different labels in 20,000 rows"):
            check_repeated(numbered(20_000, 20_000), kind, "classify")  # type: ignore[arg-type]
        check_repeated(numbered(20_000, 4_000), kind, "classify")  # type: ignore[arg-type]
        check_repeated(numbered(900, 900), kind, "classify")  # type: ignore[arg-type]
    check_repeated(numbered(20_000, 20_000), "number", "rate")
    begin = time.process_time()
    assert classes(*map(str, range(20_000))) == [str(i) for i in range(20_000)]
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
