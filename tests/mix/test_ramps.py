"""What changes over the budget in the rows of a step: masking rate, batch size, sequence length."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from planned import small_run
from resumed import goes_on_to_the_bit
from small import plan, prepared, weights
from walked import alone

from lmctl.config.schema import BatchShape, Budget
from lmctl.core.errors import ConfigError
from lmctl.model.gpt2 import Gpt2
from lmctl.model.recurrent import RecurrentLM
from lmctl.objective.clm import CausalLM
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.objective.streamed_lm import StreamedLM
from lmctl.parallel.simulate import as_workers
from lmctl.runner.simulated import Simulated
from lmctl.train.trainer import Trainer

FALLING = [[0.0, 0.5], [1.0, 0.1]]
RAMP = [[0.0, 0.25], [0.5, 1.0]]
ALL = {"objective": MaskedLM(FALLING), "batch": BatchShape(size=8, seq_len=32, ramp=RAMP, length_ramp=RAMP)}
DECODER = {"model": Gpt2(1, 32, 2, max_positions=64), "objective": CausalLM()}


def small(**changes: Any) -> Trainer:
    return Trainer(plan(**{"budget": Budget(steps=8)} | changes), prepared(), alone())


def test_masks_rows_and_lengths_are_what_the_curves_say():
    trainer = small(**ALL)
    seen = []
    for report in trainer.steps():
        rows = sum(trainer.drawn.after.rows.values()) - sum(row[0] for row in seen)
        seen.append((rows, report.tokens["corpus"] // rows, report.counts["corpus/mlm"]))
    assert [rows for rows, _, _ in seen] == [2, 4, 5, 6, 8, 8, 8, 8]
    assert [length for _, length, _ in seen] == [8, 16, 16, 24, 32, 32, 32, 32]
    rates = [masks / rows / (length - 2) for rows, length, masks in seen]  # some pieces of a row are special
    assert rates == sorted(rates, reverse=True)
    assert 0.4 < rates[0] < 0.55
    assert 0.1 < rates[-1] < 0.17


@pytest.mark.parametrize("objective", [MaskedLM(FALLING), MaskedLMAndNextSentence(FALLING)], ids=["mlm", "nsp"])
def test_validation_masks_as_at_the_end_and_fewer_masks_are_some_of_more(objective: Any):
    trainer, plain = small(objective=objective), small(objective=replace(objective, mask_rate=0.1))
    one, other = (t.validation.scores(t.learner) for t in (trainer, plain))
    assert one == other
    some = trainer.stream.streams["corpus"].examples
    rows, draws = np.arange(4), trainer.stream.streams["corpus"].draws
    early, late, end = (
        set(each.collate(rows, rows * 0, draws).targets["mlm"].positions.tolist())
        for each in (some.at(0.0), some.at(0.9), some)
    )
    assert early > late > end


@pytest.mark.parametrize("budget", [Budget(steps=8), Budget(tokens=900), Budget(epochs=0.7)], ids=["s", "t", "e"])
@pytest.mark.parametrize("run", [ALL, {**DECODER, "batch": ALL["batch"]}], ids=["mlm", "clm"])
def test_goes_on_to_the_bit(run: dict[str, Any], budget: Budget, tmp_path):
    goes_on_to_the_bit(lambda: small(**{**run, "budget": budget}), 3, tmp_path)


def test_a_step_is_the_same_however_it_is_shared_out():
    """Two rows of four workers: two of these have none in the first step."""
    found = []
    for changes in ({}, {"batch": replace(ALL["batch"], micro=3)}, {"runner": Simulated(4)}):
        own = plan(**{**ALL, "budget": Budget(steps=5), **changes})
        work = lambda worker, own=own: _after_training(Trainer(own, prepared(), worker))  # noqa: E731
        found.append(as_workers(own.simulated_workers, alone(), work))
    for other in found[1:]:
        assert (found[0] - other).norm() < 1e-3 * found[0].norm()


def _after_training(trainer: Trainer) -> torch.Tensor:
    list(trainer.steps())
    return weights(trainer)


def test_the_plan_counts_the_largest_step_and_the_mean():
    _, plain = small_run(objective=MaskedLM(0.5))
    _, sample = small_run(**ALL, budget=Budget(steps=8))
    assert sample.rows == 8
    assert sample.batch.counts()["mlm"] == plain.batch.counts()["mlm"]
    assert sample.rows_per_step == pytest.approx(8 * (0.5 * 0.625 + 0.5), rel=0.03)
    assert sample.tokens_per_row == pytest.approx(32 * (0.5 * 0.625 + 0.5), rel=0.04)
    _, by_tokens = small_run(**ALL, budget=Budget(tokens=1000))
    assert by_tokens.rows_per_step < sample.rows_per_step


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": ALL["batch"]}, r"batch.length_ramp: the rows of mix.tasks.corpus \(MaskedLMAndNextSentence\)"),
        (
            {"model": RecurrentLM(1, 16), "objective": StreamedLM(), "batch": BatchShape(size=4, ramp=RAMP)},
            "batch.ramp: mix.tasks.corpus carries its state",
        ),
        ({"objective": MaskedLM(FALLING), "teacher_cache": "use"}, "teacher_cache=use: answers are kept by row, and"),
        ({**ALL, "objective": MaskedLM(), "teacher_cache": "use"}, "and with batch.length_ramp its length"),
        ({"objective": StreamedLM(), "model": RecurrentLM(1, 16), "z_loss": -1.0}, "z_loss must not be negative"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], words: str):
    with pytest.raises((ConfigError, ValueError), match=words):
        plan(**changes)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: MaskedLM([[0, 0.3], [1, 1.5]]), "mask_rate is a share of the tokens between 0 and 1"),
        (lambda: MaskedLM([[0.5, 0.3], [0.2, 0.1]]), "mask_rate's points go from progress 0 to 1"),
        (lambda: MaskedLM("much"), "mask_rate must be a number or points"),
        (lambda: BatchShape(ramp=2.0), "ramp has shares above 0, up to 1"),
        (lambda: BatchShape(tokens=1024, ramp=RAMP), "ramp needs a number of rows: size=8 instead of tokens=1024"),
    ],
)
def test_curves_out_of_range(made: Any, words: str):
    with pytest.raises(ValueError, match=words):
        made()
