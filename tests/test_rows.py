"""Rows for the objectives: full rows lose and invent nothing; pairs are what they say they are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import documents, store, vocabulary

from lmctl.core.draws import Draws
from lmctl.core.errors import DataError
from lmctl.core.tasks import Material
from lmctl.objective.full_rows import FullRows
from lmctl.objective.pairs import (
    DRAWS_PER_ROW,
    IS_NEXT,
    IS_RANDOM,
    SWAPPED,
    NextSentencePairs,
    Pairs,
    SentenceOrderPairs,
    truncate,
)

VOCABULARY = vocabulary()
TEXT = store(documents(30))


def material(text, seq_len: int, **changes) -> Material:
    return Material("corpus", text, VOCABULARY, "encoder", seq_len, **changes)


def full(rows: FullRows, epoch: int) -> np.ndarray:
    """All rows of one epoch, int64 [R, L]."""
    return rows.gather(np.arange(len(rows)), np.full(len(rows), epoch), None, Draws(0, "rows"))[0]


def stream() -> list[int]:
    """The corpus as one list: every document closed by a separator."""
    flat: list[int] = []
    starts = TEXT.document_starts
    for begin, end in pairwise(starts):
        flat += [*TEXT.tokens[begin:end].tolist(), VOCABULARY.sep]
    return flat


def test_full_rows_are_the_corpus_in_order():
    rows = FullRows(TEXT, VOCABULARY, 20)
    ids = full(rows, 0)
    assert (ids[:, 0] == VOCABULARY.cls).all()
    assert (ids[:, -1] == VOCABULARY.sep).all()
    assert ids[:, 1:-1].ravel().tolist() == stream()[: len(rows) * 18]
    assert len(stream()) - len(rows) * 18 < 2 * 18


@given(st.integers(0, 40))
def test_full_rows_move_between_epochs_but_stay_contiguous(epoch):
    rows = FullRows(TEXT, VOCABULARY, 20)
    body = full(rows, epoch)[:, 1:-1].ravel().tolist()
    whole = stream()
    shift = next(k for k in range(18) if whole[k : k + len(body)] == body)
    assert 0 <= shift < 18


def test_a_corpus_shorter_than_a_row_is_one_short_row():
    tiny = store([["w1 w2", "w3"], ["w4"]])
    rows = FullRows(tiny, VOCABULARY, 64)
    assert len(rows) == 1
    assert full(rows, 3).tolist() == [[2, *(5 + np.array([1, 2, 3])).tolist(), 3, 9, 3, 3]]


def gather(pairs: Pairs, rows: np.ndarray, coins: int = 64, seed: int = 0):
    draws = Draws(seed, "pairs").uniforms(np.zeros(len(rows), dtype=int), rows, DRAWS_PER_ROW + coins)
    return pairs.gather(rows, np.zeros(len(rows), dtype=int), draws, Draws(seed, "pairs"))


def segments(batch, row: int) -> tuple[list[int], list[int]]:
    ids = batch.ids[row, : batch.lengths[row]].tolist()
    first_sep = ids.index(VOCABULARY.sep)
    return ids[1:first_sep], ids[first_sep + 1 : -1]


def test_pairs_are_contiguous_or_from_another_document():
    pairs = NextSentencePairs(material(TEXT, 200), short_share=0.0)  # room enough: nothing is truncated
    batch = gather(pairs, np.arange(len(pairs)))
    texts = [TEXT.tokens[b:e].tolist() for b, e in zip(TEXT.document_starts, TEXT.document_starts[1:], strict=False)]

    def within(piece: list[int], text: list[int]) -> bool:
        return any(text[i : i + len(piece)] == piece for i in range(len(text) - len(piece) + 1))

    for row in range(len(pairs)):
        a, b = segments(batch, row)
        own = texts[pairs.document[row]]
        assert a
        assert b
        assert within(a, own)
        if batch.labels[row] == IS_NEXT:
            assert within(a + b, own)
        else:
            assert any(within(b, text) for number, text in enumerate(texts) if number != pairs.document[row])


def test_half_of_the_pairs_are_random():
    pairs = NextSentencePairs(material(TEXT, 64), short_share=0.1)
    labels = np.concatenate([gather(pairs, np.arange(len(pairs)), seed=s).labels for s in range(40)])
    assert set(labels.tolist()) == {IS_NEXT, IS_RANDOM}
    assert labels.mean() == pytest.approx(0.5, abs=3 * 0.5 / len(labels) ** 0.5)


def test_length_says_nothing_about_the_label():
    pairs = NextSentencePairs(material(TEXT, 64), short_share=0.0)
    lengths: dict[int, list[int]] = {IS_NEXT: [], IS_RANDOM: []}
    for seed in range(60):
        batch = gather(pairs, np.arange(len(pairs)), seed=seed)
        for label, length in zip(batch.labels, batch.lengths, strict=True):
            lengths[int(label)].append(int(length))
    near, far = np.mean(lengths[IS_NEXT]), np.mean(lengths[IS_RANDOM])
    assert near == pytest.approx(far, rel=0.06)


def test_sentence_order_swaps_half_of_the_pairs_and_changes_nothing_else():
    pairs = SentenceOrderPairs(material(TEXT, 200), short_share=0.0)
    texts = [TEXT.tokens[b:e].tolist() for b, e in pairwise(TEXT.document_starts)]
    labels = []
    for seed in range(10):
        batch = gather(pairs, np.arange(len(pairs)), seed=seed)
        labels += batch.labels.tolist()
        for row in range(len(pairs)):
            a, b = segments(batch, row)
            own, both = texts[pairs.document[row]], b + a if batch.labels[row] == SWAPPED else a + b
            assert any(own[i : i + len(both)] == both for i in range(len(own)))
    assert np.mean(labels) == pytest.approx(0.5, abs=3 * 0.5 / len(labels) ** 0.5)


def test_an_augmentation_is_drawn_anew_in_every_epoch_and_for_every_row():
    def reverse_some(pieces, generator):
        return pieces[::-1] if generator.random() < 0.5 else pieces[: max(1, len(pieces) // 2)]

    rows, draws = FullRows(TEXT, VOCABULARY, 20), Draws(0, "rows")
    numbers = np.arange(len(rows))
    ids, lengths = rows.gather(numbers, np.zeros_like(numbers), reverse_some, draws)
    assert set(lengths.tolist()) == {11, 20}
    assert all((row[length:] == VOCABULARY.pad).all() for row, length in zip(ids, lengths, strict=True))
    some = numbers[3:5]
    again, _ = rows.gather(some, np.zeros_like(some), reverse_some, draws)
    assert (again == ids[3:5]).all()
    _, later = rows.gather(numbers, np.ones_like(numbers), reverse_some, draws)
    assert (later != lengths).any()


@given(st.integers(8, 60), st.integers(0, 2**32), st.floats(0, 1))
def test_rows_fit_and_are_laid_out_as_bert_wants_them(seq_len, seed, short):
    pairs = NextSentencePairs(material(TEXT, seq_len), short_share=short)
    batch = gather(pairs, np.arange(0, len(pairs), 3), coins=seq_len, seed=seed)
    assert batch.ids.shape[1] <= seq_len
    for row in range(len(batch.ids)):
        ids, kinds, length = batch.ids[row], batch.segments[row], batch.lengths[row]
        ends = np.flatnonzero(ids[:length] == VOCABULARY.sep)
        assert ids[0] == VOCABULARY.cls
        assert len(ends) == 2
        assert ends[1] == length - 1
        assert (ids[length:] == VOCABULARY.pad).all()
        assert kinds.tolist() == [0] * (ends[0] + 1) + [1] * (length - 1 - ends[0]) + [0] * (len(ids) - length)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(2, 200), st.integers(0, 2**32))
def test_truncation_leaves_what_the_papers_loop_leaves(a, b, room, seed):
    left = [a, b]
    while sum(left) > room:  # truncate_seq_pair of the paper's code
        left[0 if left[0] > left[1] else 1] -= 1
    coins = np.random.default_rng(seed).random((1, 64)) < 0.5
    begin, end = truncate(np.array([[10], [1000]]), np.array([[10 + a], [1000 + b]]), np.array([room]), coins)
    assert (end - begin).ravel().tolist() == left
    assert 10 <= begin[0, 0] <= end[0, 0] <= 10 + a
    assert 1000 <= begin[1, 0] <= end[1, 0] <= 1000 + b


def test_truncation_takes_from_both_ends():
    coins = np.random.default_rng(0).random((500, 64)) < 0.5
    begin, _ = truncate(np.zeros((2, 500), int), np.full((2, 500), 40), np.full(500, 40), coins)
    assert begin.mean() == pytest.approx(10, abs=0.5)  # 20 tokens go from each segment, half of them in front


def test_one_document_cannot_make_pairs():
    with pytest.raises(DataError, match="needs at least two documents"):
        NextSentencePairs(material(store([["w1 w2", "w3"]]), 32), 0.1)


def test_documents_of_one_sentence_cannot_make_pairs():
    with pytest.raises(DataError, match="no document has two"):
        NextSentencePairs(material(store([["w1 w2"], ["w3"]]), 32), 0.1)


@given(st.integers(8, 80), st.integers(1, 60), st.integers(0, 5))
def test_a_full_row_is_never_longer_than_asked(seq_len, words, epoch):
    small = store([["w1 " * words]])
    rows = FullRows(small, VOCABULARY, seq_len)
    ids = full(rows, epoch)
    assert ids.shape[1] == min(seq_len, words + 3)
    assert len(rows) == max(1, (words + 1 - (seq_len - 2) + 1) // (seq_len - 2))
