"""Weights of tasks in a mix: gradients, learned loss balance and gradient cosines against sums written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small import plan, prepared
from small_tasks import Numbers, task, text_of, two_tasks
from torch import Tensor

from lmctl.compression.compressor import Compressor
from lmctl.config.schema import Budget
from lmctl.core.counter_rng import CounterRng
from lmctl.mix.mix import Mix, Sampling, Task
from lmctl.mix.stream import MixStream, Position
from lmctl.model.gpt2 import Gpt2
from lmctl.model.recurrent import RecurrentLM
from lmctl.objective.base import Material
from lmctl.objective.classify import Classify
from lmctl.objective.clm import CausalLM
from lmctl.objective.denoise import Denoise
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.objective.mlm_sop import MaskedLMAndSentenceOrder
from lmctl.objective.streamed_lm import StreamedLM
from lmctl.objective.translate import Translate
from lmctl.optim.sgd import Sgd
from lmctl.parallel.processes import Processes
from lmctl.parallel.simulate import as_workers
from lmctl.plan import Plan
from lmctl.precision.fp16 import Fp16
from lmctl.runner.simulated import Simulated
from lmctl.schedule.shapes import Constant
from lmctl.train.loss_balance import Uncertainty
from lmctl.train.prepare import Prepared
from lmctl.train.trainer import Trainer


@pytest.fixture(scope="module")
def alone() -> Processes:
    return Processes(on_cpu=True)


def stream_of(tasks: dict[str, Task], sizes: dict[str, tuple[int, float]], sampling: Sampling, rows: int) -> MixStream:
    """A mix of tasks of so many rows, of so many tokens each."""
    examples = {name: Numbers(name, size, width) for name, (size, width) in sizes.items()}
    return MixStream(Mix(tasks, sampling), examples, 1, rows, None)


def counted(stream: MixStream, windows: int, progress: Any = lambda part: 0.0) -> dict[str, float]:
    """What the losses of each task, means over its rows of a window, counted for on average: nothing without rows."""
    at, sums = Position(), dict.fromkeys(stream.streams, 0.0)
    for number in range(windows):
        window = stream.window(at, progress((number + 0.5) / windows), None, 0, 1)
        for batch in window.batches:
            sums[batch.task] += window.factors[batch.task] / windows
        at = window.after
    return sums


def test_shares_and_loss_weights_are_the_factors():
    tasks = {"a": task(0.7, loss_weight=2.0), "b": task(0.3)}
    stream = stream_of(tasks, {"a": (50, 1.0), "b": (20, 1.0)}, Sampling(), 10)
    assert stream.window(Position(), 0.0, None, 0, 1).factors == pytest.approx({"a": 1.4, "b": 0.3})


UNIT = {"a": (1000, 10.0), "b": (1000, 10.0)}
SHARES: dict[str, tuple[Any, ...]] = {
    "a hundredth": ((0.99, 0.01), UNIT, Sampling(), 0.01),
    "a twentieth": ((0.95, 0.05), UNIT, Sampling(), 0.05),
    "by tokens": ((0.5, 0.5), {"a": (1000, 10.0), "b": (1000, 400.0)}, Sampling("tokens"), 0.5),
    "few tokens": ((0.9, 0.1), {"a": (1000, 400.0), "b": (1000, 10.0)}, Sampling("tokens"), 0.1),
    "by size": ((1.0, 1.0), {"a": (100_000, 1.0), "b": (1000, 1.0)}, Sampling(alpha=1.0), 1 / 101),
    "by size and tokens": ((1.0, 1.0), {"a": (990, 1.0), "b": (10, 2.0)}, Sampling("tokens", 1.0), 0.01),
}


@pytest.mark.parametrize("case", SHARES)
@pytest.mark.parametrize("loss_weight", [1.0, 3.0])
def test_a_task_counts_with_its_share_however_few_rows_that_is(case, loss_weight):
    """As if tasks were drawn by lot, whose expected gradient is the share times that of the task."""
    weights, sizes, sampling, share = SHARES[case]
    tasks = {"a": task(weights[0]), "b": task(weights[1], loss_weight=loss_weight)}
    found = counted(stream_of(tasks, sizes, sampling, 8), 4000)
    assert found["b"] == pytest.approx(loss_weight * share, rel=0.01)
    assert found["a"] == pytest.approx(1 - share, rel=0.01)


def test_a_curriculum_near_nothing_counts_as_it_says():
    """A weight that grows from 0 to 0.1: over the run 0.05 less what the others' weight of 1 makes of it."""
    tasks = {"a": task(1.0), "b": task([[0.0, 0.0], [1.0, 0.1]])}
    stream = stream_of(tasks, UNIT, Sampling(), 4)
    right = np.mean([w / (1 + w) for w in np.linspace(0, 0.1, 1001)])
    assert counted(stream, 4000, lambda part: part)["b"] == pytest.approx(right, rel=0.01)


@pytest.mark.parametrize("kind", ["mlm_nsp", "mlm_sop", "translate", "cut", "bart", "t5"])
def test_tokens_per_row_are_those_of_the_rows(kind):
    makes: dict[str, Any] = {
        "mlm_nsp": (MaskedLMAndNextSentence(), prepared(), "encoder", 64),
        "mlm_sop": (MaskedLMAndSentenceOrder(), prepared(), "encoder", 48),
        "translate": (Translate(), text_of("translate"), "seq2seq", 64),
        "cut": (Translate(), text_of("translate"), "seq2seq", 8),
        "bart": (Denoise("bart", 0.3), prepared(), "seq2seq", 32),
        "t5": (Denoise(), prepared(), "seq2seq", 32),
    }
    objective, text, family, seq_len = makes[kind]
    vocabulary = text.vocabulary
    if kind == "t5":
        vocabulary = replace(vocabulary, sentinels=np.arange(5, 30))
    rows = objective.examples(Material("corpus", text.corpora["corpus"].train, vocabulary, family, seq_len))
    numbers = np.arange(len(rows))
    tokens = [rows.collate(numbers, np.full_like(numbers, e), CounterRng(3, "x")).tokens for e in range(8)]
    assert rows.tokens_per_row == pytest.approx(np.mean(tokens) / len(rows), rel=0.03)


PLAIN = {"optim": Sgd(lr=1.0), "schedule": Constant(), "clip_norm": None, "budget": Budget(steps=1)}
"""One step that is the gradient itself."""


def mixed(weights: tuple[float, float], loss_weight: float, balance: str = "fixed", **changes) -> tuple[Plan, Prepared]:
    own, text = two_tasks(**PLAIN | changes)
    tasks = {
        "corpus": replace(own.mix.tasks["corpus"], weight=weights[0]),
        "topics": replace(own.mix.tasks["topics"], weight=weights[1], loss_weight=loss_weight),
    }
    return replace(own, mix=Mix(tasks, balance=balance, conflict_every=1)), text


def flat(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.network.parameters()])


def by_hand(trainer: Trainer) -> dict[str, tuple[list[Tensor | None], int]]:
    """By task the gradient of the mean over its targets in the first window, each term by its own, and its rows."""
    window, found = trainer.stream.window(Position(), 0.0, None, 0, 1), {}
    for batch in window.batches:
        terms, counts = trainer.learner.task_losses(batch), batch.counts()
        loss = sum(value / counts[name] for name, value in terms.items())
        gradient = torch.autograd.grad(loss, list(trainer.network.parameters()), allow_unused=True)
        found[batch.task] = (list(gradient), len(batch.inputs["input_ids"]))
    return found


@pytest.mark.parametrize("micro", [None, 3])
def test_a_step_of_two_tasks_is_their_weighed_gradients(alone, micro):
    own, text = mixed((0.75, 0.25), 4.0, micro=micro)
    trainer, twin = Trainer(own, text, alone), Trainer(replace(own, batch=replace(own.batch, micro=None)), text, alone)
    before = flat(trainer)
    list(trainer.steps())
    parts = by_hand(twin)
    assert [rows for _, rows in parts.values()] == [6, 2]
    factors = {"corpus": 0.75, "topics": 0.25 * 4.0}
    wanted = torch.zeros_like(before)
    for name, (gradient, _) in parts.items():
        pairs = zip(gradient, twin.network.parameters(), strict=True)
        whole = [torch.zeros_like(p) if g is None else g for g, p in pairs]
        wanted += factors[name] * torch.cat([g.flatten() for g in whole])
    assert (before - flat(trainer) - wanted).norm() < 1e-5 * wanted.norm()


def test_a_learned_balance_ends_where_kendall_says_whatever_a_task_counts_for():
    """f (exp(-s) L + s / 2) is least at s = log 2L; of a squared error, f (exp(-s) L / 2 + s / 2) at s = log L."""
    balance = Uncertainty(["t/label", "t/number"], ["t/number"])
    optimizer = torch.optim.SGD(balance.parameters(), lr=0.5)
    for factor, loss in ((1.0, 0.3), (0.2, 2.5)):
        for _ in range(800):
            value = sum(balance(name, torch.tensor(factor * loss), factor) for name in balance.places)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        assert balance.log_variance[0].item() == pytest.approx(np.log(2 * loss), abs=1e-3)
        assert balance.log_variance[1].item() == pytest.approx(np.log(loss), abs=1e-3)


def test_a_learned_balance_leaves_shares_and_loss_weights_what_they_are(alone):
    """The first step of s, from 0: f (L - 1/2) for a task that counts for f; the network's gradient is f times its own,
    as without a balance."""
    own, text = mixed((0.75, 0.25), 4.0, "uncertainty")
    trainer, plain = Trainer(own, text, alone), Trainer(mixed((0.75, 0.25), 4.0)[0], text, alone)
    (report,), _ = list(trainer.steps()), list(plain.steps())
    for place, (name, factor) in enumerate((("corpus/mlm", 0.75), ("topics/label", 1.0))):
        loss = float(report.losses.totals[name]) / report.counts[name]
        moved = trainer.learner.balance.log_variance[place].item()
        assert moved == pytest.approx(factor * (loss - 0.5), rel=1e-4)
    assert (flat(trainer) - flat(plain)).norm() < 1e-6


def cosines(alone: Processes, own: Plan, text: Prepared) -> dict[str, float]:
    return as_workers(own.simulated_workers, alone, lambda worker: next(Trainer(own, text, worker).steps()).cosines)


def test_conflict_is_the_cosine_of_the_whole_gradients(alone):
    own, text = mixed((0.5, 0.5), 4.0)
    a, b = (gradient for gradient, _ in by_hand(Trainer(own, text, alone)).values())
    both = [(x.flatten(), y.flatten()) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    x, y = (torch.cat(parts) for parts in zip(*both, strict=True))
    right = float(torch.nn.functional.cosine_similarity(x, y, dim=0))
    assert 0.001 < abs(right) < 0.99
    simulated = Compressor(error_feedback=False, simulate_workers=2)
    ways = [{}, {"micro": 1}, {"micro": 3}, {"compression": simulated}, {"balance": "uncertainty"}]
    ways.append({"runner": Simulated(2)})
    for changes in ways:
        found = cosines(alone, *mixed((0.5, 0.5), 4.0, **changes))
        assert found == pytest.approx({"corpus|topics": right}, abs=1e-5), changes
    half = cosines(alone, *mixed((0.5, 0.5), 4.0, precision=Fp16()))
    assert half == pytest.approx({"corpus|topics": right}, abs=0.01)


def test_a_task_never_pulls_against_itself(alone):
    """Two names for the same whole text."""
    own, text = plan(size=2 * len(text_of("class").corpora["corpus"].train.documents) - 2), text_of("class")
    tasks = {name: Task(Classify(), own.data) for name in ("one", "other")}
    corpora = dict.fromkeys(tasks, text.corpora["corpus"])
    own = replace(own, mix=Mix(tasks, conflict_every=1), **PLAIN)
    trainer = Trainer(own, replace(text, corpora=corpora, fingerprints=text.fingerprints | corpora), alone)
    with torch.no_grad():  # and the same head
        trainer.network.class_heads["other"].load_state_dict(trainer.network.model.classifier.state_dict())
    assert next(trainer.steps()).cosines == pytest.approx({"one|other": 1.0}, abs=1e-4)


def carrying(every: int | None) -> tuple[Plan, Prepared]:
    """A network that carries its state through one of two tasks, with dropout."""
    own = plan(model=RecurrentLM(1, 16, dropout=0.2), objective=StreamedLM(), size=4, seq_len=8, budget=Budget(steps=8))
    tasks = {"corpus": Task(StreamedLM(), own.data), "other": Task(CausalLM(), own.data)}
    text = prepared()
    corpora = dict.fromkeys(tasks, text.corpora["corpus"])
    return replace(own, mix=Mix(tasks, conflict_every=every)), replace(text, corpora=corpora)


def test_looking_at_conflicts_changes_nothing(alone):
    looking = Trainer(*carrying(2), alone)
    seen = [bool(report.cosines) for report in looking.steps()]
    blind = Trainer(*carrying(None), alone)
    list(blind.steps())
    assert seen == [True, False] * 4
    assert torch.equal(flat(looking), flat(blind))
    assert all(torch.equal(v, blind.network.carried()[n]) for n, v in looking.network.carried().items())


def test_a_stretch_without_the_task_has_no_cosine(alone):
    own, text = mixed((1.0, 1.0), 1.0)
    tasks = own.mix.tasks | {"topics": replace(own.mix.tasks["topics"], weight=[[0.0, 0.0], [1.0, 1.0]])}
    assert cosines(alone, replace(own, mix=replace(own.mix, tasks=tasks)), text) == {}


def test_shares_by_tokens_of_real_rows_are_what_is_asked_for(alone):
    own, text = two_tasks(budget=Budget(steps=60))
    tasks = {"corpus": replace(own.mix.tasks["corpus"], weight=0.8), "topics": own.mix.tasks["topics"]}
    tasks["topics"] = replace(tasks["topics"], weight=0.2)
    trainer = Trainer(replace(own, mix=Mix(tasks, Sampling("tokens"))), text, alone)
    list(trainer.steps())
    spent = trainer.state.task_tokens
    assert spent["corpus"] / sum(spent.values()) == pytest.approx(0.8, abs=0.01)


def test_a_decoders_tasks_share_their_weights(alone):
    """Another family: a cosine for each pair of three tasks."""
    own = plan(model=Gpt2(1, 16, 2, 64), objective=CausalLM(), size=6, seq_len=16, **PLAIN)
    tasks = {name: Task(CausalLM(), own.data) for name in "cab"}
    text = prepared()
    text = replace(text, corpora=dict.fromkeys(tasks, text.corpora["corpus"]))
    found = cosines(alone, replace(own, mix=Mix(tasks, conflict_every=1)), text)
    assert set(found) == {"a|b", "a|c", "b|c"}
