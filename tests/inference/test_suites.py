"""The figures of `lmctl eval`, against the model's own loss, scikit-learn, scipy and sacreBLEU."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
import use_models
from scipy.stats import spearmanr
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from lmctl.config.use_schema import EvalConfig
from lmctl.core.batch import DocumentWithText, Row, whole_text
from lmctl.core.errors import ConfigError, DataError
from lmctl.core.typing_errors import words
from lmctl.data.jsonl import JsonLines
from lmctl.data.table import Table
from lmctl.data.text import TextFiles
from lmctl.inference.suites import job as suites
from lmctl.inference.suites.job import SuiteJob
from lmctl.inference.suites.translation import CorpusScores

DOCUMENTS = [
    Row(["the cat sits on the mat .", "the dog runs ."]),
    Row(["a b c d e f g h i j", "red", "the red cat , the blue dog ."]),
    Row(["blue dog runs on"]),
    Row(["k l m n o p", "the mat ."]),
]


def job(loaded: Any, rows: list[Row], tmp_path: Any, yields: Any = "documents", **settings: Any) -> SuiteJob:
    config = EvalConfig(data=None, runner=None, model_path="", batch=3, **settings)
    return SuiteJob(loaded, lambda: iter(rows), yields, config, tmp_path)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return use_models.opened(use_models.gpt2(tmp_path_factory.mktemp("gpt2")))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return use_models.opened(use_models.bert(tmp_path_factory.mktemp("bert"), "BertForPreTraining"))


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return use_models.opened(use_models.marian(tmp_path_factory.mktemp("marian")))


def own_loss(loaded: Any, ids: list[int]) -> float:
    """Sum over all predictions of the model's own mean loss."""
    row = torch.tensor([ids])
    with torch.no_grad():
        return float(loaded.model(input_ids=row, labels=row).loss) * (len(ids) - 1)


def test_perplexity_is_the_models_own_loss(decoder, tmp_path):
    figures = suites.run("perplexity", job(decoder, DOCUMENTS, tmp_path))
    texts = [" ".join(row.texts) for row in DOCUMENTS]
    framed = [[3, *ids, 3] for ids in decoder.pieces(texts)]
    nats, tokens = sum(own_loss(decoder, ids) for ids in framed), sum(len(ids) - 1 for ids in framed)
    number = sum(len(text.split()) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    assert figures["loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert figures["perplexity_per_token"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert figures["perplexity_per_word"] == pytest.approx(math.exp(nats / number), rel=1e-4)
    assert figures["perplexity_per_word_and_end"] == pytest.approx(math.exp(nats / (number + 4)), rel=1e-4)
    assert figures["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert (figures["tokens"], figures["words"], figures["bytes"], figures["documents"]) == (tokens, number, size, 4)


def test_every_sentence_is_ended_where_the_model_learnt_that(decoder, tmp_path):
    """As in the tables of WikiText-2, whose `<eos>` behind every line is a word."""
    note = {"objective": "StreamedLM", "reads": "documents", "label_kind": None, "labels": [], "end_of": "sentence"}
    figures = suites.run("perplexity", job(replace(decoder, tasks={"lm": note}), DOCUMENTS, tmp_path))
    sentences = [[ids for ids in decoder.pieces(row.texts)] for row in DOCUMENTS]  # noqa: C416
    framed = [[3, *(piece for ids in document for piece in [*ids, 3])] for document in sentences]
    nats = sum(own_loss(decoder, ids) for ids in framed)
    number = sum(len(text.split()) for row in DOCUMENTS for text in row.texts)
    ends = sum(len(row.texts) for row in DOCUMENTS)
    assert ends > len(DOCUMENTS)
    assert figures["ends"] == ends
    assert figures["tokens"] == sum(len(ids) - 1 for ids in framed)
    assert figures["perplexity_per_word_and_end"] == pytest.approx(math.exp(nats / (number + ends)), rel=1e-4)


TEXTS = {
    "english": ["The cat sits.  A dog runs!\nIt is late.", "One sentence. Two of them."],
    "chinese": ["你好世界。今天天气很好。\n你好！", "天气很好。 The cat sits. 今天。"],
    "headings": ["= The cat =\nA dog runs. It is late.\nAnd so on.", "= B =\nOne. Two. Three."],
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", ["blank_line_between_documents", "one_document_per_file", "table", "jsonl", "valid"])
def test_bits_per_byte_are_those_of_the_text_as_it_stands(decoder, tmp_path, name, kind):
    """The sum of nats over ln 2 and the bytes of UTF-8, as EleutherAI's harness defines it, by a loop over the texts
    themselves: what stands between sentences is read and counted, and Chinese is given no spaces."""
    texts, data = TEXTS[name], tmp_path / "data"
    data.mkdir()
    if kind in ("table", "jsonl"):
        rows = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
        table = "id,text\n" + "".join('1,"' + text + '"\n' for text in texts)
        (data / f"a.{'csv' if kind == 'table' else 'jsonl'}").write_text(table if kind == "table" else "".join(rows))
        path = str(next(data.iterdir()))
        source: Any = Table(path) if kind == "table" else JsonLines(path)
    elif kind == "one_document_per_file":
        for number, text in enumerate(texts):
            (data / f"{number}.txt").write_text(text + "\n")
        source = TextFiles(str(data), layout=kind)
    elif kind == "valid":  # of a single document its last sentences are held out
        (data / "a.txt").write_text(texts[0] + "\n")
        source = TextFiles(str(data / "a.txt"), layout="one_document_per_file", valid_share=0.34)
        first, second = [next(iter(source.rows(split))).texts for split in ("train", "valid")]
        texts = [whole_text(first), whole_text(second)]
        assert all(text in TEXTS[name][0] for text in texts)
        assert sum(len(text.split()) for text in texts) == len(TEXTS[name][0].split())
    else:
        (data / "a.txt").write_text("\n\n".join(texts) + "\n")
        source = TextFiles(str(data / "a.txt"), layout=kind)
    rows_read = [*source.rows("train"), *source.rows("valid")]
    pieces = replace_pieces(decoder)
    figures = suites.run("perplexity", job(pieces, rows_read, tmp_path))
    framed = [[3, *(5 + byte % 27 for byte in text.encode()), 3] for text in texts]
    nats, size = sum(own_loss(decoder, ids) for ids in framed), sum(len(text.encode()) for text in texts)
    assert figures["bytes"] == size
    assert figures["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def replace_pieces(loaded: Any) -> Any:
    """The same model reading bytes, so that nothing of a text is lost on it."""

    class Bytes(type(loaded)):  # type: ignore[misc]
        def pieces(self, texts: list[str]) -> list[list[int]]:
            return [[5 + byte % 27 for byte in text.encode()] for text in texts]

    return Bytes(**{field.name: getattr(loaded, field.name) for field in fields(loaded)})


def test_noise_leaves_what_stands_between_sentences_alone():
    text = DocumentWithText(["The cat sits.", "A dog."], "The  cat sits.\n\nA dog.\n")
    assert whole_text(text.rewritten(["the", "a dig"])) == "the\n\na dig\n"
    assert (whole_text(text[:1]), whole_text(text[1:])) == ("The  cat sits.", "A dog.")
    assert whole_text(["今天。", "很好。", "Yes.", "No."]) == "今天。很好。 Yes. No."
    assert whole_text(["a line\n", "\n", "b\n"]) == "a line\n\nb\n"


def test_a_stream_lets_documents_see_those_before(decoder, tmp_path):
    figures = suites.run("perplexity", job(decoder, DOCUMENTS, tmp_path, stream=True))
    pieces = decoder.pieces([" ".join(row.texts) for row in DOCUMENTS])
    ids = [3, *(piece for document in pieces for piece in (*document, 3))]
    assert figures["loss"] == pytest.approx(own_loss(decoder, ids) / (len(ids) - 1), rel=1e-5)


class Counter(torch.nn.Module):
    """A recurrent model: its state is how many pieces it has read, and it is surer the more it has."""

    def forward(self, input_ids, state=None, use_cache=True):
        start = 0 if state is None else state
        places = start + torch.arange(1, input_ids.shape[1] + 1)
        logits = torch.zeros(1, input_ids.shape[1], use_models.SIZE)
        logits[0, :, 5] = places.float()
        return type("Output", (), {"logits": logits, "state": start + input_ids.shape[1]})()


def test_a_recurrent_model_carries_its_state(decoder, tmp_path):
    counter = Counter()
    counter.config, counter.device = decoder.model.config, torch.device("cpu")
    loaded = replace(decoder, model=counter)
    rows = [Row(["a a a a a a a a a a a a"]), Row(["a a"])]
    figures = suites.run("perplexity", job(loaded, rows, tmp_path, seq_len=8))
    places, ends = np.arange(1.0, 17), np.isin(np.arange(1, 17), (13, 16))
    nats = np.log(np.exp(places) + use_models.SIZE - 1) - np.where(ends, 0, places)
    assert figures["loss"] == pytest.approx(nats.mean(), rel=1e-5)
    assert "state" in figures["context"]


def test_masked_figures_are_those_of_the_same_masks_in_any_batch(encoder, tmp_path):
    one = suites.run("mlm", job(encoder, DOCUMENTS, tmp_path))
    config = replace(job(encoder, DOCUMENTS, tmp_path).config, batch=1)
    other = suites.run("mlm", replace(job(encoder, DOCUMENTS, tmp_path), config=config))
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
    suites.run(
        "mlm", replace(job(encoder, rows, tmp_path), config=EvalConfig(runner=None, model_path="", batch=64, limit=1))
    )
    handle.remove()
    table = np.array(seen)
    features, foreign = table[:, :-1], table[:, -1]
    assert len(table) > 1500
    assert foreign.mean() == pytest.approx(0.5, abs=0.05)
    half = np.random.default_rng(1).random(len(table)) < 0.5
    tree = HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=8, min_samples_leaf=30, random_state=0)
    assert tree.fit(features[half], foreign[half]).score(features[~half], foreign[~half]) < 0.5 + 3 * 0.5 / 800**0.5


def labelled(count: int, label: Any, pair: bool = False) -> list[Row]:
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(use_models.WORDS, rng.integers(1, 9))) for _ in range(2 * count)]
    texts = [lines[2 * n : 2 * n + 1 + pair] for n in range(count)]
    return [Row(text, label(rng), f"file:{n + 1}") for n, text in enumerate(texts)]


def logits_of(loaded: Any, rows: list[Row]) -> np.ndarray:
    with torch.no_grad():
        singles = [loaded.model(**loaded.tokenizer(*row.texts, return_tensors="pt")).logits[0] for row in rows]
    return torch.stack(singles).numpy()


NAMES = ["bad", "fair", "good"]


def classifier(tmp_path: Any, **settings: Any) -> Any:
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: place for place, name in enumerate(NAMES)}}
    return use_models.opened(use_models.bert(tmp_path, "BertForSequenceClassification", **({**names} | settings)))


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


def test_minimal_pairs_are_right_where_the_good_one_is_likelier(decoder, tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text("the cat\tthe cat sits on the mat .\nthe dog runs on the red mat\tthe\n")
    figures = suites.run("minimal_pairs", job(decoder, [], tmp_path, file=str(file)))
    assert figures == {"accuracy": 0.5, "pairs": 2}


def test_robustness_is_the_same_metric_under_noise(decoder, tmp_path):
    rows = DOCUMENTS * 8
    figures = suites.run("robustness", job(decoder, rows, tmp_path))
    clean = suites.run("perplexity", job(decoder, rows, tmp_path))
    assert figures["suite"] == "perplexity"
    assert figures["loss"] == clean["loss"]
    noises = ("typos", "dropped_words", "swapped_words")
    levels = [figures[f"loss_{noise}_{level}"] for noise in noises for level in (5, 10, 20)]
    assert len({*levels, clean["loss"]}) == 10
    assert figures == suites.run("robustness", job(decoder, rows, tmp_path))


@pytest.mark.parametrize("kind", [None, "multi_label_classification"])
def test_classifiers_are_shifted_against(tmp_path, kind):
    """Each row along the gradient of its own loss: the same by plain transformers, one row at a time."""
    loaded = classifier(tmp_path, **({"problem_type": kind} if kind else {}))
    rows = labelled(40, lambda rng: NAMES[rng.integers(3)])
    figures = suites.run("robustness", job(loaded, rows, tmp_path, "labelled"))
    right = {0.1: 0, 0.3: 0, 1.0: 0}
    for row in rows:
        inputs = loaded.tokenizer(*row.texts, return_tensors="pt")
        embedded = loaded.model.get_input_embeddings()(inputs.pop("input_ids")).detach().requires_grad_()
        target = torch.tensor([NAMES.index(row.label)])
        if kind:
            target = torch.nn.functional.one_hot(target, 3).float()
        (gradient,) = torch.autograd.grad(loaded.model(inputs_embeds=embedded, labels=target, **inputs).loss, embedded)
        for radius in right:
            with torch.no_grad():
                logits = loaded.model(inputs_embeds=embedded + radius * gradient / gradient.norm(), **inputs).logits
            right[radius] += bool(((logits > 0) == (target > 0)).all() if kind else logits.argmax() == target)
    found = {name: value for name, value in figures.items() if "embedding" in name}
    assert found == {f"accuracy_embedding_{radius:g}": count / 40 for radius, count in right.items()}
    assert figures["accuracy"] > found["accuracy_embedding_0.3"] > found["accuracy_embedding_1"] or kind


def test_noise_leaves_references_alone(translator, tmp_path):
    """A model that says the same whatever it reads is as good under noise; and it is good for something."""
    with torch.no_grad():
        same = use_models.opened(use_models.marian(tmp_path / "same"))
        for parameter in same.model.model.encoder.parameters():
            parameter.zero_()
        same.model.final_logits_bias[0, same.tokenizer.convert_tokens_to_ids("mat")] += 100
    rows = [Row(["a b c d e f g h", "the cat sits on the mat ."])] * 6
    figures = suites.run("robustness", job(same, rows, tmp_path, "parallel", beams=1, max_new_tokens=5))
    assert figures["chrf"] > 5
    assert {value for name, value in figures.items() if name.startswith("chrf")} == {figures["chrf"]}
    assert not (tmp_path / "hypotheses.txt").exists()


ENGLISH = "Whatever people type quickly contains a few errors, which nobody sees before it is too late to mend them. "
CHINESE = "机器学习改变了世界的面貌，人们每天都在使用不同的模型来处理文字和声音。"
CHANGED = {
    "typos": lambda a, b: sum(x != y for x, y in zip(a, b, strict=True)) / sum(map(str.isalnum, a)),
    "dropped_words": lambda a, b: 1 - len(words(b)) / len(words(a)),
    "swapped_words": lambda a, b: sum(x != y for x, y in zip(words(a), words(b), strict=True)) / len(words(a)),
}


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, ENGLISH + CHINESE], ids=["english", "chinese", "both"])
@pytest.mark.parametrize("short", [False, True])
def test_as_much_is_disturbed_as_the_figure_says(decoder, tmp_path, monkeypatch, text, short):
    """Counted in what the model is given to read: 5, 10 and 20 % of the characters or words."""
    read: list[list[str]] = []

    def look(given):
        read.append([text for row in given.rows() for text in row.texts])
        return {"loss": 0.0}

    monkeypatch.setattr("lmctl.inference.suites.perplexity.evaluate", look)
    lines = [" ".join(words(text)[:6])] * 400 if short else [text] * 150
    suites.run("robustness", job(decoder, [Row([line]) for line in lines], tmp_path))
    clean, *disturbed = read
    assert clean == lines
    expected = [(noise, level) for noise in CHANGED for level in (0.05, 0.1, 0.2)]
    for (noise, level), texts in zip(expected, disturbed, strict=True):
        shares = [CHANGED[noise](line, other) for line, other in zip(lines, texts, strict=True)]
        error = 4 * np.std(shares) / len(shares) ** 0.5 + 0.002
        assert np.mean(shares) == pytest.approx(level, abs=error), noise


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
