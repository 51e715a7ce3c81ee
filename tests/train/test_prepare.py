"""Preparing data: what is refused before a tokenizer is trained, and what is said of one that is there."""

from __future__ import annotations

import pytest
from use_models import Rows

from lmctl.core.batch import Row
from lmctl.core.errors import DataError
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
