"""`format=json`: valid JSON lines and nothing else on standard output, with the values that the text output shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import use_models
import yaml
from command import ROOT, write_documents
from tokenizers.normalizers import Lowercase
from use_models import records, said

from lmctl.cli.main import main
from lmctl.config.comments import commented_keys
from lmctl.config.compose import Composer, conf_dir
from lmctl.inference import progress
from lmctl.inference.likelihood import texts
from lmctl.train.display import Display

DOCS = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
SMALL = ["data=text", "data.path=text.txt", "tokenizer.vocab_size=300", "batch.seq_len=32"]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return use_models.gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMCTL_CACHE", str(tmp_path_factory.getbasetemp() / "json-cache"))
    monkeypatch.setenv("COLUMNS", "250")
    write_documents(tmp_path / "text.txt", 30)
    (tmp_path / "rows.tsv").write_text(
        "text\tlabel\n" + "".join(f"the cat sees {n} apples\t{'cat' if n % 3 else 'dog'}\n" for n in range(60))
    )
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(list(words)) == code
    return capsys.readouterr().out


def section(verb: str) -> str:
    """What docs/json.md says of a verb."""
    return next(part for part in re.split(r"^## ", DOCS, flags=re.MULTILINE)[1:] if part.split()[0].rstrip(":") == verb)


def documented(verb: str, record: dict[str, Any]) -> None:
    for field in record:
        assert f"`{field}`" in section(verb), f"docs/json.md: {verb}: {field}"


def test_scores_are_those_of_the_table_and_of_the_model(gpt2):
    typed = "the cat sits\n\na dog runs on the mat .\n"
    found = records(said("score", gpt2, typed, format="json"))
    table = [line.split("\t") for line in said("score", gpt2, typed).splitlines()][1:]
    expected = texts(use_models.opened(gpt2), typed.split("\n")[:-1], 4, 64)
    for row, cells, nats in zip(found, table, expected, strict=True):
        assert (row["logprob"], row["tokens"]) == (pytest.approx(nats.sum()), len(nats))
        assert [f"{row['logprob']:.4f}", str(row["tokens"]), f"{row['per_token']:.4f}", row["text"]] == cells
        documented("score", row)
    assert [row["row"] for row in found] == [1, 2, 3]


def test_pairs_and_lists_are_those_of_the_table(gpt2, tmp_path):
    typed = "the cat\tcat the\na b\tb a\n"
    found = records(said("score", gpt2, typed, format="json"))
    for row, line in zip(found, said("score", gpt2, typed).splitlines()[1:], strict=True):
        logprobs = [f"{row[name]:.4f}" for name in ("logprob_good", "logprob_bad")]
        assert [*logprobs, str(int(row["right"])), row["good"], row["bad"]] == line.split("\t")
        documented("score", row)
    lists = tmp_path / "lists.jsonl"
    hyps = [{"text": "a b", "score": -1.0}, {"text": "a c d", "score": -2.0}]
    lists.write_text("".join(json.dumps({"id": n, "ref": "a c d", "hyps": hyps}) + "\n" for n in range(5)))
    settings = {"file": str(lists), "dev": str(lists)}
    found = records(said("score", gpt2, **settings, format="json"))
    table = [line.split("\t") for line in said("score", gpt2, **settings).splitlines()]
    for row, cells in zip(found, table[1:3], strict=True):
        shown = {name: f"{row[name]:.2f}" if name.startswith("wer") else str(row[name]) for name in table[0]}
        assert list(shown.values()) == cells
        documented("score", row)
    assert f"weight {found[0]['weight']:g}  word bonus {found[0]['bonus']:g}" in table[3][0]


def test_figures_of_eval_are_those_of_its_file_and_table(gpt2, tmp_path, capsys):
    data = {"_target_": "use_models.Rows", "train": [["the cat"], ["a dog ."]], "valid": [["a b c"]]}
    settings = {"data": data, "trusted": ["use_models"], "out": str(tmp_path / "eval.json")}
    [found] = records(said("eval", gpt2, **settings, format="json"))
    documented("eval", found)
    assert found["figures"] == json.loads((tmp_path / "eval.json").read_text())["perplexity"]
    assert (found["suite"], found["n"], found["split"], found["numerics"]) == ("perplexity", 3, "all", None)
    assert f"{found['figures']['bits_per_byte']:.4f}" in said("eval", gpt2, **settings)
    capsys.readouterr()


def test_eval_says_at_once_what_it_does(gpt2, tmp_path, capsys, monkeypatch):
    """Before the model is loaded, which takes the longest; and nothing of it on standard output."""

    def unloaded(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmctl.inference.load.load", unloaded)
    data = {"_target_": "lmctl.data.table.Table", "path": "test.tsv"}
    with pytest.raises(KeyboardInterrupt):
        said("eval", gpt2, data=data, suite="perplexity", out=str(tmp_path / "eval.json"))
    err = " ".join(capsys.readouterr().err.split())
    assert f"eval: model_path={gpt2}: suite=perplexity, on Table test.tsv; loading the model" in err


def test_progress_counts_rows_and_batches(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    model = torch.nn.Linear(2, 2)
    watch = progress.Watch(Display(), "perplexity")
    with watch.over(model):
        for _ in watch.rows(iter([[1], [2], [3]])):
            model(torch.zeros(1, 2))
    model(torch.zeros(1, 2))  # not watched any more
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "perplexity: 3 rows read, 3 batches through the model" in captured.err
    assert watch.batches == 3


@pytest.mark.parametrize(
    ("words", "term"),
    [
        (["mix=mlm_nsp"], "nsp"),
        (["mix=clm", "model=gpt2_tiny"], "lm"),
        (["mix=denoise"], "lm"),
        (["mix=clm_stream", "tokenizer=word"], "lm"),
        (["mix=classify", "data=table", "data.path=rows.tsv", "data.label=label", "augment=char_noise"], "label"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_peek_has_every_field_of_the_rows_it_shows(folder, capsys, words, term):
    words = [*SMALL, *words, "rows=2"]
    found = records(printed(capsys, "peek", *words, "format=json"))
    text = printed(capsys, "peek", *words)
    assert len(found) == 2
    for row in found:
        documented("peek", row)
        assert f"\nrow {row['row']}, {row['count']} tokens" in text
        assert f"{row['of']:,} rows" in text
        assert term in row["targets"]
        side = "decoder_ids" if row["decoder_ids"] else "ids"
        for name in row["targets"].keys() & {"mlm", "lm"}:
            target = row["targets"][name]
            assert len(target["positions"]) == len(target["labels"]) == len(target["tokens"]) > 0
            assert max(target["positions"]) < len(row[side])
            shown = "decoder_tokens" if row["decoder_ids"] else "tokens"
            for place, token in zip(target["positions"], target["tokens"], strict=True):
                assert f"{row[shown][place]}→{token}" in text
        if term == "lm" and row["documents"]:  # a place predicts the piece behind it
            for place, label in zip(target["positions"], target["labels"], strict=True):
                assert place + 1 == len(row["ids"]) or row["ids"][place + 1] == label
        if term == "nsp":
            assert set(row["segments"]) == {0, 1}
        if term == "label":
            assert row["label"] in ("cat", "dog")
            assert f", label: {row['label']}" in text
            assert ("without augmentation" in text) == any(r["original"] is not None for r in found)


def test_peek_refuses_what_train_refuses(folder, capsys):
    too_long = ["model=bert_tiny", "batch.seq_len=600"]
    for words in (["mix=mlm", "model=gpt2_tiny"], ["mix=clm_stream", "model=gpt2_tiny"], too_long):
        errors = []
        for verb in ("peek", "train"):
            capsys.readouterr()
            assert main([verb, *SMALL, *words]) == 2
            errors.append(capsys.readouterr().err)
        assert errors[0] == errors[1] != ""


def test_a_plan_and_its_refusal(folder, capsys):
    words = ["data=text", "data.path=missing", "tokenizer.vocab_size=300", "runner=cpu", "batch.seq_len=32"]
    [found] = records(printed(capsys, "plan", *words, "format=json", "out=plan.json"))
    documented("plan", found)
    written = json.loads(Path("plan.json").read_text())
    assert {name: found[name] for name in written} == written
    assert f"parameters  {found['parameters']['total']:,}  " in printed(capsys, "plan", *words)
    [refused] = records(printed(capsys, "plan", *words, "model=gpt2_tiny", "format=json", code=2))
    assert (refused["legal"], "needs an encoder" in refused["why"]) == (False, True)
    assert "model=bert_tiny" in refused["nearest"]
    grid = ["-m", "mix=mlm,clm", "model=bert_tiny"]
    cells = records(printed(capsys, "plan", *words, *grid, "format=json", code=2))
    assert {cell["name"]: cell["legal"] for cell in cells} == {"mix=mlm": True, "mix=clm": False}
    for cell in cells:
        documented("plan", cell)


def test_the_list_has_every_option_and_every_key_with_its_comment(capsys):
    found = records(printed(capsys, "list", "format=json"))
    composer = Composer("train")
    assert [(row["group"], row["option"]) for row in found] == [
        (group, option) for group in composer.all_groups for option in composer.options(group)
    ]
    text = printed(capsys, "list")
    for row in found:
        documented("list", row)
        assert row["description"] in text
        written = yaml.safe_load((conf_dir() / row["group"] / f"{row['option']}.yaml").read_text(encoding="utf-8"))
        for key in row["keys"]:
            value: Any = written
            for part in key["key"].split("."):
                value = value[part]
            assert (None if value == "???" else value) == key["default"]
            assert key["required"] == (value == "???")
    assert [row["option"] for row in found if row["group"] == "precision" and row["default"]] == ["fp32"]
    [model] = [row for row in found if row["option"] == "bert_tiny"]
    [padded] = [key for key in model["keys"] if key["key"] == "pad_vocabulary_to"]
    assert padded["comment"].startswith("embedding rows are rounded up")
    one = records(printed(capsys, "list", "precision", "format=json"))
    assert one == [row for row in found if row["group"] == "precision"]
    assert printed(capsys, "list", "format=xml", code=2) == ""
    [option] = records(printed(capsys, "list", "precision.fp16", "format=json"))
    assert option == next(row for row in one if row["option"] == "fp16")
    rates = records(printed(capsys, "list", "optim.lr", "format=json"))
    assert {row["option"]: float(row["default"]) for row in rates} == {
        row["option"]: next(key["default"] for key in row["keys"] if key["key"] == "lr")
        for row in found
        if row["group"] == "optim"
    }
    [steps] = records(printed(capsys, "list", "budget.steps", "format=json"))
    assert (steps["option"], steps["default"], steps["type"]) == (None, "null", "int or null")


def test_comments_beside_keys_and_above_them():
    text = """# What it is
_target_: a.B
# said above,
# on two lines
one: 1
two: "a # b"   # said beside
three: [1, 2]  # of a list
four:
  five: ???
  six: {}
"""
    assert [tuple(key) for key in commented_keys(text)] == [
        ("one", 1, False, "said above, on two lines"),
        ("two", "a # b", False, "said beside"),
        ("three", [1, 2], False, "of a list"),
        ("four.five", None, True, ""),
        ("four.six", {}, False, ""),
    ]


@pytest.mark.parametrize("mix", ["clm", "denoise", "translate"])
def test_what_writes_text_keeps_capitals_by_default(mix):
    """A model that is to write should not have been taught in lower case."""
    cfg = Composer("train").task([f"mix={mix}", "name=x"])
    assert cfg.tokenizer._target_ == "lmctl.tokenizer.bpe.Bpe"
    assert not cfg.tokenizer.lowercase
    named = Composer("train").task([f"mix={mix}", "name=x", "tokenizer=wordpiece"])
    assert named.tokenizer.lowercase


def test_a_tokenizer_without_capitals_is_said(tmp_path, capsys):
    place = use_models.gpt2(tmp_path)
    said("generate", place, prompt="the cat", max_new_tokens=3)
    assert "no capitals" not in capsys.readouterr().err
    tokenizer = use_models.tokenizer("[SEP] $A")
    tokenizer.backend_tokenizer.normalizer = Lowercase()
    tokenizer.save_pretrained(place)
    said("generate", place, "The Cat\nThe Dog\n", max_new_tokens=3)
    assert capsys.readouterr().err.count("no capitals") == 1
