"""The end of a run: summary.json, validation schedule, early stopping, and the figures of the exported weights."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sessions import Ears, lines, scripted, session
from sklearn.dummy import DummyClassifier
from sklearn.metrics import matthews_corrcoef
from small import plan, prepared
from small_tasks import labelled, small_task
from walked import alone

from lmctl.config.schema import Budget, Checkpointing, EarlyStop, Evaluation, Logging
from lmctl.core import signals
from lmctl.core.errors import Stopped
from lmctl.core.paths import Paths
from lmctl.objective.base import Metric
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.plan import Plan
from lmctl.train.loss_plot import Plotter
from lmctl.train.prepare import Prepared, TokenizedCorpus
from lmctl.train.state import TrainState
from lmctl.train.trainer import Trainer
from lmctl.train.validation import Validation

NEVER = 10_000


def end(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def stopped(folder: Path, own: Plan, text: Prepared, after: int, monkeypatch) -> None:
    """A run that a signal ends after so many steps."""
    with monkeypatch.context() as patch:
        run = session(folder, own, text)
        patch.setattr(signals, "requested", lambda: "SIGTERM" if run.trainer.state.step >= after else None)
        patch.setattr(signals, "ignore", lambda: None)
        with pytest.raises(Stopped):
            run.run()


def of_exported_weights(folder: Path, own: Plan, text: Prepared) -> dict[str, float]:
    """The figures of the weights in model/, measured afresh."""
    fresh = Trainer(own, text, alone())
    fresh.network.model.load_state_dict(load_file(folder / "model" / "model.safetensors"), strict=False)
    fresh.network.model.tie_weights()
    return fresh.validation.scores(fresh.learner)


def check_end(folder: Path, own: Plan, text: Prepared) -> dict:
    """summary.json and the model card have the figures of the exported weights, and the baseline of the same rows."""
    summary, fresh = end(folder), Trainer(own, text, alone())
    assert summary["valid"] == pytest.approx(of_exported_weights(folder, own, text), rel=1e-6)
    stores = {task: corpus.train for task, corpus in text.corpora.items()}
    assert summary["baseline"] == fresh.validation.baseline(stores)
    assert summary["valid_rows"] == fresh.validation.counts
    card = (folder / "model" / "README.md").read_text()
    for name, value in summary["valid"].items():
        assert name == "loss" or f"| {name} | {value:.4f} |" in card
    return summary


def small(steps: float, rows: int | None = 16, **more) -> Plan:
    return plan(budget=Budget(steps=int(steps)), eval=Evaluation(every=NEVER, rows=rows), **more)


def test_a_run_that_ends_sooner_than_it_began_to(tmp_path, monkeypatch):
    """Stopped before its first validation after step 0, and resumed with a budget that is spent, on other rows."""
    stopped(tmp_path, small(20, 12), prepared(), 3, monkeypatch)
    assert end(tmp_path)["valid_step"] == 0
    for rows in (12, 8):
        run = session(tmp_path, small(3, rows), prepared(), resume=True)
        run.run()
        summary = check_end(tmp_path, small(3, rows), prepared())
        assert (summary["steps"], summary["valid_step"], summary["exported_step"]) == (3, 3, 3)
        assert isinstance(run.display, Ears)
        assert any("cannot be compared" in line for line in run.display.heard) == (rows == 8)
        assert [(line["step"], line["rows"]) for line in lines(tmp_path, "valid")] == [(0, 12), (3, rows)]


@pytest.mark.parametrize("budget", [Budget(minutes=0.01), Budget(tokens=900), Budget(epochs=0.5)], ids=str)
def test_budgets_of_every_kind_end_with_a_validation(tmp_path, budget):
    own = replace(small(1), budget=budget)
    session(tmp_path, own, prepared()).run()
    assert check_end(tmp_path, own, prepared())["steps"] > 0


def test_a_run_whose_end_was_lost_ends_alike(tmp_path):
    """Everything was saved, and the process died before it exported: the same figures, and no line twice."""
    first = session(tmp_path, small(4), prepared()).run()
    record = (tmp_path / "metrics.jsonl").read_text()
    second = session(tmp_path, small(4), prepared(), resume=True).run()
    assert (tmp_path / "metrics.jsonl").read_text() == record
    assert second["valid"] == first["valid"]
    assert second["valid_interval"] == first["valid_interval"] != {}


@dataclass(frozen=True)
class Scored(MaskedLMAndNextSentence):
    """An objective from elsewhere with two metrics more."""

    def metrics(self, term, logits, labels):
        scores = {name: Metric(0.25 * len(labels), len(labels), name == "auc") for name in ("auc", "cost")}
        return super().metrics(term, logits, labels) | scores


CURVES = {
    "more is better": ("corpus/nsp_accuracy", [0.5, 0.7, 0.7, 0.6, 0.9], 2, 0.0, 1, 3),
    "with more patience": ("corpus/nsp_accuracy", [0.5, 0.7, 0.7, 0.6, 0.9], 3, 0.0, 4, 5),
    "without an end to it": ("corpus/nsp_accuracy", [0.5, 0.7, 0.7, 0.6, 0.6], None, 0.0, 1, 5),
    "and a little more is not enough": ("corpus/nsp_accuracy", [0.5, 0.6, 0.7, 0.75, 0.6], 2, 0.3, 0, 2),
    "enough more is": ("corpus/nsp_accuracy", [0.1, 0.5, 0.6, 0.7, 0.7], 2, 0.3, 1, 3),
    "less is better": ("corpus/mlm", [3.0, 2.0, 2.5, 2.0, 1.0], 3, 0.0, 4, 5),
    "the first of equal ones": ("loss", [0.9, 0.6, 0.7, 0.6, 0.1], 2, 0.0, 1, 3),
    "less by too little": ("loss", [3.0, 2.8, 2.6, 2.4, 2.0], 2, 0.5, 0, 2),
    "less by enough": ("loss", [0.9, 0.6, 0.4, 0.3, 0.2], 2, 0.4, 2, 4),
    "a metric of whatever name that is to grow": ("corpus/mlm_auc", [0.5, 0.7, 0.6, 0.4, 0.5], 2, 0.0, 1, 3),
    "and one that is to fall": ("corpus/mlm_cost", [0.5, 0.7, 0.6, 0.4, 0.5], 2, 0.0, 0, 2),
}


@pytest.mark.parametrize(("metric", "values", "patience", "least", "best", "last"), CURVES.values(), ids=CURVES)
def test_early_stopping(tmp_path, monkeypatch, metric, values, patience, least, best, last):
    """`values` are those of the validations at steps 0, 1, 2, ...; `best` and `last` are steps. What is exported is
    the best if somebody waited for it."""
    rule = EarlyStop(metric, patience, least)
    shape = {"budget": Budget(steps=5), "eval": Evaluation(every=1, rows=16)}
    own = plan(objective=Scored(), early_stop=rule, **shape)
    with monkeypatch.context() as patch:
        scripted(patch, values, metric)
        run = session(tmp_path, own, prepared())
        summary = run.run()
    step = last if patience is None else best
    assert summary["best"] == {"metric": metric, "step": best, "value": values[best]}
    assert (summary["steps"], summary["exported_step"]) == (last, step)
    assert run.checkpoints.named("best") == f"step-{best:08d}"
    checkpoint = load_file(tmp_path / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
    exported = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(exported[name], checkpoint[f"model.{name}"]) for name in exported)
    figures_of = of_exported_weights(tmp_path, own, prepared())
    assert {**summary["valid"], metric: 0} == pytest.approx({**figures_of, metric: 0}, rel=1e-6)
    assert figures_of["corpus/mlm_auc"] == 0.25


def test_a_best_checkpoint_that_is_gone(tmp_path, monkeypatch):
    """Without patience nobody kept it: the last weights are exported, with their figures, and it is said."""
    shape = {"eval": Evaluation(every=1, rows=16), "checkpoint": Checkpointing(every=NEVER)}
    own = plan(budget=Budget(steps=4), **shape)
    with monkeypatch.context() as patch:
        scripted(patch, [3.0, 2.0, 1.0, 2.0], "loss")
        session(tmp_path, own, prepared()).run()
    run = session(tmp_path, replace(own, early_stop=EarlyStop(patience=3)), prepared(), resume=True)
    run.run()
    assert isinstance(run.display, Ears)
    assert any("step 2, are not there" in line for line in run.display.heard)
    assert check_end(tmp_path, own, prepared())["exported_step"] == 4


@pytest.mark.parametrize("steps", [3, 40])
def test_validations_take_a_small_share_of_a_run(tmp_path, steps):
    """However short the budget is, rows validated on between the first step and the last are at most half of those
    trained on; eval.every is obeyed."""
    own = plan(budget=Budget(steps=steps), eval=Evaluation(rows=None))
    run = session(tmp_path, own, prepared())
    rows = sum(run.trainer.validation.counts.values())
    run.run()
    steps_of = [line["step"] for line in lines(tmp_path, "valid")]
    assert (steps_of[0], steps_of[-1]) == (0, steps)
    for before, after in itertools.pairwise(steps_of[:-1]):
        assert (after - before) * own.batch.rows >= 2 * rows
    assert (len(steps_of) > 3) == (steps == 40)
    session(tmp_path / "every", replace(own, eval=Evaluation(every=2, rows=None)), prepared()).run()
    assert [line["step"] for line in lines(tmp_path / "every", "valid")] == [0, *range(2, steps, 2), steps]


def test_an_interruption_does_not_move_validations(tmp_path, monkeypatch):
    own = plan(budget=Budget(steps=40), eval=Evaluation(rows=24))
    session(tmp_path / "whole", own, prepared()).run()
    stopped(tmp_path / "parts", own, prepared(), 14, monkeypatch)
    session(tmp_path / "parts", own, prepared(), resume=True).run()
    whole, parts = (lines(tmp_path / name, "valid") for name in ("whole", "parts"))
    assert [line | {"seconds": 0} for line in whole] == [line | {"seconds": 0} for line in parts]
    assert len(whole) > 3
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]


def test_speed_does_not_count_validation(tmp_path, monkeypatch):
    import time

    measured = Validation.measured
    monkeypatch.setattr(Validation, "measured", lambda self, learner: (time.sleep(0.4), measured(self, learner))[1])
    own = plan(budget=Budget(steps=4), eval=Evaluation(every=1, rows=8), log=Logging(every=1))
    summary = session(tmp_path, own, prepared()).run()
    training = summary["tokens"] / summary["training_tokens_per_second"]
    assert summary["seconds"] > 1.5
    assert training < summary["seconds"] - 1.2
    speeds = [line["tokens_per_s"] for line in lines(tmp_path, "train")]
    assert min(speeds[1:]) > summary["tokens_per_second"]


@pytest.mark.parametrize("reading", [1, 3, 9, 20])
def test_a_clock_that_goes_back_costs_no_checkpoint(tmp_path, monkeypatch, reading):
    import time

    clock, readings = time.monotonic, itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: clock() - (86400 if next(readings) >= reading else 0))
    running = session(tmp_path, plan(budget=Budget(steps=4), eval=Evaluation(every=1, rows=8)), prepared())
    summary, state = running.run(), running.trainer.state
    assert 0 <= summary["seconds"] < 60
    assert TrainState.from_state(state.shared(), state.own()) == state


def skewed(kind: str) -> tuple[Plan, Prepared]:
    """Labels whose commonest class in training is rare among the held-out rows."""
    own, text = small_task(kind, eval=Evaluation(rows=12))
    train, valid = labelled(kind, 40, 0), labelled(kind, 18, 1)
    few = np.array([0] * 30 + [1] * 5 + [2] * 5), np.array([1] * 12 + [0] * 3 + [2] * 3)
    arrays = few if kind == "class" else tuple(one.astype(np.float32) for one in few)
    stores = [replace(store, labels=labels) for store, labels in zip((train, valid), arrays, strict=True)]
    return own, replace(text, corpora={"corpus": TokenizedCorpus(*stores)})


def validated_labels(trainer: Trainer) -> np.ndarray:
    batches = trainer.validation._batches("corpus")
    return np.concatenate([batch.targets["label"].labels.numpy() for batch in batches])


def test_what_a_classifier_has_to_beat_is_the_majority_of_the_rows_it_is_measured_on():
    own, text = skewed("class")
    trainer = Trainer(own, text, alone())
    seen = validated_labels(trainer)
    assert len(seen) == 12 < 18
    best = DummyClassifier(strategy="most_frequent").fit(np.zeros((12, 1)), seen)
    found = trainer.validation.baseline({"corpus": text.corpora["corpus"].train})
    assert found["corpus/label_accuracy"] == pytest.approx(best.score(np.zeros((12, 1)), seen))
    assert found["corpus/label_matthews"] == matthews_corrcoef(seen, best.predict(np.zeros((12, 1)))) == 0
    shares = (np.bincount(seen, minlength=3) + 1) / (12 + 3)
    assert found["corpus/label"] == pytest.approx(-np.log(shares[seen]).mean(), rel=1e-5)


def test_what_a_rating_has_to_beat_is_the_mean_of_the_rows_it_is_measured_on():
    own, text = skewed("number")
    trainer = Trainer(own, text, alone())
    found = trainer.validation.baseline({"corpus": text.corpora["corpus"].train})
    assert found["corpus/label"] == pytest.approx(validated_labels(trainer).var(), rel=1e-5)


def test_a_plot_is_drawn_of_a_stopped_run_and_none_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr("sessions.Unseen", Plotter)
    stopped(tmp_path / "one", small(20), prepared(), 3, monkeypatch)
    assert Paths(tmp_path / "one").plot.stat().st_size > 0

    def broken(*_):
        raise RuntimeError("no fonts here")

    monkeypatch.setattr("lmctl.train.loss_plot.plot_losses", broken)
    run = session(tmp_path / "two", small(3), prepared())
    assert run.run()["status"] == "completed"
    assert isinstance(run.display, Ears)
    assert [line for line in run.display.heard if "curve" in line] == [
        "warning: the curve cannot be drawn (RuntimeError: no fonts here); the run is unaffected"
    ]


def test_the_record_says_what_it_ran_on(tmp_path):
    run = session(tmp_path, small(2), prepared())
    summary = run.run()
    recorded = json.loads((tmp_path / "environment.json").read_text())
    for found in (summary["machine"], recorded):
        assert (found["device"], found["processes"], found["threads"]) == ("cpu", 1, torch.get_num_threads())
        assert found["cpu"]
        assert found["launched_by"] == "nobody"
