"""`lmctl eval` on data of any kind: where its figures go, which rows are measured, what is refused."""

from __future__ import annotations

import json

import pytest
import use_models
from omegaconf import OmegaConf
from use_models import evaluate

from lmctl.core.errors import ConfigError


def test_figures_are_written_beside_those_of_other_suites(gpt2, tmp_path, capsys):
    out = tmp_path / "figures.json"
    evaluate(gpt2, out=str(out))
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("the cat\tthe cat sits on the mat .\nthe dog runs on the red mat\tthe\n")
    evaluate(gpt2, suite="minimal_pairs", file=str(pairs), out=str(out))
    found = json.loads(out.read_text())
    assert set(found) == {"perplexity", "minimal_pairs"}
    assert (found["minimal_pairs"]["accuracy"], found["minimal_pairs"]["pairs"]) == (0.5, 2)
    assert (found["perplexity"]["documents"], found["perplexity"]["split"]) == (3, "all")
    printed = capsys.readouterr().out
    assert f"{found['perplexity']['bits_per_byte']:.4f}" in printed


@pytest.mark.parametrize(
    ("settings", "documents"), [({"split": "train"}, 2), ({"split": "valid"}, 1), ({"rows": 1}, 1)]
)
def test_some_of_the_rows(gpt2, tmp_path, settings, documents):
    out = tmp_path / "eval.json"
    evaluate(gpt2, out=str(out), **settings)
    assert json.loads(out.read_text())["perplexity"]["documents"] == documents


def test_a_run_is_measured_on_held_out_rows_and_keeps_its_figures(tmp_path):
    use_models.gpt2(tmp_path / "model")
    data = {"_target_": "use_models.Rows", "train": [["the cat"], ["a dog ."]], "valid": [["a b c"]]}
    objective = {"_target_": "lmctl.objective.clm.CausalLM"}
    task = {"_target_": "lmctl.mix.mix.Task", "data": "${data}", "objective": objective}
    config = {"data": data, "mix": {"_target_": "lmctl.mix.mix.Mix", "tasks": {"one": task}}, "batch": {"seq_len": 8}}
    OmegaConf.save(OmegaConf.create(config), tmp_path / "config.yaml")
    print_ = use_models.Rows(train=data["train"], valid=data["valid"]).fingerprint()
    (tmp_path / "environment.json").write_text(json.dumps({"fingerprints": {"one": json.dumps(print_)}}))
    evaluate(tmp_path, data)
    found = json.loads((tmp_path / "eval.json").read_text())["perplexity"]
    assert (found["split"], found["documents"]) == ("valid", 1)
    evaluate(tmp_path, data | {"valid": [["a"], ["b"]]})  # other rows beside those that were trained on
    found = json.loads((tmp_path / "eval.json").read_text())["perplexity"]
    assert (found["split"], found["documents"]) == ("all", 2)


def test_a_run_that_does_not_say_what_it_learnt_from(tmp_path, capsys):
    use_models.gpt2(tmp_path / "model")
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    evaluate(tmp_path, {"_target_": "use_models.Rows", "train": [["the cat"], ["a dog ."]]})
    assert "whether the model learnt from these rows cannot be told" in "".join(capsys.readouterr())


def test_auto_takes_what_the_model_calls_for(bert, marian, tmp_path):
    out = tmp_path / "eval.json"
    evaluate(bert, out=str(out))
    evaluate(marian, {"yields": "parallel", "train": [["a b", "c d"]]}, out=str(out), beams=1, max_new_tokens=3)
    names = {"yields": "labelled", "train": [["a b", "1"], ["c", "0"]]}
    evaluate(use_models.bert(tmp_path / "c", "BertForSequenceClassification"), names, out=str(out))
    assert set(json.loads(out.read_text())) == {"mlm", "translation", "classification"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"suite": "perplexty"}, "suite must be one of auto, perplexity"),
        ({"split": "test"}, "split must be one of"),
        ({"seq_len": 4}, "seq_len must be at least 8"),
        ({"out": "nowhere/eval.json"}, "there is no directory nowhere"),
        ({"suite": "mlm"}, "suite=mlm needs a masked language model"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(gpt2, settings, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(gpt2, **settings)


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ('{"a": 1}', "holds no figures")])
def test_other_files_are_not_overwritten(gpt2, tmp_path, text, message):
    out = tmp_path / "notes.json"
    out.write_text(text)
    with pytest.raises(ConfigError, match=message):
        evaluate(gpt2, out=str(out))
    assert out.read_text() == text
