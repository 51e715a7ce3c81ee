"""`lmctl plan`: legal or not in train's own words, one table for a grid, nothing read and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import write_documents

from lmctl.cli.main import main
from lmctl.config.compose import Composer
from lmctl.config.verb import verb as named

HERE = ["data=text", "data.path=missing", "tokenizer.vocab_size=300", "runner=cpu", "batch.seq_len=32"]
"""A run whose data does not exist."""
TWO = [*(word for word in HERE if word != "runner=cpu"), "runner=ddp", "runner.processes=2", "runner.device=cpu"]


def test_a_plan_reads_and_writes_nothing(elsewhere: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *HERE]) == 0
    text = capsys.readouterr().out
    assert text.startswith("legal\nparameters  ")
    assert "note        assumed: a vocabulary of 300 pieces, as many as tokenizer.vocab_size allows\n" in text
    assert "note        assumed: corpus has rows of 32 positions\n" in text
    assert "budget      3,600 steps" in text
    assert list(elsewhere.iterdir()) == []


def test_figures_go_into_a_file(elsewhere: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *HERE, "out=plan.json", "budget.epochs=3", "mix=mlm"]) == 0
    assert "as many steps as the data allows (budget.epochs)" in capsys.readouterr().out
    found = json.loads((elsewhere / "plan.json").read_text())
    assert [path.name for path in elsewhere.iterdir()] == ["plan.json"]
    components = found["memory"]["components"]
    assert found["legal"]
    assert found["memory"]["peak_bytes"] == sum(component["peak_bytes"] for component in components.values())
    assert found["with_other_checkpointing"]["peak_bytes"] < found["memory"]["peak_bytes"]
    assert found["wire"] == {
        "workers": 1,
        "simulated": False,
        "bytes": 0,
        "dense": 0,
        "seconds": 0.0,
        "collectives": [],
    }
    assert found["budget"]["tokens_per_step"] == 8 * 32
    assert found["budget"]["steps"] is None


def test_two_processes_send_their_gradients(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *TWO, "bandwidth_gbps=1", "latency_us=500", "out=plan.json"]) == 0
    found = json.loads(Path("plan.json").read_text())
    size = 4 * found["parameters"]["trainable"]
    assert found["wire"]["bytes"] == size  # a ring of two sends what it has once
    assert found["wire"]["seconds"] == pytest.approx(8 * size / 1e9 + 2 * 500e-6)  # there and back
    (one,) = found["wire"]["collectives"]
    assert (one["name"], one["of"], one["behind"]) == ("all-reduce", "gradients", "the backward pass")
    assert found["memory"]["components"]["gradients"]["peak_bytes"] == size


@pytest.mark.parametrize(
    "words",
    [
        ["mix=mlm", "model=gpt2_tiny"],
        ["model=bert_tiny", "batch.seq_len=1024"],
        ["mix=clm_stream", "gradient_checkpointing=true"],
        ["model=transformer_mt_tiny"],
        ["batch.seq_len=4"],
        ["model.layers=0"],
        ["precision=tf32"],
        ["precision=fp8"],
        ["precision=int8", "precision.exclude=['*']"],
        ["precision=int8_full", "compile=true"],
        ["precision=nf4_lora"],
        ["precision=bf16_pure", "precision.rounding=nearest"],
        ["precision=bf16_pure", "mix=clm_stream"],
        ["precision=int8", "mix=clm_stream"],
        ["optim=adamw8bit", "optim.paged=true"],
        ["compression=int8"],
        ["compression=int8", "compression.simulate_workers=3"],
        ["compression=topk_int8", "runner=simulated", "compression.exclude=['nothing*']"],
        ["compression=topk_int8", "runner=simulated", "compression.simulate_workers=4"],
        ["runner=simulated", "runner.workers=3"],
        ["compression=powersgd", "compression.simulate_workers=2", "compression.dense_below=10000000"],
        ["adversary=rdrop", "model.dropout=0.0", "model.attention_dropout=0.0"],
    ],
    ids=" ".join,
)
def test_refusals_are_those_of_train(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *HERE, *words]) == 2
    planned = capsys.readouterr()
    write_documents(Path("text.txt"), count=200)
    assert main(["train", *(word.replace("missing", "text.txt") for word in HERE), *words]) == 2
    assert planned.err == capsys.readouterr().err.split("tokens, cache miss: built\n")[-1]
    assert planned.out == ""


def test_rows_that_processes_cannot_share(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *TWO, "batch.size=9"]) == 2
    assert (
        capsys.readouterr().err
        == "error: batch.size=9 cannot be shared equally by 2 processes\n  nearest: batch.size=8\n"
    )


def test_a_grid_is_one_table(elsewhere: Path, capsys: pytest.CaptureFixture[str]):
    words = ["-m", *HERE, "model=bert_tiny,gpt2_tiny", "mix=mlm_nsp", "precision=fp32,bf16"]
    assert main(["plan", *words, "out=grid.json"]) == 2
    text = capsys.readouterr().out
    assert text.count("model=bert_tiny,precision=fp32 ") == 1
    assert "2 of 4 legal; these 2 not, because\n" in text
    assert (
        "  model=gpt2_tiny,precision=bf16: mix.tasks.corpus: MaskedLMAndNextSentence needs an encoder, and Gpt2 is a "
        "decoder\n    nearest: model=bert_tiny, or for this model mix=clm\n"
    ) in text
    rows = json.loads((elsewhere / "grid.json").read_text())
    assert [row["legal"] for row in rows] == [True, True, False, False]
    assert [path.name for path in elsewhere.iterdir()] == ["grid.json"]


@pytest.mark.parametrize("words", [HERE, ["-m", *HERE, "batch.size=4,8"]], ids=["one", "grid"])
def test_figures_need_a_folder(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *words, "out=nowhere/plan.json"]) == 2
    assert capsys.readouterr() == ("", "error: out=nowhere/plan.json: there is no directory nowhere\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_grid_breaks_no_lines(terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Files and pipes get them as long as they are, a narrow terminal fewer columns."""
    monkeypatch.setenv("COLUMNS", "75")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
    assert main(["plan", "-m", *HERE, "model=bert_tiny", "precision=fp32,bf16", "batch.size=4"]) == 0
    text = capsys.readouterr().out
    assert "2 of 2 legal\n" in text
    (row,) = [line.split() for line in text.splitlines() if "precision=bf16" in line]
    assert row[0].endswith("precision=bf16")
    assert row[1] == "yes"
    assert len(row) == (5 if terminal else 11)  # a size and its unit are two words


def test_a_grid_of_precisions_and_compressions(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "-m", *HERE, "precision=fp32,int8,fp8", "compression=none,topk_int8"]) == 2
    text = capsys.readouterr().out
    assert "2 of 6 legal; these 4 not, because\n" in text
    for precision in ("fp32", "int8"):
        assert f"compression=none,precision={precision} " in text
        assert f"  compression=topk_int8,precision={precision}: compression: there is no gradient exchange" in text
    assert text.count(": precision: fp8 needs an NVIDIA GPU") == 2


@pytest.mark.parametrize("more", [[], ["compression.simulate_workers=4"], ["runner=simulated", "runner.workers=4"]])
def test_compressed_gradients_say_what_they_send_and_keep(more: list[str], capsys: pytest.CaptureFixture[str]):
    words, simulated = [*HERE, *more] if more else TWO, bool(more)
    assert main(["plan", *words, "compression=topk_int8", "compression.warmup_steps=9", "out=plan.json"]) == 0
    text, found = capsys.readouterr().out, json.loads(Path("plan.json").read_text())
    wire, size = found["wire"], 4 * found["parameters"]["trainable"]
    assert (wire["workers"], wire["simulated"]) == ((4, True) if simulated else (2, False))
    assert 0 < wire["bytes"] < wire["dense"] / 20
    who = "each of 4 workers that one process plays" if simulated else "process"
    assert f"per step and {who} (" in text
    feedback = found["memory"]["components"]["error feedback"]["most_bytes"]
    assert feedback == pytest.approx(size * (4 if simulated else 1), rel=0.1)  # vectors are not compressed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["precision=fp32,fp61"], "error: no option 'fp61' in group 'precision'; did you mean precision=fp16?"),
        (["seed=1,2", "+typo=1"], "error: unknown key 'typo'"),
        (["optim.lr=interval(0.1,1)"], "error: optim.lr=interval(0.1,1) has no end of values"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_slips_in_a_grid_end_it(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "-m", *HERE, *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"{message}\n")
    assert captured.out == ""


def test_stages_are_cells(capsys: pytest.CaptureFixture[str], elsewhere: Path):
    assert main(["plan", "recipe=pretrain_finetune", "runner=cpu", "tokenizer.vocab_size=300", "name=both"]) == 0
    text = capsys.readouterr().out
    assert "3 of 3 legal\n" in text
    assert all(f"\n{stage} " in text for stage in ("pretrain", "finetune", "scratch"))
    assert list(elsewhere.iterdir()) == []


def test_plan_takes_what_train_takes():
    plan, train = Composer("plan"), Composer("train")
    assert plan.defaults == train.defaults
    own = set(plan.compose([])) - set(train.compose([]))
    assert own == {"measure", "bandwidth_gbps", "latency_us", "gpu", "gpu_memory_gib", "gpus", "out", "format"}
    assert any("-m" in example.split() for example in named("plan").examples)


def test_a_few_real_steps(capsys: pytest.CaptureFixture[str]):
    words = [*HERE, "measure=true", "budget.steps=100", "model.hidden=32", "model.feed_forward=64", "out=plan.json"]
    assert main(["plan", *words]) == 0
    text = capsys.readouterr().out
    found = json.loads(Path("plan.json").read_text())["measured"]
    assert found["steps"] == 8
    assert found["tokens_per_second"] > 0
    assert found["peak"] > 0
    assert " for the budget's steps\n" in text
    assert not Path("cache").exists()


def test_real_steps_of_a_share_of_the_rows(capsys: pytest.CaptureFixture[str]):
    words = [*TWO, "measure=true", "model.hidden=32", "model.feed_forward=64", "compression=int8", "adversary=fgm"]
    assert main(["plan", *words, "out=plan.json"]) == 0
    assert json.loads(Path("plan.json").read_text())["measured"]["steps"] == 8
    assert main(["plan", *words, "adversary=noise"]) == 2
    assert "error: measure=true: the adversary rewrites text" in capsys.readouterr().err
