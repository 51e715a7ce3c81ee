"""A student that writes what it learns from: what it draws, what is asked about it, and runs with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from resumed import goes_on_to_the_bit
from small import vocabulary, weights
from small_tasks import small_task
from taught import save_teacher

from lmctl.config.schema import Budget
from lmctl.core.counter_rng import CounterRng
from lmctl.core.vocabulary import Each
from lmctl.distill.curriculum import Curriculum
from lmctl.distill.logits import Logits
from lmctl.distill.on_policy import OnPolicy
from lmctl.distill.on_policy_rollout import GumbelNoise, whole_rows
from lmctl.mix.stream import Position, Window
from lmctl.model.base import ModelSpec
from lmctl.model.gpt2 import Gpt2
from lmctl.model.recurrent import RecurrentLM
from lmctl.model.recurrent_mt import RecurrentMT
from lmctl.model.transformer_mt import TransformerMT
from lmctl.parallel.processes import Processes
from lmctl.train.rows import real_positions, row_generators
from lmctl.train.trainer import Trainer

BIG: dict[str, ModelSpec] = {
    "clm": Gpt2(3, 32, 2, 64),
    "translate": TransformerMT(1, 1, 32, 2, 64, max_positions=64),
}
SEP, PAD = vocabulary().sep, vocabulary().pad


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> dict[str, Path]:
    return {task: save_teacher(tmp_path_factory.mktemp(task), spec, {"lm": 85}) for task, spec in BIG.items()}


def running(teachers, task="clm", share=1.0, hard=0.0, how=None, **changes) -> Trainer:
    terms = {"logits": Logits(divergence="js", temperature=1.0), "on_policy": how or OnPolicy(share=share)}
    rule = Curriculum(terms, hard=hard)
    plan, text = small_task(task, **({"teacher": (str(teachers[task]),), "distill": rule} | changes))
    return Trainer(plan, text, Processes(on_cpu=True))


def window(trainer: Trainer, step: int = 0, micro: int | None = None):
    return trainer.stream.window(Position(), 0.0, micro, 0, 1)


def test_the_largest_noisy_logit_is_a_draw():
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0, 0.5]]).expand(20000, -1)
    small = replace(vocabulary(), size=4, pad=3, sep=3)
    for temperature in (1.0, 2.0):
        drawn = GumbelNoise(range(20000), temperature, small, "cpu")(None, logits).argmax(dim=-1)
        wanted = (logits[0, :4] / temperature).softmax(-1)  # the fifth is beyond the vocabulary
        found = torch.bincount(drawn, minlength=5)[:4] / 20000
        assert (found - wanted).abs().max() < 0.015


def test_continuations_by_the_slow_way(teachers):
    """Piece by piece, without a cache, each row alone, every piece seeing its own document only."""
    trainer = running(teachers)
    given = window(trainer)
    after = trainer.rollout.rewritten(given, 3)
    (before,), (batch,) = given.batches, after.batches
    rows, real = whole_rows(before)
    stays = int(0.5 * real.min())
    draws = CounterRng(1, "on_policy").named("pieces")
    generators = row_generators(before, real_positions(before), draws, 3)
    found, _ = whole_rows(batch)
    for row, generator in enumerate(generators):
        noise = GumbelNoise([int(generator.integers(1 << 62))], 1.0, vocabulary(), "cpu")
        pieces = rows[row, :stays].tolist()
        start = max([place for place, piece in enumerate(pieces) if piece == SEP], default=0)
        while len(pieces) < rows.shape[1]:
            ids = torch.tensor([pieces[start:]])
            with torch.no_grad():
                hidden = trainer.network.eval().encode({"input_ids": ids}, torch.tensor([ids.shape[1] - 1]))
                logits = trainer.network.head("lm", hidden)
            pieces.append(int(noise(None, logits).argmax()))
            if pieces[-1] == SEP:
                break
        assert found[row, : len(pieces)].tolist() == pieces
        # Asked about: every piece of its own, and no other.
        own = [p % 32 for p in batch.targets["lm"].positions.tolist() if p // 32 == row]
        assert own == list(range(stays - 1, len(pieces) - 1))
    assert batch.generated
    assert batch.rows is None
    assert not before.generated


def test_what_a_student_from_elsewhere_brings_along_does_not_write(teachers):
    """Its generation_config.json may forbid pieces; its lesson is about what it finds likely."""
    plain, brought = running(teachers), running(teachers)
    config = brought.network.pretrained().generation_config
    config.suppress_tokens, config.repetition_penalty = list(range(5, 60)), 9.0
    found = [whole_rows(trainer.rollout.rewritten(window(trainer), 3).batches[0])[0] for trainer in (plain, brought)]
    assert np.array_equal(*found)
    assert (found[0] >= 5).any()
    assert brought.network.pretrained().generation_config is config


def test_translations_end_where_they_end(teachers):
    trainer = running(teachers, "translate")
    given = window(trainer)
    after = trainer.rollout.rewritten(given, 0)
    (before,), (batch,) = given.batches, after.batches
    assert torch.equal(batch.inputs["input_ids"], before.inputs["input_ids"])
    width = batch.inputs["decoder_input_ids"].shape[1]
    for row in range(len(before.inputs["input_ids"])):
        labels = batch.targets["lm"].labels[batch.targets["lm"].positions // width == row].tolist()
        assert labels.count(SEP) == (labels[-1] == SEP)
        assert PAD not in labels
        shifted = batch.inputs["decoder_input_ids"][row, : len(labels)].tolist()
        assert shifted == [PAD, *labels[:-1]]


def test_the_lesson_is_the_divergence_on_the_students_own_pieces(teachers):
    """The first step's term, by hand; the objective's loss is left out, whatever it would count for."""
    trainer, again = running(teachers, hard=1.0), running(teachers, hard=1.0)
    report = next(trainer.steps())
    after = again.rollout.rewritten(window(again), 0)
    (batch,) = after.batches
    positions = batch.targets["lm"].positions
    networks = again.network, again.learner.distillation.teacher.teachers[0].network
    with torch.no_grad():
        q, p = (n.head("lm", n.encode(batch.inputs, positions)).softmax(-1).double() for n in networks)
    m = (p + q) / 2
    wanted = 0.5 * float((p * (p / m).log()).sum() + (q * (q / m).log()).sum())
    assert float(report.losses.totals["corpus/distill_logits"]) == pytest.approx(wanted, rel=1e-4)
    assert report.counts["corpus/distill_logits"] == len(positions)
    assert "corpus/lm" not in report.losses.totals
    assert "corpus/lm" not in report.counts
    no_hard = running(teachers, hard=0.0)
    next(no_hard.steps())
    assert torch.equal(weights(trainer), weights(no_hard))


def test_a_lot_for_every_step(teachers):
    own = running(teachers, share=0.3).rollout
    turns = [own.is_rollout_step(step) for step in range(1000)]
    assert 0.25 < np.mean(turns) < 0.35
    trainer = running(teachers, share=0.5, budget=Budget(steps=8))
    seen = ["corpus/lm" in report.counts for report in trainer.steps()]
    assert seen == [not trainer.rollout.is_rollout_step(step) for step in range(8)]
    assert len(set(seen)) == 2


def test_micro_batches_and_interruptions_make_no_difference(teachers, tmp_path):
    settings = {"share": 0.7, "budget": Budget(steps=4)}
    whole, _ = goes_on_to_the_bit(lambda: running(teachers, **settings), 2, tmp_path)
    split = running(teachers, **settings, micro=3)
    list(split.steps())
    assert (weights(whole) - weights(split)).norm() < 1e-4 * weights(whole).norm()


@pytest.mark.parametrize("model", [BIG["clm"], RecurrentLM(1, 32)], ids=["gpt2", "lstm"])
@pytest.mark.parametrize("room", [None, 6])
def test_what_a_row_keeps_and_writes_does_not_depend_on_its_company(teachers, model, room):
    """With texts that lose words, so that rows differ in length."""
    how = OnPolicy(share=1.0, prompt=0.3, max_new_tokens=room)
    trainer = running(teachers, how=how, model=model)
    material = trainer.rollout.examples["corpus"].material
    vary = replace(material, rewrite=Each(lambda ids, generator: ids[: int(generator.integers(10, len(ids)))]))
    examples = trainer.learner.objectives["corpus"].examples(vary)
    trainer.rollout.examples = {"corpus": examples}
    rows, draws = np.arange(6), CounterRng(1, "x")

    def written(some: np.ndarray) -> list[tuple[list[int], int]]:
        given = Window([examples.collate(some, np.zeros_like(some), draws)], {}, Position())
        after = trainer.rollout.rewritten(given, 4)
        (batch,) = after.batches
        whole, _ = whole_rows(batch)
        width = batch.inputs["input_ids"].shape[1]
        asked = np.bincount(batch.targets["lm"].positions.numpy() // width, minlength=len(some))
        ends = zip(whole, starts(some), asked.tolist(), strict=True)
        return [(row[: first + count].tolist(), count) for row, first, count in ends]

    def starts(some: np.ndarray) -> np.ndarray:
        return np.maximum(1, (0.3 * lengths[some]).astype(int))

    texts, lengths = whole_rows(examples.collate(rows, np.zeros_like(rows), draws))
    assert len(set(lengths.tolist())) > 3
    together = written(rows)
    for count in (1, 2, 3):
        assert [one for part in np.split(rows, 6 // count) for one in written(part)] == together
    for (_, count), length, start in zip(together, lengths, starts(rows), strict=True):
        assert 1 <= count <= min(length - start, room or length)
    most = [min(length - start, room or length) for length, start in zip(lengths, starts(rows), strict=True)]
    assert any(count == limit for (_, count), limit in zip(together, most, strict=True))  # what is not kept is written
    for (row, _), text, start in zip(together, texts, starts(rows), strict=True):
        assert row[:start] == text[:start].tolist()


def test_without_turns_it_is_the_lesson_alone(teachers):
    never = running(teachers, share=0.0, hard=0.5)
    plain = running(teachers, share=0.0, hard=0.5)
    plain.rollout = None
    for trainer in (never, plain):
        list(trainer.steps())
    assert torch.equal(weights(never), weights(plain))


@pytest.mark.parametrize(
    ("task", "model"), [("clm", RecurrentLM(1, 32)), ("translate", RecurrentMT(1, 1, 32, 32)), ("translate", None)]
)
def test_whatever_writes_can_learn_so(teachers, task, model):
    changes = {} if model is None else {"model": model}
    how = OnPolicy(share=1.0, max_new_tokens=6, prompt=0.8)
    trainer = running(teachers, task, how=how, budget=Budget(steps=2), **changes)
    before = weights(trainer)
    reports = list(trainer.steps())
    assert len(reports) == 2
    assert all(0 < report.counts["corpus/distill_logits"] <= 8 * 6 for report in reports)
    assert (weights(trainer) - before).norm() > 0
