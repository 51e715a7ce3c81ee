"""Vocabularies of teacher and student: the same, under other numbers, one a part of the other, or refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmctl.core.errors import ConfigError
from lmctl.core.vocabulary import NO_PIECE
from lmctl.distill.shared_vocabulary import match, shared_pieces

PIECES = ["[PAD]", "[UNK]", "the", "cat", "##s", "sat"]


def numbered(pieces) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(pieces)}


def test_the_same_vocabulary_needs_no_translation():
    found = match(numbered(PIECES), numbered(PIECES), "t")
    assert found.same
    teacher, student = torch.randn(3, 8), torch.randn(3, 6)  # the teacher's embeddings are padded
    ours, theirs = found.compared(teacher, student)
    assert torch.equal(ours, teacher[:, :6])
    assert theirs.data_ptr() == student.data_ptr()


@pytest.mark.parametrize(
    ("teacher", "student", "relation"),
    [
        (PIECES, PIECES[::-1], "permutation"),
        (PIECES, PIECES[1:5], "student is a part"),
        ([*PIECES, "extra"], PIECES, "student is a part"),
        (PIECES[:4], PIECES, "teacher is a part"),
        (PIECES[3:0:-1], PIECES, "teacher is a part"),
    ],
)
def test_distributions_are_those_over_shared_pieces_renormalised(teacher, student, relation):
    """Against the slow way: a dictionary of probabilities by string, divided by the sum of the shared ones."""
    found = match(numbered(teacher), numbered(student), "t", unknown="[UNK]")
    assert found.relation == relation
    logits = torch.randn(2, len(teacher)), torch.randn(2, len(student))
    compared = found.compared(*logits)
    shared = [piece for piece in student if piece in teacher]
    for pieces, given_, got in zip((teacher, student), logits, compared, strict=True):
        assert got.shape == (2, len(shared))
        for row in range(2):
            by_name = dict(zip(pieces, given_[row].softmax(-1).tolist(), strict=True))
            total = sum(by_name[piece] for piece in shared)
            wanted = torch.tensor([by_name[piece] / total for piece in shared])
            torch.testing.assert_close(got[row].softmax(-1), wanted)


def test_the_teacher_reads_the_students_text_by_its_own_numbers():
    teacher, student = numbered(PIECES[:4]), numbered(PIECES[::-1])
    found = match(teacher, student, "t", unknown="[UNK]")
    ids = torch.tensor([[student["the"], student["sat"], student["[PAD]"]]])
    assert found.read(ids, teacher["[UNK]"]).tolist() == [[teacher["the"], teacher["[UNK]"], teacher["[PAD]"]]]


@given(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=12, unique=True), st.randoms())
def test_maps_lead_there_and_back(pieces, random):
    student = random.sample(pieces, random.randint(1, len(pieces)))
    found = shared_pieces(numbered(pieces), numbered(student))
    assert found is not None
    assert found.to_student.dtype == found.to_teacher.dtype == np.int64
    for number, piece in enumerate(student):
        assert pieces[found.to_teacher[number]] == piece
        assert found.to_student[found.to_teacher[number]] == number
    assert (found.to_student != NO_PIECE).sum() == len(student)
    assert found.same == (pieces == student)


def test_gaps_in_the_numbers_are_no_pieces():
    found = shared_pieces({"a": 0, "b": 5}, {"b": 0, "a": 3})
    assert found.to_student.tolist() == [3, NO_PIECE, NO_PIECE, NO_PIECE, NO_PIECE, 0]
    assert found.of_student.tolist() == [0, 3]
    assert found.of_teacher.tolist() == [5, 0]


def test_vocabularies_that_only_overlap_are_refused_with_what_still_works():
    with pytest.raises(ConfigError) as caught:
        match(numbered(["a", "b", "c"]), numbered(["a", "b", "d"]), "runs/big", "a")
    assert "1 of the 3 pieces of teacher=runs/big" in str(caught.value)
    assert "'d'" in str(caught.value)
    assert "tokenizer.path=runs/big" in str(caught.value.hint)
    assert "distill=hidden or distill=sequence" in str(caught.value.hint)


def test_a_smaller_teacher_must_be_able_to_read_what_it_does_not_know():
    with pytest.raises(ConfigError, match="no piece 'c' of the student's, and none for the unknown"):
        match(numbered("ab"), numbered("abc"), "t")
