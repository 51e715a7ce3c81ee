"""Gradient accumulation and micro-batches give the same step; budgets, progress and the seeds of dropout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small import documents, plan, prepared, store
from small_tasks import small_task
from walked import alone, weights

from lmctl.config.schema import BatchShape, Budget
from lmctl.core.errors import DataError
from lmctl.mix.stream import Position
from lmctl.model.bert import Bert
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.optim.adamw import AdamW
from lmctl.parallel.processes import Processes
from lmctl.precision.bf16 import Bf16
from lmctl.precision.fp16 import Fp16
from lmctl.precision.fp32 import Fp32
from lmctl.train.step import StepReport
from lmctl.train.trainer import Trainer

LIVELY = Bert(2, 32, 2, 64, max_positions=64)
"""With dropout."""


def trained(**changes: Any) -> tuple[Trainer, list[StepReport]]:
    trainer = Trainer(plan(**changes), prepared(), alone())
    return trainer, list(trainer.steps())


def same(one: Trainer, other: Trainer) -> bool:
    """Whether their weights are the same but for rounding."""
    return bool((weights(one) - weights(other)).norm() / weights(one).norm() < 1e-6)


@pytest.mark.parametrize("objective", [MaskedLM(), MaskedLMAndNextSentence()], ids=["mlm", "mlm_nsp"])
@pytest.mark.parametrize("micro", [1, 2, 3])
def test_micro_batches_do_not_change_the_step(objective, micro):
    whole, reports = trained(objective=objective)
    split, split_reports = trained(objective=objective, micro=micro)
    assert same(whole, split)
    for one, other in zip(reports, split_reports, strict=True):
        assert one.counts == other.counts
        assert one.tokens == other.tokens
        for name in one.losses.totals:
            assert float(one.losses.totals[name]) == pytest.approx(float(other.losses.totals[name]), rel=1e-6)


def test_a_step_is_adam_on_the_mean_over_all_targets():
    """Against torch used by hand: one loss over the whole batch, clipped, AdamW."""
    changes = {"objective": MaskedLMAndNextSentence(), "budget": Budget(steps=3)}
    trainer, _ = trained(micro=3, **changes)
    by_hand = Trainer(plan(**changes), prepared(), alone())
    network = by_hand.network
    decay = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    at = Position()
    for step in range(3):
        window = by_hand.stream.window(at, 0.0, None, 0, 1)
        (batch,), at = window.batches, window.after
        terms, counts = by_hand.learner.task_losses(batch), batch.counts()
        (terms["mlm"] / counts["mlm"] + terms["nsp"] / counts["nsp"]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        progress = (step + 0.5) / 3
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (progress / 0.1 if progress < 0.1 else 1 - (progress - 0.1) / 0.9)
        optimizer.step()
        optimizer.zero_grad()
    assert same(by_hand, trainer)


def test_it_learns():
    trainer, _ = trained(objective=MaskedLM(), budget=Budget(steps=300), optim=AdamW(lr=1e-2))
    scores = trainer.validation.scores(trainer.learner)
    baseline = trainer.validation.baseline({"corpus": prepared().corpora["corpus"].train})
    assert scores["corpus/mlm"] < baseline["corpus/mlm"] - 0.1


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        (Budget(steps=4), 4),
        (Budget(steps=9, tokens=1), 1),
        (Budget(tokens=900, steps=None), None),
        (Budget(epochs=0.5), None),
        (Budget(minutes=0.005), None),
    ],
    ids=["steps", "tokens at once", "tokens", "epochs", "minutes"],
)
def test_the_budget_ends_the_run(budget, steps):
    trainer, reports = trained(budget=budget)
    if steps is not None:
        assert len(reports) == steps
    elif budget.tokens:
        assert sum(r.tokens["corpus"] for r in reports[:-1]) < budget.tokens
        assert budget.tokens <= sum(r.tokens["corpus"] for r in reports)
    elif budget.minutes:
        assert reports
        assert trainer.state.seconds >= 60 * budget.minutes
    else:
        assert len(reports) == -(-trainer.stream.total // 2 // 8)


def test_validation_does_not_disturb_training():
    undisturbed, _ = trained(model=LIVELY)
    trainer = Trainer(plan(model=LIVELY), prepared(), alone())
    for _ in trainer.steps():
        trainer.validation.scores(trainer.learner)
    assert torch.equal(weights(trainer), weights(undisturbed))


def test_activations_recomputed_give_the_same_run():
    one, _ = trained(model=LIVELY)
    other, _ = trained(model=LIVELY, gradient_checkpointing=True)
    assert torch.equal(weights(one), weights(other))


def test_a_split_that_cannot_make_pairs_is_named():
    text = prepared()
    corpus = type(text.corpora["corpus"])(text.corpora["corpus"].train, store(documents(1)))
    with pytest.raises(DataError, match=r"corpus, valid split: .* needs at least two documents"):
        Trainer(plan(), replace(text, corpora={"corpus": corpus}), alone())


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Fp32(), Bf16()], ids=["fp32", "bf16"])
def test_compiled_is_the_same_network(precision):
    one, _ = trained(objective=MaskedLM(), precision=precision)
    other, _ = trained(objective=MaskedLM(), precision=precision, compile=True)
    assert (weights(one) - weights(other)).norm() / weights(one).norm() < 1e-3


SHORT: dict[str, dict[str, Any]] = {
    "tokens": {"budget": Budget(tokens=4000, steps=None)},
    "tokens, by tokens": {"budget": Budget(tokens=4000, steps=None), "batch": BatchShape(None, 128, None, 32)},
    "steps": {"budget": Budget(steps=12)},
    "epochs": {"budget": Budget(epochs=1.5)},
    "the sooner of two": {"budget": Budget(tokens=3000, steps=20)},
    "skips": {"budget": Budget(steps=10), "precision": Fp16(initial_scale=2.0**40)},
}
"""Runs whose rows are shorter than `seq_len` allows."""


def followed(task: str, stop: int | None = None, go_on: Trainer | None = None, **changes: Any) -> Any:
    """The trainer, and per window what a curriculum, the lesson and the learning rate were told, and what was spent."""
    own, text = small_task(task, **changes)
    trainer, told, found = Trainer(own, text, alone()), {}, []
    if go_on is not None:
        weights = {name: value.clone() for name, value in go_on.network.state_dict().items()}
        trainer.load(weights, go_on.state_dict(), go_on.own_state())
    lessons: list[float] = []
    trainer.learner.register_forward_pre_hook(lambda module, given: lessons.append(given[1].progress))
    honest = trainer.stream.window

    def window(at: Position, progress: float, *rest: Any) -> Any:
        told[sum(at.rows.values())] = progress  # the last that was said counts
        return honest(at, progress, *rest)

    trainer.stream.window = window
    steps = trainer.steps()
    while True:
        state, rows = trainer.state, sum(trainer.state.position.get("rows", {}).values())
        budget, before = own.budget, (state.step, state.tokens, rows)
        if stop is not None and state.window == stop:
            return trainer, found
        report = next(steps, None)
        if report is None:
            return trainer, found
        ends = [
            (before[0], state.step, budget.most_steps),
            (before[1], state.tokens, budget.tokens),
            (before[2], sum(state.position["rows"].values()), (budget.epochs or 0) * trainer.stream.total),
        ]
        share, after = (max(pair[i] / pair[2] for pair in ends if pair[2]) for i in (0, 1))
        found.append((told[rows], lessons[-1], share, after, report))


@pytest.mark.parametrize("task", ["class", "mlm_nsp", "translate"])
@pytest.mark.parametrize("case", SHORT)
def test_progress_is_what_is_spent(task, case):
    """Never ahead of it, and at the end within a step of all: of tokens, not of positions; of steps that were taken."""
    trainer, found = followed(task, **SHORT[case])
    assert len(found) > 5
    for told, lesson, before, after, report in found:
        assert told == lesson == pytest.approx(before, abs=1e-12)
        if report.taken:
            middle = (before + after) / 2 if case != "the sooner of two" else None
            rate = trainer.plan.optim.lr * trainer.plan.schedule.factor(min(1.0, middle)) if middle else report.lr
            assert report.lr == pytest.approx(rate, rel=1e-9)
    assert found[-1][3] >= 1
    assert sum(not report.taken for *_, report in found) == (trainer.state.skipped if case == "skips" else 0)
    assert (trainer.state.skipped > 3) == (case == "skips")


@pytest.mark.parametrize("case", ["tokens", "skips"])
def test_progress_is_the_same_after_an_interruption(case):
    _, straight = followed("class", **SHORT[case])
    first, head = followed("class", stop=6, **SHORT[case])
    _, rest = followed("class", go_on=first, **SHORT[case])
    assert [told for told, *_ in head + rest] == [told for told, *_ in straight]


def test_no_two_seeds_or_processes_share_their_dropout():
    """Nor does any of them share it with the initial weights of a third."""
    draws = set()
    for seed in (1, 2, 3, 1 << 62):
        for rank in (0, 1, 2):
            one = Processes(on_cpu=True)
            one.rank = rank
            Trainer(plan(seed=seed), prepared(), one)
            draws.add(float(torch.rand(1, dtype=torch.float64)))
        torch.manual_seed(seed)
        draws.add(float(torch.rand(1, dtype=torch.float64)))
    assert len(draws) == 16
