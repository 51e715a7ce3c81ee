"""Every adversary of conf/ trains every kind of task, resumes to the bit, survives fp16, and is recorded."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from adversary_workers import CASES, STEPS, trained
from adversary_workers import trainer_of as in_one
from resumed import goes_on_to_the_bit
from sessions import lines, session
from small import poison, weights
from small_tasks import small_task, two_tasks

from lmctl.adversary.base import Adversary, AttackedBatch, Outcome, View
from lmctl.adversary.fgm import FastGradient
from lmctl.adversary.none import Clean
from lmctl.adversary.pgd import ProjectedGradient
from lmctl.adversary.rdrop import RDrop
from lmctl.config.build import build
from lmctl.config.compose import Composer, conf_dir
from lmctl.config.schema import Budget, Evaluation, Logging
from lmctl.core.errors import LmctlError
from lmctl.parallel.processes import Processes
from lmctl.parallel.simulate import as_workers
from lmctl.precision.base import Precision
from lmctl.precision.fp16 import Fp16
from lmctl.train.learner import Share
from lmctl.train.step import MicroBatch
from lmctl.train.trainer import Trainer

OPTIONS = sorted(path.stem for path in (conf_dir() / "adversary").glob("*.yaml"))


def option(name: str) -> Adversary:
    return build(Composer("train").load_option("adversary", name), Adversary)


def trainer_of(alone: Processes, task: str, **changes: Any) -> Trainer:
    plan, text = small_task(task, 0.1, **{"budget": Budget(steps=2), "micro": 5} | changes)
    return Trainer(plan, text, alone)


@pytest.mark.parametrize("task", ["mlm", "clm", "class", "translate"])
@pytest.mark.parametrize("name", OPTIONS)
def test_it_trains_and_resumes_to_the_bit(alone, name, task, tmp_path):
    rule = option(name)
    trainer, reports = goes_on_to_the_bit(lambda: trainer_of(alone, task, adversary=rule), 1, tmp_path)
    assert len(reports) == 2
    assert all(math.isfinite(float(value)) for report in reports for value in report.losses.totals.values())
    assert all(float(report.grad_norm) > 0 for report in reports)
    assert {name for report in reports for name in report.adversarial.totals} <= set(trainer.terms)
    assert bool(reports[0].adversarial.totals) == (name != "none")
    assert trainer.state.passes == rule.passes * trainer.state.micro_batches == rule.passes * 4


def test_two_processes_with_micro_batches_give_the_steps_of_one(alone, both):
    """Random starts and noise included; gradients are exchanged once per step, whatever the adversary does."""
    for name, (task, changes) in CASES.items():
        if "compression" in changes:
            changes = changes | {"compression": replace(changes["compression"], simulate_workers=2), "micro": 2}
        played, (theirs, sent) = 2 if "compression" in changes else None, both[0]["adversaries"][name]
        expected, size = as_workers(played, alone, lambda worker, of=(task, changes): learnt(worker, *of))
        assert (expected - theirs).norm() < 5e-5 * theirs.norm(), name
        if played is None:
            assert sent == STEPS * size


def learnt(worker: Processes, task: str, changes: Any) -> tuple[torch.Tensor, int]:
    """The weights after some steps, and how many values learn."""
    trainer = in_one(worker, task, **changes)
    return trained(trainer), sum(p.numel() for p in trainer.learner.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", OPTIONS)
def test_fp16_runs_and_skips(alone, name):
    """The scale falls until the gradients of every pass are finite; the shifts do not care about it."""
    precision = Fp16(initial_scale=2.0**26)
    trainer = trainer_of(alone, "mlm_nsp", adversary=option(name), precision=precision, budget=Budget(steps=1))
    reports = list(trainer.steps())
    assert trainer.state.skipped > 0
    assert trainer.state.step == 1
    assert all(torch.isfinite(p).all() for p in trainer.network.parameters())
    assert all(math.isfinite(float(total)) for total in reports[-1].adversarial.totals.values())


@pytest.mark.parametrize("name", ["pgd", "smart"])
@pytest.mark.parametrize("precision", ["bf16_pure", "int8", "int8_full"])
def test_weights_and_products_of_few_bits(alone, precision, name):
    """The shift is found through whatever arithmetic there is: what it does is worse than doing nothing."""
    low = build(Composer("train").load_option("precision", precision), Precision)
    trainer = trainer_of(alone, "class", adversary=option(name), precision=low, micro=None)
    (report, _) = trainer.steps()
    total = report.adversarial.totals["corpus/label"]
    assert report.adversarial.counts == {"corpus/label": 8}
    assert float(total) > (float(report.losses.totals["corpus/label"]) if name == "pgd" else 0.0)


def test_an_overflow_in_the_adversarial_pass_skips_the_step(alone):
    trainer = trainer_of(alone, "mlm_nsp", adversary=FastGradient(), precision=Fp16(initial_scale=4.0), micro=None)
    poison(trainer, float("inf"), 2)
    before = weights(trainer)
    report = next(trainer.steps())
    assert not report.taken
    assert torch.equal(weights(trainer), before)


@pytest.mark.parametrize("name", ["pgd", "smart"])
def test_activations_recomputed_give_the_same_run(alone, name):
    rule = option(name)
    found = []
    for flag in (False, True):
        trainer = trainer_of(alone, "mlm_nsp", adversary=rule, gradient_checkpointing=flag)
        assert len(list(trainer.steps())) == 2
        found.append(weights(trainer))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_record_of_a_mix(name, tmp_path, monkeypatch):
    """Clean losses as ever, the adversary's terms beside them, and what it cost; a learned balance is no obstacle."""
    rule = option(name)
    monkeypatch.setattr("lmctl.train.loss_plot.plot_losses", lambda *_: None)  # others look at the picture
    shape = {"budget": Budget(steps=2), "log": Logging(every=2), "eval": Evaluation(rows=4)}
    end = session(tmp_path / "run", *two_tasks(0.1, adversary=rule, **shape)).run()
    (line,) = lines(tmp_path / "run", "train")
    losses, found = ({key for key in line if key.startswith(kind)} for kind in ("loss/", "adversarial/"))
    assert losses == {"loss/corpus/mlm", "loss/topics/label"}
    assert found == (set() if name == "none" else {"adversarial/corpus/mlm", "adversarial/topics/label"})
    assert line["loss"] == pytest.approx(sum(line[key] for key in losses))
    assert all(line[key] >= 0 for key in found)
    assert end["cost_factor"] == pytest.approx(rule.passes)
    if name in ("fgm", "pgd", "freelb"):
        assert line["adversarial/corpus/mlm"] > line["loss/corpus/mlm"]


@pytest.mark.parametrize("name", OPTIONS)
def test_every_parameter_takes_part_in_the_last_backward_pass(alone, name):
    """DDP waits for those of the other tasks too."""
    trainer = Trainer(*two_tasks(0.1, adversary=option(name)), alone)
    for task, stream in trainer.stream.streams.items():
        batch = stream.examples.collate(*stream.rows(0, 3), stream.draws)
        counts = {f"{task}/{term}": float(count) for term, count in batch.counts().items()}
        micro = MicroBatch(trainer.step, batch, Share(counts, 0.5, every_parameter=True), 0, last=True)
        trainer.plan.adversary.forward_backward(micro)
        assert all(parameter.grad is not None for parameter in trainer.learner.parameters())
        trainer.learner.zero_grad()


class Forgetful(Adversary):
    """Never makes its last pass."""

    def forward_backward(self, micro: AttackedBatch) -> Outcome:
        return Outcome(micro.forward_backward(View()).losses[0], {})


class Restless(Clean):
    """Goes on after it."""

    def forward_backward(self, micro: AttackedBatch) -> Outcome:
        micro.forward_backward(View(), last=True)
        return super().forward_backward(micro)


@pytest.mark.parametrize(("rule", "message"), [(Forgetful(), "made no last pass"), (Restless(), "after the last one")])
def test_an_adversary_of_ones_own_that_errs_is_told(alone, rule, message):
    with pytest.raises(LmctlError, match=message):
        next(trainer_of(alone, "mlm", adversary=rule).steps())


def test_a_network_that_does_not_read_through_its_embeddings_is_told(alone):
    trainer = trainer_of(alone, "mlm", adversary=FastGradient())
    assert trainer.step.perturbations.embeddings.width == 32
    trainer.network.word_embeddings()._forward_hooks.clear()
    with pytest.raises(LmctlError, match="nothing was shifted"):
        next(trainer.steps())


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "none"])
def test_settings_out_of_range(name):
    kind = type(option(name))
    given = {"augment": None} if name == "noise" else {}
    for field in {field.name for field in fields(kind)} - {"augment"}:
        with pytest.raises(ValueError, match=f"^{field} must"):
            kind(**given | {field: -1})
        if field in ("epsilon", "steps", "step_size", "weight"):
            with pytest.raises(ValueError, match=f"^{field} must be above 0, got 0"):
                kind(**given | {field: 0})


def test_the_noise_is_any_augmentation():
    for words in (["adversary.augment=word_dropout"], ["augment@adversary.augment=word_dropout"]):
        cfg = Composer("train").task(["adversary=noise", *words])
        assert type(build(cfg.adversary, Adversary).augment).__name__ == "WordDropout"  # type: ignore[attr-defined]
        assert type(build(cfg.augment, object)).__name__ == "Unchanged"


def test_costs_are_known_beforehand():
    assert [option(name).passes for name in ("none", "fgm", "rdrop", "freelb", "smart")] == [1, 2, 2, 3, 3]
    assert ProjectedGradient(steps=5).passes == 6
    assert RDrop().needs_dropout
