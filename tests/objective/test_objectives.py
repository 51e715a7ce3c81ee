"""Objectives against independent references: rows, targets, losses and metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import f1_score, matthews_corrcoef
from small import documents, store, tokenizer, vocabulary
from torch import nn

from lmctl.core.counter_rng import CounterRng
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.objective import label_scores
from lmctl.objective.base import LOSS, Material
from lmctl.objective.classify import Classify
from lmctl.objective.clm import CausalLM, separate
from lmctl.objective.denoise import Denoise, infill, removed, sentinelled, span_mask
from lmctl.objective.translate import Translate
from lmctl.parallel.processes import Processes
from lmctl.train.validation import MetricSums

V = vocabulary()
SENTINELS = np.arange(100, 200)
WITH_SENTINELS = Vocabulary(200, 0, 1, 2, 3, 4, np.arange(200) < 5, np.zeros(200, dtype=bool), SENTINELS)
TEXT = store(documents(30))


def collate(objective, text: TokenStore, family: str, rows: range, seq_len: int = 24, vocabulary=V, epoch: int = 0):
    examples = objective.examples(Material("task", text, vocabulary, family, seq_len))  # type: ignore[arg-type]
    return examples.collate(np.array(rows), np.full(len(rows), epoch), CounterRng(0, "rows"))


def test_causal_rows_are_the_stream_and_their_targets_the_next_pieces():
    batch = collate(CausalLM(), TEXT, "decoder", range(4))
    ids, labels = batch.inputs["input_ids"], batch.targets["lm"].labels.view(4, -1)
    assert ids.shape == (4, 24)
    assert torch.equal(ids[:, 1:], labels[:, :-1])
    assert batch.tokens == 96


def test_documents_are_numbered_and_positions_begin_anew_in_each():
    begins = np.random.default_rng(0).random((3, 20)) < 0.2
    real = np.arange(20) < np.array([[20], [15], [3]])
    documents, positions = separate(begins, real)
    for row in range(3):
        document, place = 0, -1
        numbers = []
        for column in range(20):
            starts = begins[row, column]
            document, place = document + int(starts), 0 if starts or column == 0 else place + 1
            numbers.append(document)
            assert positions[row, column] == place
            assert documents[row, column] == (document - int(begins[row, 0]) if real[row, column] else -1)


def test_one_stream_has_no_documents():
    assert "documents" not in collate(CausalLM(separate_documents=False), TEXT, "decoder", range(4)).inputs
    assert "documents" in collate(CausalLM(), TEXT, "decoder", range(4)).inputs


@given(st.integers(2, 300), st.floats(0.05, 0.6), st.floats(1, 6), st.integers(0, 2**32))
@settings(deadline=None)
def test_corrupted_and_removed_together_are_the_text(length, rate, mean_span, seed):
    pieces = np.random.default_rng(seed).integers(5, 100, length)
    several = span_mask(length, rate, mean_span, 99, [np.random.default_rng(seed + n) for n in range(3)])
    number = seed % 3  # a row of several is what it is alone
    noise = span_mask(length, rate, mean_span, 99, [np.random.default_rng(seed + number)])[0]
    assert (noise == several[number]).all()
    source = sentinelled(np.stack([pieces] * 3), several, SENTINELS)[number].tolist()
    target = removed(np.stack([pieces] * 3), several, SENTINELS)[number].tolist()
    assert noise.sum() == min(max(round(length * rate), 1), length - 1)
    assert not noise[0]  # a gap comes first
    spans = source.count  # each sentinel once
    restored = []
    for piece in source:
        if piece < 100:
            restored.append(piece)
            continue
        assert spans(piece) == 1
        begin = target.index(piece) + 1
        restored += target[begin : target.index(piece + 1)]
    assert restored == pieces.tolist()
    wanted = max(round(noise.sum() / mean_span), 1)
    assert sum(piece >= 100 for piece in source) == min(wanted, noise.sum(), length - noise.sum(), 99)


def test_spans_fall_everywhere_alike():
    generator = np.random.default_rng(0)
    hits = span_mask(40, 0.15, 3.0, 99, [generator] * 4000).mean(axis=0)
    assert hits[1:].mean() == pytest.approx(6 / 39, abs=0.001)
    assert hits[8:32].std() < 0.02


RATES = st.sampled_from([0.05, 0.15, 0.3, 0.5, 0.7, 0.95])


@given(st.integers(1, 600), RATES, st.sampled_from([1.0, 3.0, 6.0]), st.integers(0, 2**32))
@settings(deadline=None)
def test_infilling_removes_the_rate_it_was_given(length, rate, mean_span, seed):
    pieces = np.arange(length) + 5
    generators = (np.random.default_rng(seed + n) for n in range(3))
    out = infill(np.stack([pieces] * 3), rate, mean_span, V.mask, generators).rows()[seed % 3]
    kept = out[out != V.mask]
    assert length - len(kept) == max(1, round(rate * length))
    assert (np.diff(kept) > 0).all()  # what is left is in order
    assert 1 <= (out == V.mask).sum() <= length - len(kept)


def fairseq_lengths(wanted: int, mean_span: float, rng: np.random.Generator) -> list[int]:
    """`add_whole_word_mask` of fairseq (Lewis et al. 2020): lengths until they cover `wanted`, the last one cut."""
    lengths: list[int] = []
    while sum(lengths) < wanted:
        lengths.append(min(int(rng.poisson(mean_span)), wanted - sum(lengths)))
    return lengths


@pytest.mark.parametrize(("length", "rate"), [(127, 0.3), (511, 0.3), (63, 0.15), (127, 0.7)])
def test_infilling_draws_spans_as_fairseq_does(length, rate):
    rng, rounds = np.random.default_rng(0), 400
    wanted = round(rate * length)
    expected = np.array([len(fairseq_lengths(wanted, 3.0, rng)) for _ in range(rounds)])
    masks, removed_at = [], np.zeros(length)
    for _ in range(rounds):
        out = infill(np.arange(5, length + 5)[None], rate, 3.0, V.mask, [rng]).flat
        masks.append((out == V.mask).sum())
        kept = out[out != V.mask] - 5
        removed_at += np.isin(np.arange(length), kept, invert=True)
    error = 4 * expected.std() * (2 / rounds) ** 0.5
    assert np.mean(masks) == pytest.approx(expected.mean(), abs=error)
    assert np.std(masks) == pytest.approx(expected.std(), rel=0.2)
    thirds = removed_at[: length // 3 * 3].reshape(3, -1).mean(axis=1) / rounds
    assert thirds == pytest.approx(np.full(3, wanted / length), abs=0.03)  # everywhere alike


@pytest.mark.parametrize("style", ["t5", "bart"])
def test_denoising_rows(style: str):
    batch = collate(Denoise(style), TEXT, "seq2seq", range(5), vocabulary=WITH_SENTINELS)
    labels = batch.targets["lm"].labels
    shifted = batch.inputs["decoder_input_ids"]
    assert (shifted[:, 0] == V.pad).all()
    assert batch.inputs["input_ids"].shape[1] <= 24
    if style == "bart":
        assert torch.equal(labels.view(5, -1)[:, :-1], shifted[:, 1:])
        assert (batch.inputs["input_ids"] == V.mask).any(dim=1).all()
    else:
        assert (batch.inputs["input_ids"] == SENTINELS[0]).sum() == 5
    assert Denoise("bart").pieces == ()
    assert Denoise().pieces[:2] == ("<extra_id_0>", "<extra_id_1>")


def pairs() -> TokenStore:
    return store([["w1 w2 w3", "w4 w5"], ["w6", "w7 w8 w9 w10"], ["w11 " * 30, "w12"]])


def test_translation_rows_and_smoothed_loss():
    batch = collate(Translate(), pairs(), "seq2seq", range(3), seq_len=8)
    word = 5
    assert batch.inputs["input_ids"][0].tolist() == [word + 1, word + 2, word + 3, V.sep, 0, 0, 0, 0]
    assert batch.inputs["attention_mask"][0].tolist() == [True] * 4 + [False] * 4
    assert batch.inputs["decoder_input_ids"][0].tolist() == [V.pad, word + 4, word + 5, V.sep, 0]
    assert batch.inputs["decoder_attention_mask"][0].tolist() == [True] * 3 + [False] * 2
    assert batch.targets["lm"].labels[:3].tolist() == [word + 4, word + 5, V.sep]
    assert batch.inputs["input_ids"][2].tolist() == [word + 11] * 7 + [V.sep]
    labels = batch.targets["lm"].labels
    logits = torch.randn(len(labels), V.size, generator=torch.Generator().manual_seed(0))
    logs = logits.log_softmax(dim=-1)
    nll, uniform = -logs[range(len(labels)), labels], -logs.mean(dim=-1)
    expected = (0.9 * nll + 0.1 * uniform).sum()
    assert float(Translate(0.1).loss("lm", logits, labels)) == pytest.approx(float(expected), rel=1e-5)
    assert float(Translate(0.1).metrics("lm", logits, labels)[LOSS].sum) == pytest.approx(float(nll.sum()), rel=1e-5)


def labelled(labels: np.ndarray, names: tuple[str, ...], texts: int = 1) -> TokenStore:
    base = store([[f"w{i} w{i + 1}", f"w{i + 2}"][:texts] for i in range(len(labels))])
    return TokenStore(base.tokens, base.sentences, base.documents, base.histogram, base.characters, labels, names)


def figures(objective: Classify, labels: np.ndarray, outputs: int) -> tuple[dict[str, float], np.ndarray]:
    """Figures over all rows in several batches, and the logits that they are of."""
    logits, sums = torch.randn(len(labels), outputs, generator=torch.Generator().manual_seed(0)), MetricSums()
    for part in np.array_split(np.arange(len(labels)), 3):
        sums.add({"label": objective.metrics("label", logits[part], torch.from_numpy(labels)[part])})
    return {name: one.value for name, one in sums.figures(Processes(on_cpu=True)).items()}, logits.numpy()


def test_metrics_of_classes_are_sklearns():
    labels = np.random.default_rng(0).integers(0, 3, 50)
    report, logits = figures(Classify(), labels, 3)
    guesses = logits.argmax(axis=-1)
    assert report["label_accuracy"] == pytest.approx((guesses == labels).mean())
    assert report["label_macro_f1"] == pytest.approx(f1_score(labels, guesses, average="macro"))
    assert report["label_matthews"] == pytest.approx(matthews_corrcoef(labels, guesses))
    loss = nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert report["label"] == pytest.approx(float(loss), rel=1e-5)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_classes_that_do_not_occur_count_as_in_sklearn(rows):
    table = np.zeros((4, 4), dtype=np.int64)
    np.add.at(table, tuple(np.transpose(rows)), 1)
    true, guessed = zip(*rows, strict=True)
    assert label_scores.macro_f1(table) == pytest.approx(f1_score(true, guessed, average="macro", zero_division=0))
    assert label_scores.matthews(table) == pytest.approx(matthews_corrcoef(true, guessed))


def test_a_class_that_no_row_has_counts_nothing_among_several():
    assert label_scores.macro_f1_of_hits(np.array([[3, 0], [1, 0], [0, 0]])) == pytest.approx(6 / 7 / 2)


def test_metrics_of_several_labels_are_sklearns():
    labels = (np.random.default_rng(0).random((50, 4)) < 0.4).astype(np.float32)
    report, logits = figures(Classify("classes"), labels, 4)
    guesses = logits > 0
    assert report["label_macro_f1"] == pytest.approx(f1_score(labels, guesses, average="macro", zero_division=0))
    assert report["label_micro_f1"] == pytest.approx(f1_score(labels, guesses, average="micro"))
    assert report["label_accuracy"] == pytest.approx((guesses == (labels > 0)).all(axis=1).mean())


def test_metrics_of_numbers_are_scipys():
    labels = np.random.default_rng(0).normal(size=50).astype(np.float32)
    report, logits = figures(Classify("number"), labels, 1)
    assert report["label"] == pytest.approx(((logits[:, 0] - labels) ** 2).mean(), rel=1e-5)
    assert report["label_pearson"] == pytest.approx(pearsonr(logits[:, 0], labels).statistic, abs=1e-5)


def test_the_majority_is_the_baseline():
    labels = np.array([0, 1, 1, 1])
    guess = Classify().baseline("label", torch.from_numpy(labels), labelled(labels, ("a", "b")))
    assert int(guess["accuracy"].sum) == 3
    assert float(guess[LOSS].sum) == pytest.approx(-np.log([2 / 6, 4 / 6, 4 / 6, 4 / 6]).sum(), rel=1e-5)


def test_rows_of_one_text_and_of_two():
    single = collate(Classify(), labelled(np.array([0, 1]), ("a", "b")), "encoder", range(2))
    assert single.inputs["input_ids"][1].tolist() == [V.cls, 6, 7, V.sep]
    assert set(single.inputs) == {"input_ids"}
    pair = collate(Classify(), labelled(np.array([0, 1]), ("a", "b"), texts=2), "encoder", range(2))
    assert pair.inputs["input_ids"][1].tolist() == [V.cls, 6, 7, V.sep, 8, V.sep]
    assert pair.inputs["token_type_ids"][1].tolist() == [0, 0, 0, 0, 1, 1]
    decoder = collate(Classify(), labelled(np.array([0, 1]), ("a", "b"), texts=2), "decoder", range(2))
    assert "token_type_ids" not in decoder.inputs


@given(st.integers(1, 50), st.integers(1, 50), st.integers(8, 60))
def test_pairs_are_cut_as_tokenizers_cuts_them(a, b, seq_len):
    """In every row that training sees: as plain transformers does with truncation="longest_first"."""
    words = [" ".join(f"w{(start + n) % 60}" for n in range(count)) for start, count in ((0, a), (30, b))]
    base = store([words])
    text = TokenStore(base.tokens, base.sentences, base.documents, base.histogram, 0, np.array([0]), ("a",))
    batch = collate(Classify(), text, "encoder", range(1), seq_len=seq_len)
    rust = tokenizer().backend_tokenizer
    rust.enable_truncation(seq_len - 3, strategy="longest_first")
    both = rust.encode(words[0], words[1], add_special_tokens=False)
    kept = [[i for i, side in zip(both.ids, both.sequence_ids, strict=True) if side == n] for n in (0, 1)]
    assert batch.inputs["input_ids"][0].tolist() == [V.cls, *kept[0], V.sep, *kept[1], V.sep]


@pytest.mark.parametrize(
    ("objective", "family", "text"),
    [(CausalLM(), "decoder", TEXT), (Denoise(), "seq2seq", TEXT), (Denoise("bart"), "seq2seq", TEXT)],
    ids=["clm", "t5", "bart"],
)
def test_a_row_is_the_same_in_whatever_batch_and_another_in_another_epoch(objective, family, text):
    together = collate(objective, text, family, range(6), vocabulary=WITH_SENTINELS).inputs["input_ids"]
    alone = collate(objective, text, family, range(2, 3), vocabulary=WITH_SENTINELS).inputs["input_ids"][0]
    assert torch.equal(together[2, : len(alone)], alone)
    later = collate(objective, text, family, range(2, 3), vocabulary=WITH_SENTINELS, epoch=1).inputs["input_ids"][0]
    assert later.tolist() != alone.tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Denoise("gpt"), "style must be one of"),
        (lambda: Denoise(noise_rate=1.0), "noise_rate is a share"),
        (lambda: Translate(1.0), "label_smoothing is a share"),
        (lambda: Classify("many"), "labels must be one of"),
    ],
)
def test_options_out_of_range(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
