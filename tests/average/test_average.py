"""Averages of weights: the formula, what of a run reads them, and that a run goes on with them to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from planned import rehearsed
from resumed import goes_on_to_the_bit
from safetensors.torch import load_file
from sessions import lines, scripted, session
from small import plan, prepared, weights
from walked import alone

from lmctl.average.ema import ExponentialAverage
from lmctl.average.none import NoAverage
from lmctl.average.tail import TailAverage
from lmctl.config.schema import Budget, EarlyStop, Evaluation
from lmctl.cost.memory_tracker import STATES
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.int8_weights import Int8Weights
from lmctl.runner.simulated import Simulated
from lmctl.train.trainer import Trainer

RULES: list[Any] = [ExponentialAverage(0.6), TailAverage(0.5)]


def small(**changes: Any) -> Trainer:
    return Trainer(plan(**{"objective": MaskedLM(), "budget": Budget(steps=8)} | changes), prepared(), alone())


def mean_of(trainer: Trainer) -> torch.Tensor:
    with trainer.step.average.in_use():
        return weights(trainer)


def test_an_exponential_average_is_the_sum_written_out():
    trainer = small(average=ExponentialAverage(0.6))
    wanted = weights(trainer).double()
    for number, _ in enumerate(trainer.steps()):
        decay = min(0.6, (1 + number) / (10 + number))
        wanted = decay * wanted + (1 - decay) * weights(trainer).double()
    newest = weights(trainer)
    torch.testing.assert_close(mean_of(trainer).double(), wanted, rtol=1e-6, atol=1e-7)
    assert torch.equal(weights(trainer), newest)
    assert not torch.equal(mean_of(trainer), newest)


def test_a_tail_average_is_the_mean_of_the_last_steps():
    trainer, seen = small(average=TailAverage(0.5)), []
    for number, _ in enumerate(trainer.steps()):
        seen.append(weights(trainer).double())
        if number == 2:
            assert torch.equal(mean_of(trainer), weights(trainer))
    torch.testing.assert_close(mean_of(trainer).double(), torch.stack(seen[4:]).mean(dim=0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_training_is_the_same_and_goes_on_to_the_bit(rule: Any, tmp_path: Path):
    whole, _ = goes_on_to_the_bit(lambda: small(average=rule), 5, tmp_path)
    plain = small()
    list(plain.steps())
    assert torch.equal(weights(whole), weights(plain))


@pytest.mark.parametrize("stops", [4, 8])
def test_a_session_validates_and_exports_the_average_and_resumes_it(stops: int, tmp_path: Path, monkeypatch):
    """Also where early stopping goes back to the best one."""
    shape = {"objective": MaskedLM(), "average": ExponentialAverage(0.6), "budget": Budget(steps=8)}
    shape |= {"eval": Evaluation(every=2, rows=16)}
    if stops == 4:  # the best validation is that of step 4
        shape["early_stop"] = EarlyStop(patience=5)
        scripted(monkeypatch, [9.0, 8.0, 1.0, 2.0, 3.0, 2.0], "loss")
    run = session(tmp_path / "run", plan(**shape), prepared())
    run.run()
    kept = load_file(tmp_path / f"run/checkpoints/step-{stops:08d}/model.safetensors")
    exported = load_file(tmp_path / "run/model/model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(exported[name], kept[f"model.{name}"])
    apart = small(average=ExponentialAverage(0.6))
    for report in apart.steps():
        if report.step == stops:
            assert torch.equal(apart.step.average.tensors()[f"model.{name}"], kept[f"model.{name}"])
            break
    if stops == 8:
        assert lines(tmp_path / "run", "valid")[-1]["loss"] == pytest.approx(run.validator.newest.figures["loss"])


def test_going_on_without_the_average_goes_on_from_the_newest_weights(tmp_path: Path):
    with_one, without = small(average=ExponentialAverage(0.6)), small(average=NoAverage())
    steps = with_one.steps()
    next(steps)
    next(steps)
    without.load(with_one.step.average.tensors(), with_one.state_dict(), with_one.own_state())
    assert torch.equal(weights(without), weights(with_one))
    new = small(average=ExponentialAverage(0.6))
    new.load(without.step.average.tensors(), without.state_dict(), without.own_state())
    assert torch.equal(mean_of(new), weights(without))


def test_workers_have_one_average():
    from lmctl.parallel.simulate import as_workers

    own = plan(objective=MaskedLM(), average=ExponentialAverage(0.6), runner=Simulated(2), budget=Budget(steps=3))
    found: list[torch.Tensor] = []

    def work(worker: Any) -> None:
        trainer = Trainer(own, prepared(), worker)
        list(trainer.steps())
        found.append(mean_of(trainer))

    as_workers(2, alone(), work)
    assert torch.equal(*found)


def test_the_plan_counts_it():
    plain, averaged = rehearsed(), rehearsed(average=ExponentialAverage())
    trainable = sum(p.numel() for p in small(objective=MaskedLMAndNextSentence()).network.parameters())
    assert averaged.most[STATES] - plain.most[STATES] == pytest.approx(4 * trainable, rel=0.05)


@pytest.mark.parametrize("precision", [Bf16Pure(), Int8Weights()], ids=["bf16", "int8"])
def test_weights_of_low_precision_have_no_average(precision: Any):
    with pytest.raises(Exception, match=f"weights stored in {precision.storage} have none"):
        plan(precision=precision, average=ExponentialAverage())


@pytest.mark.parametrize("made", [lambda: ExponentialAverage(1.0), lambda: TailAverage(0.0)])
def test_settings_out_of_range(made: Any):
    with pytest.raises(ValueError, match="above 0"):
        made()
