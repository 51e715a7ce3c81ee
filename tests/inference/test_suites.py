"""Figures of `lmctl eval` for masked models, classifiers and translation against scikit-learn, scipy and sacreBLEU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sacrebleu
import torch
import use_models
from scipy.stats import spearmanr
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from suite_jobs import DOCUMENTS, NAMES, classifier, job, labelled, logits_of

from lmctl.core.batch import Row
from lmctl.core.errors import ConfigError, DataError
from lmctl.inference.suites import job as suites
from lmctl.inference.suites.translation import CorpusScores


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """With a head for next sentences."""
    return use_models.opened(use_models.bert(tmp_path_factory.mktemp("bert"), "BertForPreTraining"))


def test_masked_figures_are_those_of_the_same_masks_in_any_batch(encoder, tmp_path):
    one = suites.run("mlm", job(encoder, DOCUMENTS, tmp_path))
    other = suites.run("mlm", job(encoder, DOCUMENTS, tmp_path, batch=1))
    assert one == pytest.approx(other, rel=1e-4)
    lengths = [sum(map(len, encoder.pieces(row.texts))) for row in DOCUMENTS]
    assert one["masked"] == sum(max(1, round(0.15 * n)) for n in lengths)
    assert {"loss", "accuracy", "pseudo_perplexity", "nsp_accuracy"} <= set(one)
    assert one["nsp_pairs"] == 3
    third = suites.run("mlm", job(encoder, DOCUMENTS, tmp_path, seed=2))
    assert third["loss"] != pytest.approx(one["loss"], rel=1e-6)


def test_a_model_that_knows_the_answer_is_always_right(encoder, tmp_path, monkeypatch):
    bias = encoder.model.cls.predictions.bias
    monkeypatch.setattr(bias, "data", torch.nn.functional.one_hot(torch.tensor(5), use_models.SIZE) * 1e4)
    figures = suites.run("mlm", job(encoder, [Row(["a a a a a"])] * 2, tmp_path))
    assert figures["accuracy"] == 1.0
    assert figures["loss"] == pytest.approx(0, abs=1e-6)
    assert figures["pseudo_perplexity"] == pytest.approx(1, abs=1e-6)


def test_next_sentence_accuracy_needs_a_model_trained_for_it(encoder, tmp_path):
    ordered = replace(encoder, tasks={"corpus": {"objective": "MaskedLMAndSentenceOrder"}})
    trained = replace(encoder, tasks={"corpus": {"objective": "MaskedLMAndNextSentence"}})
    assert "nsp_accuracy" not in suites.run("mlm", job(ordered, DOCUMENTS, tmp_path))
    assert "nsp_accuracy" in suites.run("mlm", job(trained, DOCUMENTS, tmp_path))


@pytest.mark.parametrize("says", [0, 1])
def test_that_the_next_sentence_follows_is_said_by_0(encoder, tmp_path, monkeypatch, says):
    """As transformers documents `next_sentence_label`. A document alone is followed by its own second half."""
    bias = encoder.model.cls.seq_relationship.bias
    monkeypatch.setattr(bias, "data", torch.nn.functional.one_hot(torch.tensor(says), 2) * 1e4)
    figures = suites.run("mlm", job(encoder, [Row(["a b c .", "d e f ."])], tmp_path, limit=1))
    assert figures["nsp_accuracy"] == 1 - says
    many = suites.run("mlm", job(encoder, DOCUMENTS * 40, tmp_path, limit=1))
    assert many["nsp_accuracy"] == pytest.approx(0.5, abs=2 / many["nsp_pairs"] ** 0.5)


def test_next_sentences_are_not_told_by_lengths_or_ends(encoder, tmp_path):
    """Every other document is written with other letters, which tells the truth to whoever reads."""
    rng, rows = np.random.default_rng(0), []
    for number in range(1600):
        letters = "abcdefg" if number % 2 else "hijklmn"
        length = int(rng.integers(2, 9))  # documents differ in how long their sentences are
        rows.append(
            Row([" ".join([*rng.choice([*letters], rng.integers(2, 2 + length)), "."]) for _ in range(2 * length)])
        )
    seen: list[list[int]] = []
    end, sep = encoder.tokenizer.convert_tokens_to_ids("."), encoder.tokenizer.sep_token_id
    first = range(5, 12)

    def look(module, args, inputs):
        for ids in inputs["input_ids"].tolist() if "token_type_ids" in inputs else []:
            middle = ids.index(sep)
            a, b = ids[1:middle], ids[middle + 1 : ids.index(sep, middle + 1)]
            foreign = any(i in first for i in a if i != end) != any(i in first for i in b if i != end)
            if set(b) - {end}:
                seen.append([len(a), len(b), b[-1] == end, b[0] == end, foreign])

    handle = encoder.model.register_forward_pre_hook(look, with_kwargs=True)
    suites.run("mlm", job(encoder, rows, tmp_path, batch=64, limit=1))
    handle.remove()
    table = np.array(seen)
    features, foreign = table[:, :-1], table[:, -1]
    assert len(table) > 1500
    assert foreign.mean() == pytest.approx(0.5, abs=0.05)
    half = np.random.default_rng(1).random(len(table)) < 0.5
    tree = HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=8, min_samples_leaf=30, random_state=0)
    assert tree.fit(features[half], foreign[half]).score(features[~half], foreign[~half]) < 0.5 + 3 * 0.5 / 800**0.5


@pytest.mark.parametrize("pair", [False, True])
def test_classes_are_counted_as_scikit_learn_counts(tmp_path, pair):
    loaded = classifier(tmp_path)
    rows = labelled(40, lambda rng: NAMES[rng.integers(3)], pair)
    figures = suites.run("classification", job(loaded, rows, tmp_path, "labelled"))
    said, true = logits_of(loaded, rows).argmax(axis=1), [NAMES.index(row.label) for row in rows]
    assert figures["accuracy"] == pytest.approx(accuracy_score(true, said))
    assert figures["macro_f1"] == pytest.approx(f1_score(true, said, average="macro"))
    assert figures["matthews"] == pytest.approx(matthews_corrcoef(true, said))
    assert figures["rows"] == 40


def test_several_labels_are_counted_as_scikit_learn_counts(tmp_path):
    loaded = classifier(tmp_path, problem_type="multi_label_classification")
    rows = labelled(40, lambda rng: [name for name in NAMES if rng.random() < 0.4])
    rows[0] = rows[0]._replace(label="bad, good")
    figures = suites.run("classification", job(loaded, rows, tmp_path, "labelled"))
    said = logits_of(loaded, rows) > 0
    true = np.array([[name in row.label for name in NAMES] for row in rows])
    assert figures["accuracy"] == pytest.approx(accuracy_score(true, said))
    assert figures["micro_f1"] == pytest.approx(f1_score(true, said, average="micro"))
    assert figures["macro_f1"] == pytest.approx(f1_score(true, said, average="macro", zero_division=0))


def test_numbers_correlate_as_scipy_says(tmp_path):
    loaded = use_models.opened(use_models.bert(tmp_path, "BertForSequenceClassification", num_labels=1))
    rows = labelled(30, lambda rng: float(rng.normal()))
    figures = suites.run("classification", job(loaded, rows, tmp_path, "labelled"))
    said, true = logits_of(loaded, rows)[:, 0], np.array([row.label for row in rows])
    assert figures["pearson"] == pytest.approx(np.corrcoef(said, true)[0, 1], rel=1e-4)
    assert figures["spearman"] == pytest.approx(spearmanr(said, true).statistic, rel=1e-4)
    assert figures["mean_squared_error"] == pytest.approx(((said - true) ** 2).mean(), rel=1e-4)


def test_classes_without_names_are_meant_by_number(tmp_path):
    loaded = use_models.opened(use_models.bert(tmp_path, "BertForSequenceClassification", num_labels=2))
    rows = [Row(["a b"], 1.0), Row(["c"], "0"), Row(["d"], 1)]
    assert suites.run("classification", job(loaded, rows, tmp_path, "labelled"))["rows"] == 3


@pytest.mark.parametrize(
    ("label", "message"),
    [("god", "file:7: the model has no label 'god'; did you mean 'good'"), (None, "file:7: the row has no label")],
)
def test_wrong_labels_are_refused_by_their_row(tmp_path, label, message):
    with pytest.raises(DataError, match=message):
        suites.run("classification", job(classifier(tmp_path), [Row(["a"], label, "file:7")], tmp_path, "labelled"))


PARALLEL = [Row([f"the {a} cat", f"the {a} dog runs on the mat ."]) for a in ("red", "blue", "a", "b c d", "e")]


def test_translations_are_scored_as_sacrebleu_scores(translator, tmp_path):
    figures = suites.run("translation", job(translator, PARALLEL, tmp_path, "parallel", beams=2, max_new_tokens=8))
    written = (tmp_path / "hypotheses.txt").read_text().splitlines()
    references = [[row.texts[1] for row in PARALLEL]]
    assert len(written) == len(PARALLEL)
    assert figures["bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, references).score)
    assert figures["chrf"] == pytest.approx(sacrebleu.corpus_chrf(written, references).score)


@pytest.mark.parametrize("tokenize", ["13a", "zh"])
def test_scores_of_a_corpus_are_those_of_sacrebleu(tokenize):
    rng = np.random.default_rng(0)
    words = ["the", "cat", "sits", "on", "a", "red", "mat", ",", "学习", "机器", "好"]
    lines = [" ".join(rng.choice(words, 12)) for _ in range(60)]
    references, hypotheses = lines[:30], [a[: len(a) // 2] + b[len(b) // 2 :] for a, b in zip(lines, lines[30:])]  # noqa: B905
    sums = CorpusScores(tokenize)
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        sums.add(hypothesis, reference)
    bleu, chrf = sacrebleu.BLEU(tokenize=tokenize), sacrebleu.CHRF()
    figures = sums.figures()
    assert figures["bleu"] == pytest.approx(bleu.corpus_score(hypotheses, [references]).score)
    assert figures["chrf"] == pytest.approx(chrf.corpus_score(hypotheses, [references]).score)
    assert figures["bleu_signature"] == str(bleu.get_signature())
    assert figures["chrf_signature"] == str(chrf.get_signature())
    assert f"tok:{tokenize}" in figures["bleu_signature"]


@pytest.mark.parametrize(
    ("suite", "yields", "message"),
    [
        ("mlm", "documents", "is a causal language model, and suite=mlm needs a masked language model"),
        ("perplexity", "parallel", "suite=perplexity reads documents rows, and this data has parallel rows"),
        ("minimal_pairs", "documents", "suite=minimal_pairs reads its pairs from a file"),
        ("nbest", "documents", "suite=nbest needs lists to tune on"),
        ("robustness", "labelled", "suite=perplexity reads documents rows"),
    ],
)
def test_what_does_not_go_together_is_refused(decoder, tmp_path, suite, yields, message):
    with pytest.raises(ConfigError, match=message):
        suites.run(suite, job(decoder, [], tmp_path, yields))


@pytest.mark.parametrize(
    ("model", "yields"), [("decoder", "documents"), ("encoder", "documents"), ("translator", "parallel")]
)
def test_no_rows_are_refused(request, tmp_path, model, yields):
    loaded = request.getfixturevalue(model)
    with pytest.raises(DataError, match="the data has no rows"):
        suites.run(suites.natural(loaded), job(loaded, [], tmp_path, yields))
