"""Rows of objectives: packing loses nothing, sentence pairs do not leak their labels, truncation as in BERT."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from small import documents, store, vocabulary

from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import DataError
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Each
from lmctl.objective.base import Material
from lmctl.objective.packed_rows import FullRows
from lmctl.objective.pairs import DRAWS_PER_ROW, NextSentencePairs, Pairs, SentenceOrderPairs
from lmctl.objective.segments import cut, shortened

VOCABULARY = vocabulary()
IS_NEXT, IS_RANDOM = 0, 1
"""As transformers documents `next_sentence_label`: with 1 "sequence B is a random sequence"."""
SWAPPED = 1
"""As transformers documents AlbertForPreTraining's `sentence_order_label`."""
TEXT = store(documents(30))


def material(text, seq_len: int, **changes) -> Material:
    return Material("corpus", text, VOCABULARY, "encoder", seq_len, **changes)


def full(rows: FullRows, epoch: int) -> np.ndarray:
    """int64 [R, L]: all rows of one epoch."""
    return rows.gather(np.arange(len(rows)), np.full(len(rows), epoch), None, CounterRng(0, "rows"))[0]


def stream() -> list[int]:
    """The corpus as one list: every document closed by a separator."""
    texts = [TEXT.tokens[begin:end].tolist() for begin, end in pairwise(TEXT.document_starts)]
    return [piece for text in texts for piece in (*text, VOCABULARY.sep)]


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
    rows = FullRows(store([["w1 w2", "w3"], ["w4"]]), VOCABULARY, 64)
    assert len(rows) == 1
    assert full(rows, 3).tolist() == [[2, *(5 + np.array([1, 2, 3])).tolist(), 3, 9, 3, 3]]


def gather(pairs: Pairs, rows: np.ndarray, coins: int = 64, seed: int = 0):
    draws = CounterRng(seed, "pairs").uniforms(np.zeros(len(rows), dtype=int), rows, DRAWS_PER_ROW + coins)
    return pairs.gather(rows, np.zeros(len(rows), dtype=int), draws, CounterRng(seed, "pairs"))


def segments(batch, row: int) -> tuple[list[int], list[int]]:
    ids = batch.ids[row, : batch.lengths[row]].tolist()
    first_sep = ids.index(VOCABULARY.sep)
    return ids[1:first_sep], ids[first_sep + 1 : -1]


def test_pairs_are_contiguous_or_from_another_document():
    pairs = NextSentencePairs(material(TEXT, 200), short_share=0.0)  # room enough: nothing is truncated
    batch = gather(pairs, np.arange(len(pairs)))
    texts = [TEXT.tokens[begin:end].tolist() for begin, end in pairwise(TEXT.document_starts)]

    def within(piece: list[int], text: list[int]) -> bool:
        return any(text[i : i + len(piece)] == piece for i in range(len(text) - len(piece) + 1))

    for row in range(len(pairs)):
        a, b = segments(batch, row)
        own = texts[pairs.document[row]]
        assert min(len(a), len(b)) > 0
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


END = 5
"""A piece that every sentence of `many` ends with, and no other place has: what a full stop shows."""


def many(count: int, sentences: tuple[int, int], longest: int, seed: int = 0, heading: bool = False) -> TokenStore:
    """Documents of sentences of 2 to `longest` pieces; with `heading` the first sentence of each has 2."""
    rng, lengths = np.random.default_rng(seed), []
    for _ in range(count):
        own = rng.integers(2, longest + 1, rng.integers(*sentences, endpoint=True))
        own[0] = 2 if heading else own[0]
        lengths.append(own)
    starts, ends = np.append(0, np.concatenate(lengths).cumsum()), list(map(len, lengths))
    tokens = rng.integers(END + 1, VOCABULARY.size, starts[-1]).astype(np.uint16)
    tokens[starts[1:] - 1] = END
    return TokenStore(tokens, starts, np.append(0, np.cumsum(ends)), np.bincount(tokens, minlength=85), 0)


def seen_without_reading(batch, row: int) -> list[float]:
    """Lengths, and where sentences end: first, last, how many, whether the segment itself ends there."""
    seen: list[float] = []
    for piece in segments(batch, row):
        ends = np.flatnonzero(np.array(piece) == END)
        seen += [len(piece), len(ends), *((ends[0], len(piece) - 1 - ends[-1]) if len(ends) else (-1, -1))]
    return seen


LEAKS = {
    "long": (many(120, (60, 200), 40), 64),
    "short": (many(4000, (2, 8), 30), 64),
    "pairs": (many(5000, (2, 2), 30), 48),
    "headings": (many(4000, (2, 8), 30, heading=True), 64),
    "characters": (many(320, (20, 60), 90), 128),
}
"""Text and seq_len; Chinese by characters has long sentences."""


def tree() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=8, min_samples_leaf=50, random_state=0)


@pytest.mark.parametrize("text", LEAKS)
@pytest.mark.parametrize("kind", [NextSentencePairs, SentenceOrderPairs])
def test_a_classifier_that_cannot_read_guesses(kind, text: str):
    """Boosted trees on chunks of other documents than those they learnt from; 62 % when foreign text was cut to its
    document's end, 50 % is chance."""
    corpus, seq_len = LEAKS[text]
    pairs = kind(material(corpus, seq_len), short_share=0.1)
    batch = gather(pairs, np.arange(len(pairs)), coins=seq_len)
    features = np.array([seen_without_reading(batch, row) for row in range(len(pairs))])
    if text == "headings" and kind is SentenceOrderPairs:
        features = features[:, [0, 4]]  # where the heading ends is for readers
    other = pairs.document >= np.median(pairs.document)
    assert min(other.sum(), (~other).sum()) > 2000
    right = tree().fit(features[~other], batch.labels[~other]).score(features[other], batch.labels[other])
    assert right < 0.5 + 3 * 0.5 / other.sum() ** 0.5


def test_the_same_classifier_sees_labels_that_lengths_do_tell():
    """What the test above would say of pairs whose second segment ends where its document ends."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    whole, cut_off = rng.integers(2, 60, 4000), np.minimum(*rng.integers(2, 60, (2, 4000)))
    lengths = np.where(labels == IS_NEXT, whole, cut_off)[:, None]
    assert tree().fit(lengths[:2000], labels[:2000]).score(lengths[2000:], labels[2000:]) > 0.55


def test_a_second_segment_by_itself_comes_as_often_under_either_label():
    """Which sentences B is made of: drawn from another document as often as they are somebody's own rest."""
    corpus = many(40, (6, 12), 6)
    pairs = NextSentencePairs(material(corpus, 300), short_share=0.0)
    begins: dict[int, list[int]] = {IS_NEXT: [], IS_RANDOM: []}
    numbers = np.arange(len(pairs))
    for seed in range(600):
        draws = CounterRng(seed, "pairs").uniforms(np.zeros_like(numbers), numbers, 4).T
        found = pairs.segments(numbers, draws)
        for label in begins:
            places = corpus.sentences.searchsorted(found.begin[1, found.labels == label])
            first = corpus.documents[corpus.documents.searchsorted(places, side="right") - 1]
            begins[label] += (places - first).tolist()
    near, far = (np.bincount(begins[label], minlength=13) / len(begins[label]) for label in begins)
    assert near[0] == far[0] == 0, "no document's first sentence follows anything"
    assert np.abs(near - far).max() < 4 * 0.5 / len(begins[IS_NEXT]) ** 0.5 + 0.01


def test_documents_of_one_sentence_still_serve_as_another_document():
    pairs = NextSentencePairs(material(store([["w1 w2", "w3 w4"], ["w5 w6 w7"]]), 32), 0.0)
    labels = set()
    for seed in range(20):
        batch = gather(pairs, np.arange(1), seed=seed)
        labels.add(int(batch.labels[0]))
        a, b = segments(batch, 0)
        assert a == [6, 7]
        assert b == [8, 9] if batch.labels[0] == IS_NEXT else set(b) <= {10, 11, 12}
    assert labels == {IS_NEXT, IS_RANDOM}


def test_sentence_order_swaps_half_of_the_pairs_and_changes_nothing_else():
    """Every word of this text is another one, so that places can be told from pieces."""
    corpus = many(20, (2, 15), 8)
    corpus = replace(corpus, tokens=np.arange(10, len(corpus) + 10))
    pairs = SentenceOrderPairs(material(corpus, 200), short_share=0.0)
    labels = []
    for seed in range(10):
        batch = gather(pairs, np.arange(len(pairs)), seed=seed)
        labels += batch.labels.tolist()
        for row in range(len(pairs)):
            a, b = segments(batch, row)
            before, after = (b, a) if batch.labels[row] == SWAPPED else (a, b)
            assert before[-1] < after[0]
            assert np.array_equal(np.diff(before), np.ones(len(before) - 1))
            assert np.array_equal(np.diff(after), np.ones(len(after) - 1))
            assert abs(len(a) - len(b)) <= 1
            document = corpus.document_starts.searchsorted([before[0] - 10, after[-1] - 10], side="right")
            assert document[0] == document[1] == pairs.document[row] + 1
    assert np.mean(labels) == pytest.approx(0.5, abs=3 * 0.5 / len(labels) ** 0.5)


@pytest.mark.parametrize("kind", [NextSentencePairs, SentenceOrderPairs])
def test_an_augmentation_reaches_both_segments_of_every_pair(kind):
    plain = kind(material(TEXT, 40), short_share=0.2)
    turned = kind(material(TEXT, 40, rewrite=Each(lambda pieces, _: pieces[::-1])), short_share=0.2)
    rows = np.arange(len(plain))
    before, after = gather(plain, rows, coins=40), gather(turned, rows, coins=40)
    assert np.array_equal(before.labels, after.labels)
    assert np.array_equal(before.lengths, after.lengths)
    assert not np.array_equal(before.ids, after.ids)
    for row in rows:
        assert segments(after, row) == tuple(part[::-1] for part in segments(before, row))


def test_an_augmentation_is_drawn_anew_in_every_epoch_and_for_every_row():
    @Each
    def reverse_some(pieces, generator):
        return pieces[::-1] if generator.random() < 0.5 else pieces[: max(1, len(pieces) // 2)]

    rows, draws = FullRows(TEXT, VOCABULARY, 20), CounterRng(0, "rows")
    numbers = np.arange(len(rows))
    ids, lengths = rows.gather(numbers, np.zeros_like(numbers), reverse_some, draws)
    assert set(lengths.tolist()) == {11, 20}
    assert all((row[length:] == VOCABULARY.pad).all() for row, length in zip(ids, lengths, strict=True))
    again, _ = rows.gather(numbers[3:5], np.zeros_like(numbers[3:5]), reverse_some, draws)
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
        assert ends[1:].tolist() == [length - 1]
        assert (ids[length:] == VOCABULARY.pad).all()
        assert kinds.tolist() == [0] * (ends[0] + 1) + [1] * (length - 1 - ends[0]) + [0] * (len(ids) - length)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(2, 200), st.integers(0, 2**32))
def test_truncation_leaves_what_the_papers_loop_leaves(a, b, room, seed):
    left = [a, b]
    while sum(left) > room:  # truncate_seq_pair of the paper's code
        left[0 if left[0] > left[1] else 1] -= 1
    coins = np.random.default_rng(seed).random((1, 64)) < 0.5
    lengths = shortened(np.array([[a], [b]]), np.array([room]))
    assert lengths.ravel().tolist() == left
    begin, end = cut(np.array([[10], [1000]]), np.array([[10 + a], [1000 + b]]), lengths, coins)
    assert (end - begin).ravel().tolist() == left
    assert 10 <= begin[0, 0] <= end[0, 0] <= 10 + a
    assert 1000 <= begin[1, 0] <= end[1, 0] <= 1000 + b


def test_truncation_takes_from_both_ends():
    coins = np.random.default_rng(0).random((500, 64)) < 0.5
    begin, _ = cut(np.zeros((2, 500), int), np.full((2, 500), 40), np.full((2, 500), 20), coins)
    assert begin.mean() == pytest.approx(10, abs=0.5)  # 20 tokens go from each segment, half of them in front


@pytest.mark.parametrize(
    ("text", "message"),
    [([["w1 w2", "w3"]], "needs at least two documents"), ([["w1 w2"], ["w3"]], "no document has two")],
)
def test_text_that_cannot_make_pairs(text, message: str):
    with pytest.raises(DataError, match=message):
        NextSentencePairs(material(store(text), 32), 0.1)


@given(st.integers(8, 80), st.integers(1, 60), st.integers(0, 5))
def test_a_full_row_is_never_longer_than_asked(seq_len, words, epoch):
    rows = FullRows(store([["w1 " * words]]), VOCABULARY, seq_len)
    assert full(rows, epoch).shape[1] == min(seq_len, words + 3)
    assert len(rows) == max(1, (words + 1 - (seq_len - 2) + 1) // (seq_len - 2))
