"""The same rows give the same step, however they are split over micro-batches and accumulation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small import plan, prepared
from small_tasks import small_task

from lmctl.config.schema import BatchShape, Budget
from lmctl.core.errors import ConfigError, DataError
from lmctl.mix.stream import Position
from lmctl.model.bert import Bert
from lmctl.model.gpt2 import Gpt2
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.optim.adamw import AdamW
from lmctl.parallel.processes import Processes
from lmctl.precision.bf16 import Bf16
from lmctl.precision.fp16 import Fp16
from lmctl.precision.fp32 import Fp32
from lmctl.train.trainer import Trainer


@pytest.fixture(scope="module")
def alone() -> Processes:
    return Processes(on_cpu=True)


def trained(alone: Processes, **changes) -> tuple[Trainer, list]:
    runner = Trainer(plan(**changes), prepared(), alone)
    return runner, list(runner.steps())


def weights(runner: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in runner.network.parameters()])


@pytest.mark.parametrize("objective", [MaskedLM(), MaskedLMAndNextSentence()], ids=["mlm", "mlm_nsp"])
@pytest.mark.parametrize("micro", [1, 2, 3])
def test_micro_batches_do_not_change_the_step(alone, objective, micro):
    whole, reports = trained(alone, objective=objective)
    split, split_reports = trained(alone, objective=objective, micro=micro)
    assert (weights(whole) - weights(split)).norm() / weights(whole).norm() < 1e-6
    for one, other in zip(reports, split_reports, strict=True):
        assert one.counts == other.counts
        assert one.tokens == other.tokens
        for name in one.losses.totals:
            assert float(one.losses.totals[name]) == pytest.approx(float(other.losses.totals[name]), rel=1e-6)


def test_a_step_is_adam_on_the_mean_over_all_targets(alone):
    """Against torch used by hand: one loss over the whole batch, clipped, AdamW."""
    changes = {"objective": MaskedLMAndNextSentence(), "budget": Budget(steps=3)}
    runner, _ = trained(alone, micro=3, **changes)
    by_hand = Trainer(plan(**changes), prepared(), alone)
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
    assert (weights(runner) - weights(by_hand)).norm() / weights(by_hand).norm() < 1e-6


def test_it_learns(alone):
    runner, _ = trained(alone, objective=MaskedLM(), budget=Budget(steps=300), optim=AdamW(lr=1e-2))
    scores = runner.validation.scores(runner.learner)
    baseline = runner.validation.baseline({"corpus": prepared().corpora["corpus"].train})
    assert scores["corpus/mlm"] < baseline["corpus/mlm"] - 0.1


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        (Budget(steps=4), 4),
        (Budget(steps=9, tokens=1), 1),
        (Budget(tokens=900, steps=None), None),
        (Budget(epochs=0.5), None),
    ],
    ids=["steps", "tokens at once", "tokens", "epochs"],
)
def test_the_budget_ends_the_run(alone, budget, steps):
    runner, reports = trained(alone, budget=budget)
    if steps is not None:
        assert len(reports) == steps
    elif budget.tokens:
        assert sum(r.tokens["corpus"] for r in reports[:-1]) < budget.tokens
        assert budget.tokens <= sum(r.tokens["corpus"] for r in reports)
    else:
        assert len(reports) == -(-runner.stream.total // 2 // 8)


def test_time_ends_the_run(alone):
    runner, reports = trained(alone, budget=Budget(minutes=0.02))
    assert reports
    assert runner.state.seconds >= 1.2


def test_every_epoch_sees_every_row_once(alone):
    runner = Trainer(plan(), prepared(), alone)
    size = runner.stream.total
    for epoch in range(2):
        rows, epochs = runner.stream.streams["corpus"].rows(epoch * size, size)
        assert sorted(rows.tolist()) == list(range(size))
        assert set(epochs.tolist()) == {epoch}


def test_validation_does_not_disturb_training(alone):
    undisturbed, _ = trained(alone, model=Bert(2, 32, 2, 64, max_positions=64))
    runner = Trainer(plan(model=Bert(2, 32, 2, 64, max_positions=64)), prepared(), alone)
    for _ in runner.steps():
        runner.validation.scores(runner.learner)
    assert torch.equal(weights(runner), weights(undisturbed))


def test_activations_recomputed_give_the_same_run(alone):
    one, _ = trained(alone, model=Bert(2, 32, 2, 64, max_positions=64))
    other, _ = trained(alone, model=Bert(2, 32, 2, 64, max_positions=64), gradient_checkpointing=True)
    assert torch.equal(weights(one), weights(other))


def test_rules_about_two_components():
    with pytest.raises(ConfigError, match=r"batch\.seq_len=65 is longer than the model's 64 positions"):
        plan(seq_len=65)
    with pytest.raises(ConfigError, match=r"mix\.tasks\.corpus: MaskedLM needs an encoder, and .* is a decoder"):
        plan(objective=MaskedLM(), model=Gpt2(2, 32, 2))
    with pytest.raises(ConfigError, match="which starts from scratch"):
        plan(init_from="runs/other")


def test_a_split_that_cannot_make_pairs_is_named(alone):
    from small import documents, store

    text = prepared()
    corpus = type(text.corpora["corpus"])(text.corpora["corpus"].train, store(documents(1)))
    with pytest.raises(DataError, match=r"corpus, valid split: .* needs at least two documents"):
        Trainer(plan(), replace(text, corpora={"corpus": corpus}), alone)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Fp32(), Bf16()], ids=["fp32", "bf16"])
def test_compiled_is_the_same_network(alone, precision):
    one, _ = trained(alone, objective=MaskedLM(), precision=precision)
    other, _ = trained(alone, objective=MaskedLM(), precision=precision, compile=True)
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


def followed(alone: Processes, task: str, stop: int | None = None, go_on: Trainer | None = None, **changes: Any) -> Any:
    """The runner, and per window what a curriculum, the lesson and the learning rate were told, and what was spent."""
    own, text = small_task(task, **changes)
    runner, told, found = Trainer(own, text, alone), {}, []
    if go_on is not None:
        weights = {name: value.clone() for name, value in go_on.network.state_dict().items()}
        runner.load(weights, go_on.state_dict(), go_on.own_state())
    lessons: list[float] = []
    runner.learner.register_forward_pre_hook(lambda module, given: lessons.append(given[1].progress))
    honest = runner.stream.window

    def window(at: Position, progress: float, *rest: Any) -> Any:
        told[sum(at.rows.values())] = progress  # the last that was said counts
        return honest(at, progress, *rest)

    runner.stream.window = window
    steps = runner.steps()
    while True:
        state, rows = runner.state, sum(runner.state.position.get("rows", {}).values())
        budget, before = own.budget, (state.step, state.tokens, rows)
        if stop is not None and state.window == stop:
            return runner, found
        report = next(steps, None)
        if report is None:
            return runner, found
        ends = [
            (before[0], state.step, budget.most_steps),
            (before[1], state.tokens, budget.tokens),
            (before[2], sum(state.position["rows"].values()), (budget.epochs or 0) * runner.stream.total),
        ]
        share, after = (max(pair[i] / pair[2] for pair in ends if pair[2]) for i in (0, 1))
        found.append((told[rows], lessons[-1], share, after, report))


@pytest.mark.parametrize("task", ["class", "mlm_nsp", "translate"])
@pytest.mark.parametrize("case", SHORT)
def test_progress_is_what_is_spent(alone, task, case):
    """Never ahead of it, and at the end within a step of all: of tokens, not of positions; of steps that were taken."""
    runner, found = followed(alone, task, **SHORT[case])
    assert len(found) > 5
    for told, lesson, before, after, report in found:
        assert told == lesson == pytest.approx(before, abs=1e-12)
        if report.taken:
            middle = (before + after) / 2 if case != "the sooner of two" else None
            rate = runner.plan.optim.lr * runner.plan.schedule.factor(min(1.0, middle)) if middle else report.lr
            assert report.lr == pytest.approx(rate, rel=1e-9)
    assert found[-1][3] >= 1
    assert sum(not report.taken for *_, report in found) == (runner.state.skipped if case == "skips" else 0)
    assert (runner.state.skipped > 3) == (case == "skips")


@pytest.mark.parametrize("case", ["tokens", "skips"])
def test_progress_is_the_same_after_an_interruption(alone, case):
    _, straight = followed(alone, "class", **SHORT[case])
    first, head = followed(alone, "class", stop=6, **SHORT[case])
    _, rest = followed(alone, "class", go_on=first, **SHORT[case])
    assert [told for told, *_ in head + rest] == [told for told, *_ in straight]


def test_no_two_seeds_or_processes_share_their_dropout(alone):
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
