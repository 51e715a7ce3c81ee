"""`lmctl compare`: what it finds and reads, what differs, effects, fronts, tables, the page's data."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import lmctl, run_here, succeed
from recorded_runs import write_grid, write_run, write_sweep
from scipy import stats

from lmctl.compare.comparison import Comparison, Reader
from lmctl.compare.curves import read_curves
from lmctl.compare.page import page_of
from lmctl.compare.pareto import front


def compared(*places: Path) -> Comparison:
    return Reader([str(place) for place in places]).read()


def page_data(page: str) -> dict[str, Any]:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_a_sweep_in_every_form(tmp_path: Path):
    write_grid(tmp_path / "runs" / "grid")
    done = succeed("compare", "runs/grid", cwd=tmp_path)
    assert "9 runs: 7 completed, 1 failed, 1 refused   page: runs/grid/compare.html" in done.stderr
    row = r"^optim.lr=0.1,precision=bf16,seed=2 +completed +200 +4\.7000 +21\.28% +10s +512\.0 MiB +1\.0 MiB +80\.0 KiB"
    assert re.search(row, done.stdout, re.MULTILINE)
    assert "optim.lr=0.2,precision=bf16,seed=2: failed: the loss of step 30 is nan" in done.stdout
    assert "optim.lr=0.1, precision=bf16  4.5250 +- 0.2475  (2 seeds)" in done.stdout
    assert re.search(r"precision=bf16 +\+0\.65\d* .*against fp32, 2 seeds", done.stdout)
    form = {
        name: succeed("compare", "runs/grid", f"format={name}", "page=false", cwd=tmp_path).stdout
        for name in ("csv", "json", "markdown")
    }
    rows = list(csv.DictReader(io.StringIO(form["csv"])))
    assert [float(row["loss"]) for row in rows[:2]] == [3.75, 4.0]
    assert rows[2] | {"precision": "bf16", "optim.lr": "0.1", "seed": "1", "bytes sent": "81920"} == rows[2]
    assert rows[-1]["status"] == "refused"
    assert rows[-1]["reason"].startswith("refused: precision=fp16 needs a GPU")
    records = [json.loads(line) for line in form["json"].splitlines()]
    assert records[2]["settings"] == {"optim.lr": "0.1", "precision": "bf16"}
    assert records[2]["intervals"]["loss"] == pytest.approx([4.1, 4.6])
    assert [record["cell"] for record in records] == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    table = form["markdown"].splitlines()
    assert table[0].startswith("| run | status | optim.lr | precision | seed | steps | loss | corpus/mlm_accuracy |")
    assert {line.count("|") for line in table} == {table[0].count("|")}


def test_two_runs(tmp_path: Path):
    write_run(tmp_path / "a", 4.0, optim__lr=0.1, model__layers=2)
    write_run(tmp_path / "b=1,c", 3.5, optim__lr=0.3, model__layers=2, seconds=30.0)
    said = run_here("compare", str(tmp_path / "a"), str(tmp_path / "b=1,c"), cwd=tmp_path)
    assert re.search(r"settings that differ\n +a +b=1,c *\noptim.lr +0\.1 +0\.3 *\n\n", said)
    assert re.search(r"loss +4\.0000 \(3\.750 to 4\.250\) +3\.5000 \(3\.250 to 3\.750\) +-0\.5000", said)
    assert re.search(r"seconds +10s +30s +x 3", said)
    assert (tmp_path / "compare.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "'runs' is required"),
        (["rnus/a"], "rnus/a: no such directory"),
        (["runs/empty"], "runs/empty: there is no run in it"),
        (["runs/a/model"], "runs/a?"),
        (["~/nowhere"], "/nowhere: no such directory"),
        (["runs/a", "metric=los"], "metric=los: no run has such a metric; did you mean loss?"),
        (["runs/a", "format=html"], "format"),
        (["runs/a", "out=nowhere/page.html"], "out=nowhere/page.html: there is no directory nowhere"),
        (["runs/a", "watch=true", "page=false"], "page=false does not go with it"),
        (["runs/a", "wacth=true"], "did you mean watch?"),
    ],
)
def test_mistakes(words: list[str], said: str, tmp_path: Path):
    write_run(tmp_path / "runs" / "a", 4.0)
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "a" / "model").mkdir()
    done = lmctl("compare", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not (tmp_path / "compare.html").exists()


def test_runs_are_found_wherever_they_are(tmp_path: Path):
    write_run(tmp_path / "runs" / "a", 4.0)
    write_grid(tmp_path / "runs" / "grid")
    job = {"name": "pretrain", "overrides": ["mix=mlm"], "status": "completed"}
    write_run(tmp_path / "runs" / "deep" / "both" / "pretrain", 3.0)
    (tmp_path / "runs" / "deep" / "both" / "summary.json").write_text(json.dumps({"stages": {"pretrain": job}}))
    whole = compared(tmp_path / "runs")
    names = [run.name for run in whole.runs]
    assert names[:3] == ["a", "deep/both/pretrain", "grid/optim.lr=0.1,precision=fp32,seed=1"]
    assert len(whole.runs) == 11
    (tmp_path / "runs" / "a" / "checkpoints" / "step-4").mkdir(parents=True)
    twice = compared(tmp_path / "runs" / "a", tmp_path / "runs" / "a" / "checkpoints" / "step-4")
    assert [run.name for run in twice.runs] == ["a"], "a run is compared once"


def test_records_that_are_damaged_old_or_not_there(tmp_path: Path):
    """Each fault is named, and the rest of the run is used."""
    for name in ("whole", "config", "metrics", "summary", "old", "bare", "fifo", "link"):
        write_run(tmp_path / name, 4.0)
    (tmp_path / "config" / "config.yaml").write_text("a: &x [1]\nb: *x\n")
    lines = (tmp_path / "metrics" / "metrics.jsonl").read_text().splitlines()
    lines[3] = lines[3][:20]
    lines[4] = '{"step": NaN, "tokens": 3, "seconds": 1, "split": "train"}'
    lines[5] = '{"step": 50, "tokens": 3, "seconds": Infinity, "split": "train", "loss": "x"}'
    (tmp_path / "metrics" / "metrics.jsonl").write_text("\n".join(lines) + "\n\x00\xff{")
    (tmp_path / "summary" / "summary.json").write_text('{"status": "comp')
    old = json.loads((tmp_path / "old" / "summary.json").read_text())
    (tmp_path / "old" / "summary.json").write_text(json.dumps({k: old[k] for k in ("status", "steps", "valid")}))
    (tmp_path / "old" / "environment.json").unlink()
    for file in ("summary.json", "environment.json", "metrics.jsonl"):
        (tmp_path / "bare" / file).unlink()
    (tmp_path / "fifo" / "metrics.jsonl").unlink()
    (tmp_path / "fifo" / "metrics.jsonl").mkdir()
    whole = compared(tmp_path)
    runs = {run.name: run for run in whole.runs}
    assert {name: run.status for name, run in runs.items() if not run.is_complete} == {
        "summary": "unfinished",
        "bare": "unfinished",
    }
    faults = {name: " ".join(run.faults) for name, run in runs.items() if run.faults}
    assert faults.keys() == {"config", "metrics", "summary", "fifo"}
    assert "config.yaml cannot be read: has YAML anchors" in faults["config"]
    assert "metrics.jsonl: 4 lines cannot be read" in faults["metrics"]
    assert runs["summary"].metrics["loss"] == 4.0, "its newest validation"
    assert runs["old"].about["corpus/mlm_accuracy"].higher_is_better
    assert whole.apart == {}, "what is not recorded is no difference"
    assert len(page_data(page_of(whole, "x"))["runs"]) == 8


def test_what_was_measured_on_other_rows_is_apart(tmp_path: Path):
    for name, rows, text in (("a", 100, "abc"), ("b", 100, "abc"), ("c", 50, "abc"), ("d", 100, "xyz")):
        write_run(tmp_path / name, 4.0, rows=rows, text=text)
    whole = compared(tmp_path)
    assert whole.apart.keys() == {2, 3}
    assert whole.apart[2].startswith("validation rows of corpus: 50, not 100; predictions of corpus/mlm: 350, not 700")
    assert whole.apart[3] == "another text of corpus"
    assert set(whole.front("loss", "seconds")) <= {0, 1}


def test_keys_that_follow_from_an_option_are_named_with_it(tmp_path: Path):
    for number, rate in enumerate((0.1, 0.2, 0.1, 0.2)):
        optim = {"_target_": "x.Sgd", "momentum": 0.9} if number > 1 else {"_target_": "x.AdamW", "eps": 1e-8}
        write_run(tmp_path / f"r{number}", 4.0, optim=optim | {"lr": rate}, seed=number)
    axes = compared(tmp_path).axes
    assert [(axis.name, axis.values) for axis in axes] == [
        ("optim", ("AdamW", "AdamW", "Sgd", "Sgd")),
        ("optim.lr", ("0.1", "0.2", "0.1", "0.2")),
    ]
    assert set(axes[0].also) == {"optim.eps", "optim.momentum"}


def test_a_sweep_of_eval_is_compared_by_what_it_measured(tmp_path: Path):
    jobs: dict[str, tuple[str, str | None]] = {}
    for model, accuracy in (("a", 0.5), ("b", 0.75)):
        jobs[f"model_path={model}"] = ("completed", None)
        (tmp_path / f"model_path={model}").mkdir()
        figures = {"classification": {"accuracy": accuracy, "n": 12, "words": "held out"}}
        (tmp_path / f"model_path={model}" / "eval.json").write_text(json.dumps(figures))
    write_sweep(tmp_path, jobs)
    whole = compared(tmp_path)
    assert [run.metrics for run in whole.runs] == [{"eval classification: accuracy": a} for a in (0.5, 0.75)]
    assert whole.metrics["eval classification: accuracy"].higher_is_better
    assert [(axis.name, axis.values) for axis in whole.axes] == [("model_path", ("a", "b"))]
    assert page_data(page_of(whole, "x"))["metrics"][0]["share"]


def test_effects_are_students_interval_over_seeds(tmp_path: Path):
    """Against scipy's paired t-test, on means over the other setting; the failed job's pair takes no part."""
    jobs: dict[str, tuple[str, str | None]] = {}
    losses: dict[tuple[int, int, int], float] = {}
    draws = np.random.default_rng(1)
    for seed in range(4):
        for a in (0, 1):
            for b in (0, 1):
                losses[seed, a, b] = 3 + 0.2 * a + 0.1 * b + float(draws.normal(0, 0.05))
                name = f"model.layers={a + 1},optim.lr={b + 1},seed={seed}"
                write_run(tmp_path / name, losses[seed, a, b], seed=seed, model__layers=a + 1, optim__lr=b + 1)
                jobs[name] = ("completed", None)
    write_sweep(tmp_path, jobs)
    layers, rate = compared(tmp_path).effects("loss")
    low, high = ([np.mean([losses[seed, a, b] for b in (0, 1)]) for seed in range(4)] for a in (0, 1))
    exact = stats.ttest_rel(high, low).confidence_interval(0.95)
    assert (layers.axis, layers.value, layers.reference, layers.seeds, layers.pairs) == ("model.layers", "2", "1", 4, 8)
    assert layers.difference == pytest.approx(np.mean(high) - np.mean(low))
    assert layers.interval == pytest.approx((exact.low, exact.high))
    assert rate.axis == "optim.lr"


def test_there_is_no_interval_without_seeds(tmp_path: Path):
    for name, rate, loss in (("a", 0.1, 4.0), ("b", 0.2, 3.5)):
        write_run(tmp_path / name, loss, optim__lr=rate)
    (effect,) = compared(tmp_path).effects("loss")
    assert (effect.difference, effect.interval, effect.seeds) == (-0.5, None, 1)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), st.booleans())
def test_nothing_beats_what_is_on_the_front(points: list[tuple[int, int]], higher: bool):
    costs, quality = [c for c, _ in points], [(q if higher else -q) for _, q in points]

    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return a != b and a[0] <= b[0] and a[1] >= b[1]

    found = front(costs, quality, higher)
    assert {points[place] for place in found} == {p for p in points if not any(beats(other, p) for other in points)}
    assert len(found) == len({points[place] for place in found})


def test_curves_are_thinned_out_and_keep_their_ends(tmp_path: Path):
    write_run(tmp_path / "a", 2.0, lines=10_000)
    whole = read_curves(tmp_path / "a" / "metrics.jsonl", 50)
    assert 40 <= len(whole.train) <= 50
    assert len(whole.valid) == 50
    assert (whole.valid.at["step"][0], whole.valid.at["step"][-1], whole.train.at["step"][-1]) == (0, 100_000, 100_000)
    exact = [10 - 8 * step / 100_000 for step in whole.train.at["step"]]
    assert whole.train.values["loss"] == pytest.approx(exact, abs=0.2)
    assert whole.valid.at["bytes"][-1] == 4096 * 10_000, "a validation stands where the steps before it ended"


def test_the_page_asks_for_nothing_and_runs_nothing_of_its_runs(tmp_path: Path):
    write_grid(tmp_path / "grid")
    write_run(tmp_path / "grid" / "x", 3.0)
    page = page_of(compared(tmp_path / "grid"), "<b>grid</b> {{data}}")
    markup = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    assert "default-src 'none'" in markup
    assert not re.search(r"""(src|href)=["'](?!#)""", markup)
    assert not re.search(r"@import|url\(", page)
    assert "<b>grid" not in page
    assert "<script>alert" not in page
    assert page.count("</script>") == 2
    assert "Permission is hereby granted" in page, "uPlot's licence goes with it"
    data = page_data(page)
    assert data["runs"][-1]["reason"] == "precision=fp16 needs a GPU <script>alert(1)</script>"
    assert data["fronts"]["loss"]["seconds"] == [2, 0]
    assert [effect["axis"] for effect in data["effects"]["loss"]] == ["optim.lr", "precision"]
    assert data["runs"][2]["config"] == {"precision": "Bf16", "optim.lr": "0.1", "seed": "1"}
    assert not data["running"]


def test_no_secret_is_shown(tmp_path: Path):
    secret = "hf_" + "a1B2" * 8
    for name, value in (("a", "x"), ("b", secret)):
        write_run(tmp_path / name, 3.0, data__path=f"https://me:{value}@host/{value}", status="failed")
    said = run_here("compare", str(tmp_path / "a"), str(tmp_path / "b"), cwd=tmp_path)
    assert "data.path" in said
    assert secret not in said + (tmp_path / "compare.html").read_text()


def test_watching_ends_with_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    grid = tmp_path / "grid"
    names = [f"optim.lr={rate},seed=1" for rate in (1, 2)]
    write_sweep(grid, dict.fromkeys(names, ("running", None)))
    write_run(grid / names[0], None, optim__lr=1)
    slept: list[float] = []

    def end_one(seconds: float) -> None:
        slept.append(seconds)
        name = names[len(slept) - 1]
        write_run(grid / name, 3.0, optim__lr=len(slept))

    monkeypatch.setattr("lmctl.verbs.compare.time.sleep", end_one)
    done = succeed("compare", "grid", "watch=true", "every=2", cwd=tmp_path)
    assert slept == [2.0, 2.0]
    said = [line.partition("   ")[0] for line in done.stderr.splitlines()]
    assert said == ["2 runs: 2 running", "2 runs: 1 completed, 1 running", "2 runs: 2 completed"]
    assert not page_data((grid / "compare.html").read_text())["running"]
