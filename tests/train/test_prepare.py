"""Preparing data: what is refused before a tokenizer is trained, and what is said of one that is there."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from use_models import Rows

from lmctl.core import progress
from lmctl.core.batch import Row
from lmctl.core.errors import DataError
from lmctl.data import kept_rows, reading
from lmctl.data.text import TextFiles
from lmctl.mix.mix import Mix, Task
from lmctl.objective.base import Objective
from lmctl.objective.classify import Classify
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.objective.mlm_sop import MaskedLMAndSentenceOrder
from lmctl.tokenizer.char import Char
from lmctl.tokenizer.pretrained import Pretrained
from lmctl.train.class_labels import Labels
from lmctl.train.prepare import prepare


class Untrained(Char):
    """A tokenizer that must not be trained."""

    def obtain(self, sentences):
        raise AssertionError("too late: the text would have been read and learnt from")


def mix(objective: Objective, rows: list[list[str]], yields: str = "documents") -> Mix:
    """The same rows on both sides."""
    return Mix({"task": Task(objective=objective, data=Rows(yields, rows, rows))})


@pytest.mark.parametrize("objective", [MaskedLMAndNextSentence(), MaskedLMAndSentenceOrder()])
def test_that_there_are_no_pairs_is_said_before_a_tokenizer_is_trained(tmp_path, objective):
    single = [[f"only sentence {n}"] for n in range(20)]
    with pytest.raises(DataError, match="pairs of segments need documents of two sentences"):
        prepare(Untrained(), mix(objective, single), str(tmp_path), lambda line: None)
    with pytest.raises(AssertionError, match="too late"):
        prepare(Untrained(), mix(objective, [*single, ["one", "two"]]), str(tmp_path), lambda line: None)
    with pytest.raises(AssertionError, match="too late"):
        prepare(Untrained(), mix(MaskedLM(), single), str(tmp_path), lambda line: None)


def test_labels_that_cannot_be_learnt_are_said_before_a_tokenizer_is_trained(tmp_path):
    for labels, words in ((["same"] * 3000, "two different labels.* only 'same'"), (range(3000), "3,000 different")):
        rows = [[f"text {n}", str(label)] for n, label in enumerate(labels)]
        with pytest.raises(DataError, match=words):
            prepare(Untrained(), mix(Classify(), rows, "labelled"), str(tmp_path), lambda line: None)


def test_many_labels_of_which_several_may_hold_are_refused_before_memory_is_full():
    labels = Labels("classes", None)
    for n in range(100_000):
        labels.add(Row(["text"], [f"label {n}", f"label {n // 2}"], "somewhere"))
    with pytest.raises(DataError, match="100,000 different labels and 100,000 rows"):
        labels.arrays()


def test_a_tokenizer_that_is_there_is_not_said_to_be_built(tmp_path):
    rows = [["one sentence", "and another"]]
    Char().obtain(iter(rows[0])).save_pretrained(tmp_path / "model")
    said: list[str] = []
    prepare(Pretrained(str(tmp_path / "model")), mix(MaskedLM(), rows), str(tmp_path / "cache"), said.append)
    (line,) = [line for line in said if line.startswith("tokenizer")]
    assert line.endswith(f"pieces, those of {tmp_path / 'model'}")


def corpus(folder: Path, documents: int = 40) -> Path:
    """A text of as many documents as lines in all, some of them twice."""
    lines = [f'Number {n % (documents - 3)} is a line with café, and a "quote".' for n in range(documents)]
    path = folder / "text.txt"
    path.write_text("\n\n".join(f"{line}\nIt goes on." for line in lines), encoding="utf-8")
    return path


def stores(folder: Path, monkeypatch: pytest.MonkeyPatch, keep: bool) -> tuple[dict[str, list[int]], int]:
    """What is prepared of a corpus, and how often its file was read from the beginning to the end."""
    path, readings = corpus(folder), []
    decoded = reading._decoded

    def counted(blocks: Any, name: str, file: Any) -> Iterator[str]:
        yield from decoded(blocks, name, file)
        readings.append(name)

    monkeypatch.setattr(reading, "_decoded", counted)
    if not keep:  # no room
        monkeypatch.setattr(kept_rows.shutil, "disk_usage", lambda folder: Namespace(free=0))
    task = Task(objective=MaskedLM(), data=TextFiles(str(path), valid_share=0.2))
    found = prepare(Char(), Mix({"task": task}), str(folder / f"cache {keep}"), lambda line: None)
    pieces = {split: getattr(found.corpora["task"], split).tokens.tolist() for split in ("train", "valid")}
    return pieces, len(readings)


def test_a_text_is_parsed_once(tmp_path, monkeypatch):
    with monkeypatch.context() as changed:
        pieces, readings = stores(tmp_path, changed, keep=True)
    assert readings == 2  # once to detect how it is laid out, from its beginning, which is all of a short text
    with monkeypatch.context() as changed:
        again, readings = stores(tmp_path, changed, keep=False)
    assert readings == 5  # once more for the tokenizer, and for each split
    assert pieces == again
    assert not list((tmp_path / "cache True").glob("*.tmp*"))


def test_progress_goes_on_where_rows_were_kept(tmp_path):
    size = corpus(tmp_path).stat().st_size
    read = kept_rows.kept(TextFiles(str(tmp_path / "text.txt"))._corpus.read, list, list)
    with kept_rows.keeping(tmp_path):
        done = []
        for _ in range(2):
            with progress.stage("reading", size) as stage:
                documents = list(read())
                done.append((stage.done, documents))
    assert done[0] == done[1]
    assert done[0][0] == size


def test_a_text_that_changes_between_two_readings_is_refused(tmp_path):
    source = TextFiles(str(corpus(tmp_path)))
    before = len(list(source.rows("train"))) + len(list(source.rows("valid")))
    corpus(tmp_path, 41)
    with pytest.raises(DataError, match="changed while it was read"):
        list(source.rows("train"))
    assert before == 37
