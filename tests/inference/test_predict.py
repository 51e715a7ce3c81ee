"""`lmctl predict`: labels and probabilities are those of plain transformers, and rows stay in line with the input."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
import use_models
from command import ROOT, environment, summary
from omegaconf import OmegaConf
from use_models import records, said

from lmctl.cli.main import main
from lmctl.core.errors import ConfigError, DataError
from lmctl.core.paths import Paths
from lmctl.plan import Plan
from lmctl.train.summary import closing_words

TEXTS = ["the cat sits on the mat .", "a", "red dog , blue cat", "b c d e f g h i j", "the dog runs", "a , b , c"]
NAMES = ["neutral", "good", "bad"]


def classifier(folder: Path, **settings: Any) -> Path:
    """Every class is said of some of TEXTS: the bias takes away what all of them have in common."""
    place = use_models.bert(folder, "BertForSequenceClassification", **settings)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(place)
    network.classifier.bias.data -= torch.from_numpy(by_transformers(place, TEXTS).mean(axis=0)).float()
    return use_models.save(place, network)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return classifier(tmp_path_factory.mktemp("class"), id2label=dict(enumerate(NAMES)))


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    place = tmp_path_factory.mktemp("classes")
    return classifier(place, id2label=dict(enumerate(NAMES)), problem_type="multi_label_classification")


@pytest.fixture(scope="module")
def number(tmp_path_factory):
    return classifier(tmp_path_factory.mktemp("number"), num_labels=1, problem_type="regression")


def predicted(model: Path, typed: str = "", **settings: Any) -> list[dict[str, Any]]:
    return records(said("predict", model, typed, format="json", **settings))


def lines_of(texts: list[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def by_transformers(model: Path, *sides: list[str]) -> np.ndarray:
    """float64 [R, C]: logits of one row at a time, so that nothing is padded."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    with torch.no_grad():
        rows = [network(**tokenizer(*row, return_tensors="pt")).logits[0] for row in zip(*sides, strict=True)]
    return torch.stack(rows).double().numpy()


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
    assert [row["label"] for row in found] == pytest.approx(by_transformers(number, TEXTS)[:, 0], abs=1e-6)
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


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    file = folder / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif kind == "txt":
        file.write_text(lines_of(["\t".join(row[key] for key in ("text", "text_b")) for row in rows]))
    else:
        writer = csv.writer(file.open("w", newline=""), delimiter="\t" if kind == "tsv" else ",")
        writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    return file


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl", "txt"])
def test_every_kind_of_file_gives_the_same_answers(model, tmp_path, kind):
    rows = [{"n": str(n), "text": text, "text_b": TEXTS[-n]} for n, text in enumerate(TEXTS)]
    found = predicted(model, file=str(write(tmp_path, kind, rows)))
    typed = lines_of([f"{row['text']}\t{row['text_b']}" for row in rows])
    piped = predicted(model, typed)
    assert [row["probabilities"] for row in found] == [pytest.approx(row["probabilities"]) for row in piped]
    expected = rows if kind != "txt" else [{key: row[key] for key in ("text", "text_b")} for row in rows]
    assert [row["input"] for row in found] == expected


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "txt"])
def test_standard_input_is_read_as_files_are(model, tmp_path, kind):
    rows = [{"text": 'a , "b" c', "text_b": "the cat"}, {"text": "red dog", "text_b": "a"}]
    file = write(tmp_path, kind, rows)
    piped = predicted(model, file.read_text(), file="-")
    assert piped == predicted(model, file=str(file))
    if kind in ("csv", "tsv"):  # a header is told by the run's column in it
        assert piped == predicted(model, file.read_text(), file="-", input="table")
    if kind == "csv":
        assert len(predicted(model, file.read_text(), file="-", input="lines")) == len(piped) + 1
    assert len({row["probability"] for row in piped}) == 2


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize(("name", "text"), [
    ("rows.csv", "text,n\nthe cat,1\na dog,2\n"),
    ("rows.jsonl", '{"text": "the cat"}\n{"text": "a dog"}\n'),
])  # fmt: skip
def test_a_table_has_the_same_lines_on_standard_input_as_in_a_file(model, tmp_path, name, text, end):
    """Some programs end lines with \\r alone."""
    file = tmp_path / name
    file.write_bytes(text.replace("\n", end).encode())
    kind = {"rows.csv": "table"}.get(name, "jsonl")
    found = predicted(model, file.read_bytes().decode(), file="-", input=kind)
    assert [row["texts"] for row in found] == [["the cat"], ["a dog"]]
    assert found == predicted(model, file=str(file))


def test_columns_are_those_of_the_run_unless_others_are_named(model, tmp_path):
    file = write(tmp_path, "csv", [{"text": "the cat", "other": "a dog", "label": "x"}])
    [plain], [other] = predicted(model, file=str(file)), predicted(model, file=str(file), text="other")
    assert (plain["texts"], other["texts"]) == (["the cat"], ["a dog"])
    [pair] = predicted(model, file=str(file), text_b="other")
    assert pair["texts"] == ["the cat", "a dog"]
    with pytest.raises(
        ConfigError, match=r"rows\.csv:2: no column 'texts'.*did you mean 'text'|no column 'texts'"
    ) as bad:
        predicted(model, file=str(file), text="texts")
    assert "text=COLUMN says which" in str(bad.value.hint)


def test_an_empty_line_has_an_empty_answer(model):
    typed = "\nthe cat\n\n  \na dog\n"
    alone = [predicted(model, f"{text}\n")[0] for text in ("the cat", "a dog")]
    found = predicted(model, typed)
    assert [row["label"] for row in found] == [None, alone[0]["label"], None, None, alone[1]["label"]]
    assert [row["row"] for row in found] == [1, 2, 3, 4, 5]
    assert len(said("predict", model, typed).splitlines()) == 5
    assert said("predict", model, typed).splitlines()[2] == "\t\t"


BAD = {
    "csv": ('text,n\nthe cat,1\n"",2\na dog,3,3\nred dog,4\n', 3, "column 'text' is empty"),
    "jsonl": ('{"text": "the cat"}\n{"text": null}\n[]\n{"text": "red dog"}\n', 2, "column 'text' is empty"),
    "txt": ("the cat\ta\nno pair\na\tb\tc\nred dog\ta\n", 2, "not a pair: 0 tabs"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("shown", ["text", "json", "csv", "tsv"])
def test_bad_rows_end_it_or_keep_their_place(model, tmp_path, kind, shown, capsys):
    text, line, message = BAD[kind]
    (tmp_path / f"rows.{kind}").write_text(text)
    settings = {"file": str(tmp_path / f"rows.{kind}"), "format": shown}
    with pytest.raises(DataError, match=f"rows.{kind}:{line}: {message}"):
        said("predict", model, **settings)
    printed = said("predict", model, **settings, on_bad_row="skip")
    if shown == "json":
        labels = [row["label"] for row in records(printed)]
    elif shown == "text":
        labels = [row.split("\t")[0] for row in printed.splitlines()]
    else:
        read = csv.DictReader(io.StringIO(printed), delimiter="\t" if shown == "tsv" else ",")
        labels = [row["label"] for row in read]
    assert [bool(label) for label in labels] == [True, False, False, True]
    assert f"4 rows, 2 of them bad and without an answer; the first: {tmp_path}/rows.{kind}:{line}: {message}" in (
        " ".join(capsys.readouterr().err.split())
    )


def test_text_csv_and_json_say_the_same(model, tmp_path):
    rows = [
        {"text": 'the "cat", sits', "label": "gold", "probability": "x"},
        {"text": "a", "label": "", "probability": "y"},
    ]
    file = str(write(tmp_path, "csv", rows))
    whole = predicted(model, file=file)
    table = list(csv.DictReader(io.StringIO(said("predict", model, file=file, format="csv", probabilities=True))))
    plain = [line.split("\t") for line in said("predict", model, file=file, probabilities=True).splitlines()]
    for given, one, cells, words in zip(rows, whole, table, plain, strict=True):
        assert {name: cells[name] for name in given} == given  # gold labels are not written over
        assert (cells["predicted_label"], float(cells["predicted_probability"])) == (one["label"], one["probability"])
        shares = [float(cells[f"probability_{name}"]) for name in NAMES]
        assert shares == list(one["probabilities"].values())
        assert words == [one["label"], f"{one['probability']:.4f}", *(f"{s:.4f}" for s in shares), given["text"]]


def test_csv_of_several_labels_is_read_back_as_labels(several, tmp_path):
    file = write(tmp_path, "csv", [{"text": text} for text in TEXTS])
    said("predict", several, file=str(file), format="csv", out=str(tmp_path / "labelled.csv"))
    out = tmp_path / "eval.json"
    data = {"_target_": "lmctl.data.table.Table", "path": str(tmp_path / "labelled.csv"), "label": "label"}
    if all(row["label"] for row in predicted(several, file=str(file))):
        said("eval", several, suite="classification", data=data, split="all", out=str(out))
        assert json.loads(out.read_text())["classification"]["accuracy"] == 1.0


@pytest.mark.parametrize("first", ['{"text": "a"', '{"text": "a", }', "{}", '{ "x": 1}'])
def test_a_first_line_that_is_broken_json_is_not_taken_for_text(model, first):
    with pytest.raises((DataError, ConfigError), match="standard input:1: "):
        predicted(model, first + '\n{"text": "b"}\n')
    assert predicted(model, "{ a b }\n")[0]["texts"] == ["{ a b }"]
    assert predicted(model, first + "\n", input="lines")[0]["texts"] == [first]


def test_half_a_surrogate_pair_is_a_bad_row_and_can_be_shown(model, capsys):
    """In a column that is read it is no text; in another one it is replaced, so that the line is valid JSON."""
    typed = '{"text": "\\ud83d", "x": 1}\n{"text": "a", "x": "\\ud83d"}\n'
    with pytest.raises(DataError, match=r"standard input:1: .*surrogate"):
        predicted(model, typed)
    first, second = predicted(model, typed, on_bad_row="skip")
    assert (first["label"], second["input"]["x"]) == (None, "\ufffd")
    assert "standard input:1" in str(first["error"])
    capsys.readouterr()


def test_other_keys_in_later_rows_are_not_lost(model, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a", "x": [1, null]}\n{"text": "b", "y": 1}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:2: has a column 'y' that the first row has not"):
        said("predict", model, file=str(file), format="csv")
    assert [row["input"] for row in predicted(model, file=str(file))] == [
        {"text": "a", "x": [1, None]},
        {"text": "b", "y": 1},
    ]


def test_a_file_is_written_whole_or_not_at_all(model, tmp_path):
    out, file = tmp_path / "out.csv", tmp_path / "rows.jsonl"
    out.write_text("before")
    file.write_text('{"text": "a"}\n' * 200 + '{"text": 5}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:201: column 'text' is not text"):
        said("predict", model, file=str(file), batch=2, format="csv", out=str(out))
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "rows.jsonl"]
    assert said("predict", model, file=str(file), out=str(out), on_bad_row="skip") == ""
    assert len(out.read_text().splitlines()) == 201


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"out": "nowhere/x.csv"}, "no file can be written there"),
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
    with pytest.raises(ConfigError, match="standard input:1: the model's answer is not a number"):
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
    small = ["tokenizer.vocab_size=300", "model.hidden=32", "model.feed_forward=64", "batch.size=8", "batch.seq_len=32"]
    budget = ["budget.steps=20", "runner=cpu", "optim.lr=3e-3", f"cache_dir={place}/cache"]
    topics = "mix.tasks.topics.data"
    table = [f"data@{topics}=table", f"{topics}.path=rows.tsv", f"{topics}.text=first", f"{topics}.label=topic"]
    text = ["mix=multitask", "data=text", "data.path=text.txt"]
    pairs = ["mix=pairs", "data=table", "data.path=rows.tsv", "data.text=first", "data.text_b=second"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["train", *text, *table, *small, *budget, "name=multi"]) == 0
        assert main(["train", *pairs, "data.label=topic", *small, *budget, "name=pairs"]) == 0
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
