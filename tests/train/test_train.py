"""`lmctl train` end to end: the run directory, the model that plain transformers loads, and bad input."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import command
import pytest
import torch
from anybody import anybody
from command import SMALL, environment, metrics, summary, write_documents
from in_process import lmctl, succeed
from safetensors.torch import load_file

SHORT = ["budget.steps=12", "eval.every=6", "model.dropout=0"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a text, a finished run called `done`, and the cache of both."""
    folder = tmp_path_factory.mktemp("home")
    write_documents(folder / "docs.txt")
    command.succeed("train", *SMALL, *SHORT, "data.path=docs.txt", "name=done", cwd=folder)
    return folder


def test_the_run_directory_holds_what_it_promises(home):
    run = home / "runs" / "done"
    model = [f"model/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md")]
    saved = [f"checkpoints/{name}" for name in ("latest", "best", "step-00000012/manifest.json")]
    record = ["config.yaml", "environment.json", "metrics.jsonl", "summary.json", "plots/loss.png"]
    assert [name for name in model + saved + record if (run / name).stat().st_size == 0] == []
    end = summary(run)
    assert end["status"] == "completed"
    assert end["steps"] == 12
    assert set(end["valid"]) == {"loss", "corpus/mlm", "corpus/mlm_accuracy", "corpus/nsp", "corpus/nsp_accuracy"}
    assert end["valid"]["loss"] == pytest.approx(end["valid"]["corpus/mlm"] + end["valid"]["corpus/nsp"])
    assert end["baseline"]["corpus/nsp_accuracy"] == 0.5
    assert end["model_bytes"] == (run / "model" / "model.safetensors").stat().st_size
    assert end["parameters"]["total"] == end["parameters"]["trainable"] > 10_000
    assert end["precision"]["compute"] == "fp32"
    assert end["best"]["value"] == min(line["loss"] for line in metrics(run) if line["split"] == "valid")


def test_the_metrics_are_one_line_per_log_point(home):
    lines = metrics(home / "runs" / "done")
    assert [line["step"] for line in lines if line["split"] == "train"] == [3, 6, 9, 12]
    assert [line["step"] for line in lines if line["split"] == "valid"] == [0, 6, 12]
    for line in lines:
        assert line["loss"] == pytest.approx(line["loss/corpus/mlm"] + line["loss/corpus/nsp"])
        assert line["split"] == "valid" or line.keys() >= {"lr", "grad_norm", "loss_scale", "skipped_steps"}


def test_plain_transformers_loads_the_model_and_computes_the_same(home):
    from transformers import AutoTokenizer, BertForPreTraining

    run = home / "runs" / "done"
    model, info = BertForPreTraining.from_pretrained(run / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    inputs = tokenizer("The cat [MASK] the river 3.", "A dog likes the winter 4.", return_tensors="pt")
    assert inputs["token_type_ids"].sum() > 0
    with torch.no_grad():
        theirs = model.eval()(**inputs)

    from lmctl.model.bert_network import BertNetwork

    ours = BertNetwork(BertForPreTraining(model.config), {"mlm": 0, "pair": 2}).eval()
    ours.load_state_dict(load_file(run / "checkpoints" / "step-00000012" / "model.safetensors"), strict=False)
    ours.model.tie_weights()
    with torch.no_grad():
        length = inputs["input_ids"].shape[1]
        hidden = ours.encode(dict(inputs) | {"attention_mask": inputs["attention_mask"].bool()}, torch.arange(length))
        torch.testing.assert_close(ours.head("mlm", hidden), theirs.prediction_logits[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.head("pair", hidden[:1]), theirs.seq_relationship_logits, rtol=1e-5, atol=1e-6)


def test_the_saved_config_repeats_the_run(home):
    succeed("train", "--from", "runs/done/config.yaml", "name=again", cwd=home)
    assert metrics(home / "runs" / "again") == metrics(home / "runs" / "done")
    weights = [(home / "runs" / name / "model" / "model.safetensors").read_bytes() for name in ("done", "again")]
    assert weights[0] == weights[1]


OURS = ["runner.processes=2"], command.command()
TORCHRUN = [], [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "lmctl"]


@pytest.mark.parametrize(
    ("mix", "launcher"),
    [pytest.param("mlm_nsp", OURS, marks=pytest.mark.slow), ("multitask", TORCHRUN)],  # which has both
    ids=["ours", "torchrun"],
)
def test_two_processes_and_accumulation_give_the_run_of_one(home, mix, launcher):
    words, launched = launcher
    more = ["runner=ddp", "runner.device=cpu", "batch.micro=2", *words]
    same = [*SHORT, "model.attention_dropout=0", "data.path=docs.txt", f"mix={mix}"]
    succeed("train", *SMALL, *same, f"run_dir=runs/{mix}/one", cwd=home)
    arguments = [word for word in SMALL if not word.startswith("runner=")]
    two = [*launched, "train", *arguments, *same, f"run_dir=runs/{mix}/two", *more]
    subprocess.run(two, cwd=home, env=environment(home / "cache"), timeout=240, check=True)
    runs = home / "runs" / mix
    one, two = (load_file(runs / name / "model" / "model.safetensors") for name in ("one", "two"))
    mine, theirs = (torch.cat([weights[name].flatten() for name in sorted(one)]) for weights in (one, two))
    assert (mine - theirs).norm() < 1e-6 * mine.norm()
    for line, other in zip(metrics(runs / "one"), metrics(runs / "two"), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert line["tokens"] == other["tokens"]
    size = summary(runs / "two")["parameters"]["total"]
    assert summary(runs / "two")["bytes_sent"] == 12 * size * 4
    assert summary(runs / "one")["bytes_sent"] == 0


def test_half_precision_and_early_stopping_through_the_command_line(home):
    words = ["precision=fp16", "early_stop.patience=1", "optim.lr=0.9", "budget.steps=40", "eval.every=4"]
    done = succeed("train", *SMALL, "data.path=docs.txt", "name=early", *words, cwd=home)
    end = summary(home / "runs" / "early")
    assert "stopping early: 1 validations without a better loss" in done.stderr
    assert end["steps"] < 40
    assert end["best"]["step"] < end["steps"]
    assert end["valid"]["loss"] == pytest.approx(end["best"]["value"], rel=1e-6)  # the best model is what is exported
    assert end["precision"]["half_products"] > 0
    assert "fp16" in end["precision"]["compute"]


def test_prepare_fills_the_cache_and_prints_a_card(home, tmp_path):
    words = ["prepare", "data=text", f"data.path={home / 'docs.txt'}", "tokenizer.vocab_size=300"]
    first = succeed(*words, cwd=tmp_path)
    assert "28 documents" in first.stdout
    assert first.stderr.count("cache miss: built") == 3
    assert succeed(*words, cwd=tmp_path).stderr.count("cache hit") == 3
    assert succeed(*words, "tokenizer.vocab_size=100", cwd=tmp_path).stderr.count("cache miss: built") == 3
    larger = succeed(*words, "tokenizer.vocab_size=30000", cwd=tmp_path)
    assert "(asked for 30,000: the text gives no more)" in larger.stderr


def test_gzip_and_chinese(tmp_path):
    sentences = ["今天天气很好。", "我们去公园散步。", "他喜欢读书。", "北京是中国的首都。", "这本书很有意思！"]
    text = "\n\n".join("\n".join(sentences[i % 5 :] + sentences[: i % 5]) + f"\n第{i}段。" for i in range(20))
    (tmp_path / "zh.txt.gz").write_bytes(gzip.compress(text.encode()))
    done = succeed("prepare", "data=text", "data.path=zh.txt.gz", "tokenizer.vocab_size=300", cwd=tmp_path)
    assert "corpus/train: 18 documents" in done.stderr
    assert "0.00% unknown" in done.stdout


def test_an_existing_run_is_not_written_over(home):
    before = (home / "runs" / "done" / "metrics.jsonl").read_bytes()
    done = lmctl("train", *SMALL, *SHORT, "data.path=docs.txt", "name=done", cwd=home)
    assert done.returncode == 2
    assert "runs/done already holds a run (completed)" in done.stderr
    assert "resume=auto" in done.stderr
    assert (home / "runs" / "done" / "metrics.jsonl").read_bytes() == before
    (home / "runs" / "notes").mkdir()
    (home / "runs" / "notes" / "mine.txt").write_text("mine")
    done = lmctl("train", *SMALL, *SHORT, "data.path=docs.txt", "name=notes", cwd=home)
    assert done.returncode == 2
    assert "exists and is not empty" in done.stderr


def test_a_mistyped_metric_costs_nothing(home):
    words = ["train", *SMALL, *SHORT, "data.path=docs.txt", "name=typo"]
    done = lmctl(*words, "early_stop.metric=corpus/nsp_acuracy", cwd=home)
    assert done.returncode == 2
    assert "did you mean corpus/nsp_accuracy?" in done.stderr
    succeed(*words, "early_stop.metric=corpus/nsp_accuracy", cwd=home)


def test_divergence_has_its_own_exit_code(home):
    words = ["optim.lr=1e30", "clip_norm=null", "schedule=constant", "schedule.warmup=0"]
    done = lmctl("train", *SMALL, *SHORT, "data.path=docs.txt", "name=wild", *words, cwd=home)
    assert done.returncode == 4, done.stderr
    assert "diverged at step" in done.stderr
    assert "lower optim.lr" in done.stderr
    assert summary(home / "runs" / "wild")["status"] == "failed"


def test_a_folder_without_permission(home, tmp_path):
    tmp_path.chmod(0o500)
    with anybody():
        done = lmctl("train", *SMALL, *SHORT, "data.path=docs.txt", f"run_dir={tmp_path}/r", cwd=home)
    assert done.returncode == 6
    assert "Permission denied" in done.stderr


def test_the_environment_is_recorded_without_secrets(home):
    recorded = json.loads((home / "runs" / "done" / "environment.json").read_text())
    assert recorded["packages"]["torch"].startswith("2.")
    assert recorded["fingerprints"].keys() == {"tokenizer", "corpus"}
    assert str(home) not in (home / "runs" / "done" / "config.yaml").read_text()
