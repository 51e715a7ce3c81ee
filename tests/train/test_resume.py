"""Resuming is bit-exact: a run that is killed at arbitrary moments ends with the bits of the undisturbed run."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import command
import pytest
from command import metrics, summary, write_documents
from in_process import lmctl, succeed
from interrupted import arguments, disturb, same, start

TWO = ["runner=ddp", "runner.processes=2", "runner.device=cpu", "mix=curriculum"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("text") / "docs.txt")


@pytest.mark.parametrize(
    ("more", "kills", "stops"),
    [(["mix=mlm_nsp"], 2, 1), pytest.param(TWO, 4, 1, marks=pytest.mark.slow)],
    ids=["one process", "several tasks in two processes"],
)
def test_killed_and_resumed_is_bit_exact(tmp_path, text, more, kills, stops):
    rng, whole = random.Random(7), command.succeed if more == TWO else succeed  # two processes have a launcher
    whole(*arguments(text, "undisturbed", *more), cwd=tmp_path)
    words = arguments(text, "killed", *more)
    codes = disturb(tmp_path, words, [(rng.uniform(0, 0.8), signal.SIGKILL) for _ in range(kills)])
    stopped = disturb(tmp_path, words, [(rng.uniform(0, 0.4), signal.SIGTERM)] * stops)
    last = whole(*words, cwd=tmp_path)
    assert "Traceback" not in last.stderr
    assert set(codes) <= {-signal.SIGKILL, 0}
    assert -signal.SIGKILL in codes  # else nothing was disturbed
    assert set(stopped) <= {75, 0}
    same(tmp_path, "undisturbed", "killed")


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["precision=fp16", "mix=mlm"],
        ["precision=bf16", "batch.micro=3"],
        ["schedule=wsd", "mix=mlm_nsp"],
        ["precision=int8_full", "optim=adamw8bit"],
        ["precision=int8_weights", "optim=muon"],
        ["precision=bf16_pure", "precision.rounding=kahan"],
    ],
    ids=["fp16", "accumulation", "wsd", "int8_full", "muon", "bf16_pure"],
)
def test_many_kills(tmp_path, text, more):
    rng = random.Random(11)
    succeed(*arguments(text, "undisturbed", *more), cwd=tmp_path)
    words = arguments(text, "killed", *more)
    signals = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
    codes = disturb(tmp_path, words, [(rng.uniform(0, 0.3), rng.choice(signals)) for _ in range(6)])
    assert sum(code != 0 for code in codes) >= 2, codes  # else the run was too short to be disturbed
    succeed(*words, cwd=tmp_path)
    same(tmp_path, "undisturbed", "killed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1], ids=lambda s: s.name)
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, text, number):
    """Until it comes, no other run writes there."""
    words = arguments(text, "stopped", "budget.steps=100000", "eval.every=1000")
    process = start(tmp_path, words)
    assert process is not None
    second = lmctl(*words, cwd=tmp_path)
    assert second.returncode == 2
    assert "another run is writing there now" in second.stderr
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert f"stopped: {number.name} after step " in said
    assert "resume=auto run_dir=runs/stopped" in said
    assert (tmp_path / "runs" / "stopped" / "checkpoints" / "latest").exists()


def test_a_second_signal_ends_it_at_once(tmp_path, text):
    words = arguments(text, "twice", "model.hidden=512", "model.feed_forward=2048", "batch.size=2048")  # slow steps
    process = start(tmp_path, words)
    assert process is not None
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said


def test_a_damaged_checkpoint_is_passed_over(tmp_path, text):
    words = arguments(text, "damaged")
    succeed(*[w.replace("budget.steps=60", "budget.steps=30") for w in words], cwd=tmp_path)
    checkpoints = tmp_path / "runs" / "damaged" / "checkpoints"
    newest = checkpoints / (checkpoints / "latest").read_text().strip()
    state = newest / "model.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"\0")
    # A longer budget changes the schedule, so this only has to go on, not to give the same bits.
    done = succeed(*words, cwd=tmp_path)
    assert f"checkpoint {newest.name} is damaged (model.safetensors has other contents" in done.stderr
    assert (checkpoints / f"broken-{newest.name}").is_dir()
    assert summary(tmp_path / "runs" / "damaged")["steps"] == 60


def test_what_may_not_change_on_resume(tmp_path):
    own = write_documents(tmp_path / "own.txt")
    run = arguments(own, "changed", "budget.steps=4")
    succeed(*run, cwd=tmp_path)
    for change, key in (("optim.lr=0.5", "optim.lr was 0.0015"), ("seed=9", "seed was 1"), ("mix=mlm", "mix.tasks")):
        refused = lmctl(*run, change, "budget.steps=8", cwd=tmp_path)
        assert refused.returncode == 2
        assert f"resume: {key}" in refused.stderr
        assert "cache" not in refused.stderr  # before any text is read
    assert "is complete (4 steps)" in succeed(*run, cwd=tmp_path).stderr
    own.write_text(own.read_text() + "\n\nA new document appears.\nIt has two lines.\n")
    refused = lmctl(*run, "budget.steps=8", cwd=tmp_path)
    assert refused.returncode == 2
    assert "is not the one this run began with" in refused.stderr


def test_the_run_knows_its_own_config(tmp_path, text):
    """What the run itself says to type: no data, no model, only where it is; a longer budget validates and saves."""
    run = tmp_path / "runs" / "short"
    succeed(*arguments(text, "short", "budget.steps=8", "eval.every=null", "checkpoint.every=null"), cwd=tmp_path)
    (run / "config.yaml").unlink()  # which a checkpoint knows as well
    done = succeed("train", "resume=auto", "run_dir=runs/short", "budget.steps=16", cwd=tmp_path)
    assert "config.yaml of runs/short is missing; it was written anew from step-00000008" in done.stderr
    assert summary(run)["steps"] == 16
    valid = [line["step"] for line in metrics(run) if line["split"] == "valid"]
    assert valid[-5:] == [10, 12, 13, 15, 16]


def test_going_back_to_an_earlier_checkpoint(tmp_path, text):
    words = arguments(text, "back", "checkpoint.keep=5", "budget.steps=16", "eval.every=8")
    succeed(*words, cwd=tmp_path)
    run = tmp_path / "runs" / "back"
    before, weights = metrics(run), (run / "model" / "model.safetensors").read_bytes()
    succeed("train", "resume=runs/back/checkpoints/step-00000008", cwd=tmp_path)
    assert (run / "checkpoints" / "undone-step-00000016").is_dir()
    assert metrics(run) == before
    assert (run / "model" / "model.safetensors").read_bytes() == weights
    elsewhere = lmctl("train", "resume=runs/back/checkpoints/step-00000008", "name=other", cwd=tmp_path)
    assert elsewhere.returncode == 2
    assert "is not a checkpoint of run_dir=runs/other" in elsewhere.stderr
    nameless = lmctl("train", "resume=auto", cwd=tmp_path)
    assert nameless.returncode == 2
    assert "resume=auto does not say which run" in nameless.stderr
