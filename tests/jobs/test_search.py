"""`lmctl search`: what is searched, that it goes on where it was stopped, and that bad trials are stopped early."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command import SMALL, write_documents
from in_process import run_here

from lmctl.cli.sweep_words import refuse_broken
from lmctl.config.overrides import Overrides
from lmctl.core.errors import ConfigError
from lmctl.jobs.job import Job
from lmctl.jobs.search_space import Axis, axes_and_rest, words_of

TRIAL = """
import json, math, os, signal, sys, time
from pathlib import Path
run, lr, layers = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
loss = abs(math.log10(lr) + 3) + layers / 100
if lr > 0.09: sys.exit("error: it diverged")
with open(run / "metrics.jsonl", "a") as file:
    for step in range(4):
        file.write(json.dumps({"step": step, "split": "valid", "loss": loss + (4 - step) / 10}) + "\\n")
        file.flush()
        time.sleep(0.3 if loss > 1.5 else 0)
summary = {"status": "completed", "steps": 3, "valid": {"loss": loss},
           "valid_metrics": {"loss": {"higher_is_better": False}}}
(run / "summary.json").write_text(json.dumps(summary))
"""
"""Stands for a run: its loss is best at lr=1e-3; it says as much of itself, and obeys signals."""
SPACE = ["optim.lr=tag(log,interval(1e-5,1e-1))", "model.layers=1,2"]


@pytest.mark.parametrize(
    ("word", "axis"),
    [
        ("optim.lr=interval(1e-4,1e-2)", Axis("optim.lr", (), 1e-4, 1e-2)),
        ("optim.lr=tag(log,interval(1e-4,1e-2))", Axis("optim.lr", (), 1e-4, 1e-2, None, True)),
        ("model.layers=int(interval(1,8))", Axis("model.layers", (), 1, 8)),
        ("model.hidden=range(64,257,64)", Axis("model.hidden", (), 64, 256, 64)),
        ("clip_norm=range(0.5,2.0,0.5)", Axis("clip_norm", (), 0.5, 1.5, 0.5)),
        ("precision=fp32,bf16", Axis("precision", ("fp32", "bf16"))),
        ("precision=choice(fp32,bf16)", Axis("precision", ("fp32", "bf16"))),
        ("clip_norm=null,1.0", Axis("clip_norm", ("null", "1.0"))),
    ],
)
def test_hydras_grammar_says_what_is_searched(word: str, axis: Axis):
    axes, rest = axes_and_rest([word, "seed=3", "name='a b'"])
    assert (axes, rest) == ([axis], ["seed=3", "name='a b'"])
    assert axes[0].is_whole == axis.is_whole
    low = axis.ends[0]
    assert words_of(axes, {axis.key: low}) == [f"{axis.key}={low}"]
    assert axis.distribution()._contains(axis.distribution().to_internal_repr(low))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=3", "there is nothing to search"),
        ("optim.lr=tag(log,interval(0,1))", "a logarithm needs numbers above 0"),
        ("seed=range(3,3)", "stands for no value at all"),
    ],
)
def test_what_cannot_be_searched_is_said(word: str, said: str):
    with pytest.raises(ConfigError, match=said):
        axes_and_rest([word])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optim.lr=tag(log,interval(1e-4,1e-2)", r"the \( after 'tag' \(character 13\) is not closed"),
        ("optim.lr=interval(1e-4,1e-2))", r"the \) at character 29 closes nothing"),
        ("model.layers=[1,2", r"the \[ after 'model\.layers=' \(character 14\) is not closed"),
        ("model.layers=choice('a(',2", r"the \( after 'choice' "),
        ("optim.lr=interval(1e-4)", "missing a required argument: 'end'"),
        ("optim.lr=intervall(1,2)", "did you mean interval"),
    ],
)
def test_a_broken_space_is_said_with_its_place(word: str, said: str):
    with pytest.raises(ConfigError, match=said) as refused:
        refuse_broken(Overrides.typed(["seed=3", word]), ())
    assert str(refused.value).startswith(f"{word}: ")


@pytest.mark.parametrize(
    "word", ["name=choice(1", "data.path=print(x", "clip_norm='[1'", "model.layers=[1,2]", "~seed"]
)
def test_what_is_no_space_is_left_alone(word: str):
    refuse_broken(Overrides.typed([word]), ["name"])


def search(folder: Path, **changes: Any) -> Any:
    """A search whose trials take no time."""
    from lmctl.config.search_schema import SearchConfig
    from lmctl.jobs.search import Search

    axes, fixed = axes_and_rest(SPACE)
    settings = {"trials": 10, "prune_after": 3, "seed": 5, "pruner": "none", "metric": "loss"} | changes
    config = object.__new__(SearchConfig)
    defaults = {"at_once": 1, "gpus_per_trial": 0, "maximize": False, "sampler": "tpe", "limit_minutes": None}
    for name, value in (defaults | settings).items():
        object.__setattr__(config, name, value)

    def command_of(job: Job) -> list[str]:
        values = dict(word.split("=") for word in job.overrides)
        return [sys.executable, "-c", TRIAL, job.run_dir, values["optim.lr"], values["model.layers"]]

    return Search(config, folder, axes, fixed, command_of)


def proposed(one: Any) -> list[dict[str, Any]]:
    return [trial.params for trial in one.study.get_trials()]


def test_a_search_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    whole = search(tmp_path / "whole")
    whole.run()
    assert len({params["optim.lr"] for params in proposed(whole)}) == 10
    search(tmp_path / "parts", trials=4).run()
    interrupted = search(tmp_path / "parts", trials=4)
    interrupted.study.sampler = interrupted._sampler(4)
    interrupted.study.ask(interrupted.space)  # a trial that began when the search was killed
    capsys.readouterr()
    parts = search(tmp_path / "parts")
    parts.run()
    said = capsys.readouterr().out
    assert said.count("started") == 6
    shares = re.findall(r"(optim\.lr|model\.layers) (\d+)%", said.partition("importance of settings (PED-ANOVA, ")[2])
    page = (tmp_path / "parts" / "compare.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert {axis["name"]: f"{axis['importance']:.0%}" for axis in data["axes"]} == {k: f"{v}%" for k, v in shares}
    assert proposed(parts) == proposed(whole)
    best = min((one for one in parts.jobs if one.status == "completed"), key=lambda job: job.summary.loss)
    assert f"best: {best.name}, loss {best.summary.loss:.4f}" in said
    record = json.loads((tmp_path / "parts" / "summary.json").read_text())
    assert [row["name"] for row in record] == [job.name for job in parts.jobs]
    with pytest.raises(ConfigError, match="holds a search with other settings"):
        search(tmp_path / "parts", metric="corpus/mlm")


def test_bad_trials_are_stopped_and_failed_ones_do_not_end_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from lmctl.compare.importance import importance_lines

    one = search(tmp_path, pruner="median", at_once=2, trials=14)
    one.run()
    status = [job.status for job in one.jobs]
    assert {"completed", "pruned"} <= set(status) <= {"completed", "pruned", "failed"}
    states = [trial.state.name for trial in one.study.get_trials()]
    assert states == [{"completed": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}[word] for word in status]
    assert status.count("completed") < 8 or list(importance_lines(tmp_path))


def test_a_metric_has_a_direction(tmp_path: Path):
    with pytest.raises(ConfigError, match="metric=loss is better when it is lower"):
        search(tmp_path / "a", maximize=True).run()
    with pytest.raises(ConfigError, match="a trial has no such metric; there are: loss"):
        search(tmp_path / "b", metric="bleu").run()


SLOW_TRIAL = """
import json, signal, sys, time
from pathlib import Path
run = Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
names = {"loss": 1.0, "loss/corpus/mlm": 1.0 + float(sys.argv[2]), "corpus/mlm_accuracy": 0.5}
with open(run / "metrics.jsonl", "a") as file:
    for step in range(3):
        print(json.dumps({"step": step, "split": "valid", **names}), file=file, flush=True)
if len(sys.argv) > 4: time.sleep(60)
summary = {"status": "completed", "steps": 3, "valid": {n.removeprefix("loss/"): v for n, v in names.items()}}
(run / "summary.json").write_text(json.dumps(summary))
"""
"""Stands for a run with the names of real ones: a loss of a task is `loss/TASK/TERM` in its record."""


def test_a_metric_that_no_trial_has_is_told_by_the_first_validation(tmp_path: Path):
    one = search(tmp_path, metric="corpus/mlm_acuracy", pruner="none", trials=2)
    one.command_of = lambda job: [sys.executable, "-c", SLOW_TRIAL, job.run_dir, "0", "1", "slow"]
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"no such metric; did you mean corpus/mlm_accuracy\?"):
        one.run()
    assert time.monotonic() - began < 50, "before the trial has ended"


def test_the_loss_of_a_task_can_be_pruned_by(tmp_path: Path):
    one = search(tmp_path, metric="corpus/mlm", pruner="median", trials=2)
    one.command_of = lambda job: [sys.executable, "-c", SLOW_TRIAL, job.run_dir, "0", "1"]
    one.run()
    assert [sorted(trial.intermediate_values) for trial in one.study.get_trials()] == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=1"], "there is nothing to search"),
        (["optim.lr=interval(-1,1)"], "lr must be"),
        (["precision=fp32,fp23"], "fp23"),
        (["batch.size=6,8", "runner=ddp", "runner.processes=4"], "cannot be shared equally"),
        (["seed=1,2", "trials=0"], "trials must be"),
        (["seed=1,2", "pruner=median2"], "pruner must be one of"),
        (["seed=1,2", "runner=slurm", "runner.device=cpu"], "start lmctl search in a job of its own"),
    ],
)
def test_a_search_with_an_illegal_trial_does_not_begin(tmp_path: Path, words: list[str], said: str):
    write_documents(tmp_path / "docs.txt", count=8)
    assert said in run_here("search", *SMALL, "data.path=docs.txt", *words, cwd=tmp_path, ends=2)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_trials_are_runs(tmp_path: Path):
    write_documents(tmp_path / "docs.txt", count=8)
    words = [*SMALL, "data.path=docs.txt", "budget.steps=2", "optim.lr=interval(1e-4,1e-2)", "trials=2", "name=s"]
    said = run_here("search", *words, cwd=tmp_path)
    assert said.count("completed after") == 2
    assert len(list((tmp_path / "runs" / "s").glob("*/model/model.safetensors"))) == 2
    assert "0001" in run_here("compare", "runs/s", "page=false", cwd=tmp_path)
