"""`lmctl predict`: labels and probabilities are those of plain transformers and of `lmctl eval`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import use_models
from command import ROOT, SMALL, environment, summary
from in_process import succeed
from omegaconf import OmegaConf
from predictions import NAMES, TEXTS, by_transformers, classifier, lines_of, predicted
from use_models import said

from lmctl.core.errors import ConfigError, DataError
from lmctl.core.paths import Paths
from lmctl.plan import Plan
from lmctl.train.summary import closing_words


@pytest.fixture(scope="module")
def number(tmp_path_factory):
    return classifier(tmp_path_factory.mktemp("number"), num_labels=1, problem_type="regression")


@pytest.mark.parametrize("kind", ["model", "several"])
def test_probabilities_are_those_of_the_pipeline(request, kind):
    place = request.getfixturevalue(kind)
    found = predicted(place, lines_of(TEXTS), batch=4)
    pipeline = transformers.pipeline("text-classification", model=str(place), device="cpu")
    assert [row["texts"] for row in found] == [[text] for text in TEXTS]
    for row, expected in zip(found, pipeline(TEXTS, top_k=None), strict=True):
        scores = {one["label"]: one["score"] for one in expected}
        assert row["probabilities"] == pytest.approx(scores, abs=1e-6)
        if kind == "model":
            assert (row["label"], row["probability"]) == (expected[0]["label"], max(row["probabilities"].values()))
        else:
            assert row["label"] == [name for name in NAMES if scores[name] > 0.5]
            assert row["probability"] == [row["probabilities"][name] for name in row["label"]]
    answers = [str(row["label"]) for row in found]
    assert len(set(answers)) > 1  # a constant would agree with nothing


def test_pairs_are_those_of_transformers(model):
    firsts, seconds = TEXTS, TEXTS[::-1]
    typed = "".join(f"{a}\t{b}\n" for a, b in zip(firsts, seconds, strict=True))
    found = predicted(model, typed)
    logits = by_transformers(model, firsts, seconds)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert [row["label"] for row in found] == [NAMES[place] for place in logits.argmax(axis=1)]
    for row, expected in zip(found, shares, strict=True):
        assert list(row["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
    single = predicted(model, typed, text_b=None)
    assert [row["texts"] for row in single] == [[f"{a} {b}"] for a, b in zip(firsts, seconds, strict=True)]
    assert [row["probability"] for row in single] != [row["probability"] for row in found]


def test_a_number_is_the_models_number(number):
    found = predicted(number, lines_of(TEXTS))
    assert [row["label"] for row in found] == pytest.approx(by_transformers(number, TEXTS)[:, 0], abs=1e-5)
    assert {row["probability"] for row in found} == {None}
    [line] = said("predict", number, "the cat\n").splitlines()
    [row] = predicted(number, "the cat\n")
    assert line == f"{row['label']:.4f}\t\tthe cat"


@pytest.mark.parametrize("kind", ["model", "several", "number"])
def test_accuracy_of_what_is_predicted_is_that_of_eval(request, kind, tmp_path):
    """On labels of which about half are right, so that any slip changes the figure."""
    place = request.getfixturevalue(kind)
    guesses = predicted(place, lines_of(TEXTS))
    true: list[Any] = [row["label"] for row in guesses]
    true[::2] = [["good"] if kind == "several" else 9.5 if kind == "number" else "bad" for _ in true[::2]]
    file = tmp_path / "rows.jsonl"
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, true, strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "eval.json"
    data = {"_target_": "lmctl.data.jsonl.JsonLines", "path": str(file), "label": "label"}
    said("eval", place, suite="classification", data=data, split="all", out=str(out))
    figures = json.loads(out.read_text())["classification"]
    found = predicted(place, file=str(file))
    labels = [row["label"] for row in found]
    if kind == "number":
        error = np.mean((np.array(labels) - np.array(true)) ** 2)
        assert figures["mean_squared_error"] == pytest.approx(error, rel=1e-6)
        return
    right = [guess == label for guess, label in zip(labels, true, strict=True)]
    assert 0 < sum(right) < len(right)
    assert figures["accuracy"] == pytest.approx(sum(right) / len(right))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"file": "nowhere.csv"}, "nowhere.csv does not exist"),
        ({"file": "."}, "file=. is a folder"),
        ({"task": "topics"}, "task=topics: .*none of its tasks"),
        ({"format": "xml"}, "format must be one of text, json, csv, tsv"),
        ({"model_path": "nowhere/model"}, "nowhere/model"),
    ],
)
def test_what_cannot_be_done_is_refused(model, settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, DataError), match=message):
        said("predict", model, "a\n", **settings)


def test_a_folder_is_answered_with_a_pattern(model, tmp_path):
    with pytest.raises(ConfigError) as refused:
        said("predict", model, "a\n", file=f"{tmp_path}/")
    assert refused.value.hint == f"a pattern names its files: file='{tmp_path}/*.csv'"


def test_a_language_model_and_a_classifier_are_sent_to_the_right_verb(model, tmp_path):
    with pytest.raises(ConfigError, match="is not a classifier, so it cannot label rows"):
        said("predict", use_models.bert(tmp_path), "a\n")
    for verb, settings in (("generate", {"prompt": "a"}), ("score", {}), ("translate", {})):
        with pytest.raises(ConfigError, match="is a classifier") as refused:
            said(verb, model, "a\n", **settings)
        assert f"lmctl predict model_path={model} file=" in str(refused.value.hint)


def test_weights_that_are_broken_are_no_answer(tmp_path):
    network = transformers.AutoModelForSequenceClassification.from_pretrained(classifier(tmp_path / "a"))
    with torch.no_grad():
        network.classifier.weight.fill_(float("nan"))
    with pytest.raises(ConfigError, match=r"the model's answers are no numbers \(NaN\): it is broken"):
        predicted(use_models.save(tmp_path / "b", network), "the cat\n")


def test_a_pipe_has_answers_as_they_come(model):
    """With batch=1 the first answer is there before the second line is."""
    words = [sys.executable, "-m", "lmctl", "predict", f"model_path={model}", "batch=1", "runner=cpu"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                               cwd=ROOT, env=environment(model / "cache"))  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    for text in ("the cat", "a dog"):
        process.stdin.write(f"{text}\n")
        process.stdin.flush()
        assert process.stdout.readline().rstrip().endswith(f"\t{text}")
    process.stdin.close()
    assert process.wait(60) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A run that has learnt two topics beside masked words, and one that tells pairs apart, columns by other names."""
    place = tmp_path_factory.mktemp("runs")
    texts = [f"{'the cat sees' if n % 3 else 'a dog likes'} {n} apples" for n in range(90)]
    rows = [f"{text}\t{texts[-n]}\t{'cat' if n % 3 else 'dog'}\n" for n, text in enumerate(texts)]
    (place / "rows.tsv").write_text("".join(["first\tsecond\ttopic\n", *rows]))
    (place / "text.txt").write_text("".join(f"{text}.\n{text} too.\n\n" for text in texts))
    small = [*SMALL[1:], "budget.steps=20", "optim.lr=3e-3"]
    topics = "mix.tasks.topics.data"
    table = [f"data@{topics}=table", f"{topics}.path=rows.tsv", f"{topics}.text=first", f"{topics}.label=topic"]
    text = ["mix=multitask", "data=text", "data.path=text.txt"]
    pairs = ["mix=pairs", "data=table", "data.path=rows.tsv", "data.text=first", "data.text_b=second"]
    succeed("train", *text, *table, *small, "name=multi", cwd=place)
    succeed("train", *pairs, "data.label=topic", *small, "name=pairs", cwd=place)
    return place


def test_a_head_beside_a_language_model_labels_as_eval_says(runs, monkeypatch):
    """One task labels, so it need not be named; its column is the one that it was trained on."""
    monkeypatch.chdir(runs)
    found = predicted(Path("runs/multi"), file="rows.tsv")
    assert {row["task"] for row in found} == {"topics"}
    right = [row["label"] == row["input"]["topic"] for row in found]
    said("eval", Path("runs/multi"), task="topics", split="all", out="one.json")
    assert json.loads((runs / "one.json").read_text())["classification"]["accuracy"] == np.mean(right)
    with pytest.raises(ConfigError, match="corpus labels no rows") as refused:
        predicted(Path("runs/multi"), task="corpus", file="rows.tsv")
    assert refused.value.hint == "tasks that label: topics"


def test_a_run_on_pairs_reads_pairs(runs, monkeypatch):
    monkeypatch.chdir(runs)
    for path in ("runs/pairs", "runs/pairs/model"):
        found = predicted(Path(path), file="rows.tsv")
        assert all(row["texts"] == [row["input"]["first"], row["input"]["second"]] for row in found)
    assert predicted(Path("runs/pairs"), "") == []
    with pytest.raises(DataError, match="standard input:1: not a pair: 0 tabs, and pairs are a<TAB>b"):
        predicted(Path("runs/pairs"), "one text\n")


@pytest.mark.parametrize("name", ["pairs", "multi"])
def test_the_closing_words_of_a_run_lead_here(runs, name):
    """What a run says at its end is a command that works."""
    plan = Plan.from_config(OmegaConf.load(runs / "runs" / name / "config.yaml"))
    words = closing_words(summary(runs / "runs" / name), Paths(Path("runs") / name), plan)
    assert any(f"lmctl predict model_path=runs/{name} file=FILE" in line for line in words)
