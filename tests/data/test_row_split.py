"""Held-out rows: split by content, in proportion per class, and no text of theirs in training."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_files import halves, write, write_rows

from lmctl.core.batch import Row
from lmctl.data.jsonl import JsonLines
from lmctl.data.parallel import Parallel
from lmctl.data.row_split import partition
from lmctl.data.table import Table


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


SOURCES = {"jsonl": JsonLines, "tsv": Table, "csv": Table}


def test_validation_text_is_not_trained_on(tmp_path: Path):
    train = write(tmp_path / "train.tsv", "label\ttext\n" + "".join(f"{i % 2}\trow {i}\n" for i in range(10)))
    valid = write(tmp_path / "valid.tsv", "label\ttext\n0\trow  3\n1\tnew\n")
    source = Table(train, label="label", valid_path=valid)
    assert "row 3" not in {row.texts[0] for row in source.rows("train")}
    assert len(list(source.rows("train"))) == 9
    assert [row.texts[0] for row in source.rows("valid")] == ["row 3", "new"]
    assert "1 dropped" in source.describe()


@pytest.mark.parametrize("kind", ["jsonl", "tsv"])
def test_labelled_twins_and_pairs_with_one_first_text_are_on_one_side(tmp_path: Path, kind: str):
    texts = [f"{'Text' if n % 2 else 'TEXT'} number {n // 10}" for n in range(600)]
    rows = [{"text": text, "b": f"second {n}", "label": "ab"[n % 3 % 2]} for n, text in enumerate(texts)]
    source = SOURCES[kind](write_rows(tmp_path / f"rows.{kind}", rows), text_b="b", label="label")
    train, valid = halves(source)
    assert len(train) + len(valid) == 600
    assert valid
    assert not {row.texts[0].lower() for row in train} & {row.texts[0].lower() for row in valid}


def test_given_validation_pairs_drop_only_the_same_pairs(tmp_path: Path):
    train = write(tmp_path / "train.tsv", "text\tb\tlabel\n" + "".join(f"one\tsecond {n}\ta\n" for n in range(9)))
    valid = write(tmp_path / "valid.tsv", "text\tb\tlabel\none\tsecond 4\ta\none\tnew\ta\n")
    rows, _ = halves(Table(train, text_b="b", label="label", valid_path=valid))
    assert [row.texts[1] for row in rows] == [f"second {n}" for n in range(9) if n != 4]


@pytest.mark.parametrize("kind", ["tsv", "jsonl"])
def test_a_source_text_with_several_translations_is_on_one_side(tmp_path: Path, kind: str):
    rows = [{"a": f"source {i}", "b": f"Ziel {i} {k}"} for i in range(40) for k in range(3)]
    source = SOURCES[kind](write_rows(tmp_path / f"t.{kind}", rows), source="a", target="b", valid_share=0.3)
    train, valid = ({row.texts[0] for row in half} for half in halves(source))
    assert len(valid) == 12
    assert not train & valid


@pytest.mark.parametrize("kind", ["parallel", "table"])
def test_neither_sources_nor_targets_of_held_out_rows_are_trained_on(tmp_path: Path, kind: str):
    """Each source with two translations, and each translation of two sources."""
    pairs = [(f"source {n % 150}", f"target {(n * 7) % 200}") for n in range(300)]
    text = "\n".join("\t".join(pair) for pair in pairs)
    if kind == "parallel":
        source = Parallel(path=write(tmp_path / "a.tsv", text))
    else:
        source = Table(write(tmp_path / "a.tsv", f"s\tt\n{text}"), source="s", target="t")
    train, valid = halves(source)
    for side in (0, 1):
        assert not {row.texts[side] for row in train} & {row.texts[side] for row in valid}
    assert len(train) > 200
    lost = 300 - len(train) - len(valid)
    assert lost
    assert f"{len(train)} rows and {len(valid)} held out, {lost} dropped" in source.describe()


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_documents_of_columns_are_told_apart_by_all_they_say(tmp_path: Path, kind: str):
    texts = [f"The same beginning. And the same again. Text {n} ends differently." for n in range(400)]
    rows = [{"n": n, "text": text} for n, text in enumerate([*texts, *texts[:40]])]
    source = SOURCES[kind](write_rows(tmp_path / f"a.{kind}", rows))
    train, valid = halves(source)
    assert 16 <= len(valid) <= 25
    ends = [row.texts[-1] for row in train + valid]
    assert sorted(ends) == sorted(f"Text {n} ends differently." for n in range(400))
    assert "40 duplicates dropped" in source.describe()
