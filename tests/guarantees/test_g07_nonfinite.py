"""G7: what is not finite never reaches the weights, and a run does with it what its config says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sessions import Ears, lines, session
from small import plan, prepared
from walked import alone

from lmctl.compression.compressor import Compressor
from lmctl.compression.quantise import Int8
from lmctl.config.schema import Budget, Checkpointing, Evaluation, SpikeGuard
from lmctl.core.errors import Diverged
from lmctl.optim.adamw import AdamW
from lmctl.parallel.processes import Processes
from lmctl.parallel.simulate import simulate
from lmctl.plan import Plan
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.fp16 import Fp16
from lmctl.precision.fp32 import Fp32
from lmctl.precision.int8_weights import Int8Weights
from lmctl.runner.simulated import Simulated
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_reader import read
from lmctl.train.session import Session
from lmctl.train.state import TrainState
from lmctl.train.step import StepSums, TrainStep
from lmctl.train.step_guard import StepGuard
from lmctl.train.trainer import Trainer

STEPS = 16
ROLLBACK = {"on_nonfinite": "rollback"}


def small(**changes) -> Plan:
    return plan(
        budget=Budget(steps=STEPS), eval=Evaluation(every=100, rows=8), checkpoint=Checkpointing(every=4), **changes
    )


def poisoned(run: Session, factors: dict[int, float]) -> Session:
    """Multiply the gradients of some windows, by number."""
    poison(run.trainer.step, factors)
    return run


def poison(step: TrainStep, factors: dict[int, float]) -> None:
    """The same for one worker."""
    accumulate = step.accumulate

    def done(window, counts, moment):
        found = accumulate(window, counts, moment)
        for parameter in step.learner.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factors.get(moment.window, 1.0))
        return found

    step.accumulate = done  # type: ignore[method-assign]


def said(run: Session) -> str:
    assert isinstance(run.display, Ears)
    return "\n".join(run.display.heard)


def finite(folder: Path) -> bool:
    """Whether all that a run has written is finite: record, summary, checkpoints."""
    text = (folder / "metrics.jsonl").read_text() + (folder / "summary.json").read_text()
    saved = list(Checkpoints(folder / "checkpoints", 2).sound(print))
    weights = [tensor for path in saved for tensor in read(path).weights.values()]
    return not {"NaN", "Infinity"} & set(text.replace(",", " ").replace("}", " ").split()) and all(
        bool(torch.isfinite(tensor.float()).all()) for tensor in weights
    )


@pytest.mark.parametrize("precision", [Fp32(), Bf16Pure(), Int8Weights()], ids=lambda one: type(one).__name__)
def test_g07_the_step_is_not_taken_and_the_run_stops(tmp_path, precision):
    run = poisoned(session(tmp_path, small(precision=precision), prepared()), {6: math.inf})
    before: dict[str, torch.Tensor] = {}
    update = run.trainer.step.update

    def watched(done, counts, moment):
        before.update({name: value.clone() for name, value in run.trainer.network.state_dict().items()})
        return update(done, counts, moment)

    run.trainer.step.update = watched  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=r"step 7.*not finite.*not taken"):
        run.run()
    after = run.trainer.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert finite(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("scaled", [False, True], ids=["fp32", "fp16"])
def test_g07_skipped_steps_are_counted_and_said(tmp_path, scaled):
    """With a loss scale, overflow is normal, and lowers the scale."""
    wanted = small(on_nonfinite="skip", precision=Fp16() if scaled else Fp32())
    run = poisoned(session(tmp_path, wanted, prepared()), {6: math.nan, 9: math.inf})
    summary = run.run()
    assert (summary["steps"], summary["skipped_steps"]) == (STEPS, 2)
    assert ("not finite; that step was not taken (skip 1 of at most 10" in said(run)) == (not scaled)
    assert finite(tmp_path)


def test_g07_too_many_skips_in_a_row_stop_the_run(tmp_path):
    wanted = small(on_nonfinite="skip", max_skips=3)
    with pytest.raises(Diverged):
        poisoned(session(tmp_path / "four", wanted, prepared()), dict.fromkeys((5, 6, 7, 8), math.nan)).run()
    apart = dict.fromkeys((2, 3, 4, 6, 7, 8), math.nan)
    assert poisoned(session(tmp_path / "three", wanted, prepared()), apart).run()["skipped_steps"] == 6


def test_g07_rolled_back_to_the_newest_checkpoint_and_killed_to_the_same_bits(tmp_path, monkeypatch):
    """Windows 4 to 6 are passed over: step 4 is the newest checkpoint, window 6 the poisoned one."""
    poison = {6: math.nan}
    whole = poisoned(session(tmp_path / "whole", small(**ROLLBACK), prepared()), poison)
    summary = whole.run()
    assert (summary["steps"], summary["skipped_steps"]) == (STEPS, 3)
    assert [(one["from"], one["to"]) for one in summary["rollbacks"]] == [(6, 4)]
    assert "back to step-00000004, and on with other rows (rollback 1 of at most 10)" in said(whole)
    steps = [line["step"] for line in lines(tmp_path / "whole", "train")]
    assert steps == sorted(set(steps))

    class Killed(BaseException):
        pass

    first = poisoned(session(tmp_path / "killed", small(**ROLLBACK), prepared()), poison)
    after = first._after

    def kill(report):
        if first.trainer.state.rollbacks and report.step == 6:
            raise Killed
        return after(report)

    monkeypatch.setattr(first, "_after", kill)
    with pytest.raises(Killed):
        first.run()
    second = poisoned(session(tmp_path / "killed", small(**ROLLBACK), prepared(), resume=True), poison)
    assert second.run()["rollbacks"] == summary["rollbacks"]
    one, other = (run.trainer.network.state_dict() for run in (whole, second))
    assert all(torch.equal(one[name], other[name]) for name in one)
    drop = {"seconds", "tokens_per_s", "peak_memory_bytes", "bytes_sent"}
    records = [
        [{key: value for key, value in line.items() if key not in drop} for line in lines(tmp_path / name, "train")]
        for name in ("whole", "killed")
    ]
    assert records[0] == records[1]


def test_g07_a_rollback_needs_something_to_go_back_to_and_ends(tmp_path):
    """The untrained model is saved for it; a divergence that comes again each time ends the run."""
    first = poisoned(session(tmp_path / "early", small(**ROLLBACK), prepared()), {1: math.nan})
    assert first.run()["rollbacks"][0]["to"] == 0
    always = poisoned(
        session(tmp_path / "always", small(max_skips=2, **ROLLBACK), prepared()), dict.fromkeys(range(99), math.nan)
    )
    with pytest.raises(Diverged):
        always.run()
    assert len(always.trainer.state.rollbacks) == 2


@pytest.mark.parametrize("action", ["none", "warn", "skip", "rollback"])
def test_g07_a_loss_spike(tmp_path, action):
    wanted = small(spike=SpikeGuard(action, sigma=6.0, steps=8))
    run = poisoned(session(tmp_path, wanted, prepared()), {10: 1e4})
    summary = run.run()
    assert summary["steps"] == STEPS
    assert summary["skipped_steps"] == {"none": 0, "warn": 0, "skip": 1, "rollback": 3}[action]
    assert len(summary.get("rollbacks", ())) == (action == "rollback")
    assert ("standard deviations above the mean of the last 8 steps" in said(run)) == (action != "none")


@given(st.lists(st.floats(0.1, 10.0), min_size=8, max_size=40), st.floats(0.5, 4.0))
def test_g07_a_spike_is_what_the_rule_says(norms, sigma):
    """Against numpy: so many standard deviations above the mean of the last 8 values, of which 4 must be there."""
    guard = StepGuard(plan(spike=SpikeGuard("skip", sigma, 8)), alone())
    taken: list[float] = []
    for norm in norms:
        last = np.float32(taken[-8:])
        spikes = len(last) >= 4 and np.float32(norm) - last.mean(dtype="f8") > sigma * last.std(dtype="f8") + 1e-6
        close = len(last) >= 4 and abs(norm - last.mean(dtype="f8") - sigma * last.std(dtype="f8")) < 1e-4
        allowed = guard.allows(torch.tensor(norm), StepSums(), {})
        assert allowed == (not spikes) or close
        taken += [norm] if allowed else []


@pytest.mark.parametrize("precision", [Fp32(), Bf16Pure(), Int8Weights()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("lr", [1e25, 3e38], ids=["useless weights", "weights of infinity"])
def test_g07_a_last_step_that_diverges_is_neither_saved_nor_exported(tmp_path, precision, lr):
    """The gradients of the only step are finite; what it makes of the weights is not, or validates so."""
    wanted = replace(small(precision=precision, optim=AdamW(lr=lr), clip_norm=None), budget=Budget(steps=1))
    with pytest.raises(Diverged, match="diverged"):
        session(tmp_path, wanted, prepared()).run()
    assert not (tmp_path / "model").exists()
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"
    assert finite(tmp_path)


def test_g07_broken_weights_are_named_before_the_first_step(tmp_path: Path):
    run = session(tmp_path, small(), prepared())
    next(run.trainer.network.parameters()).data.fill_(math.nan)
    with pytest.raises(Diverged, match=r"before the first step is nan: its weights are broken"):
        run.run()


def test_g07_a_skipped_spike_does_not_come_back_out_of_what_was_not_sent():
    """Error feedback keeps what compression did not send, and a refused gradient may not be among it."""
    compression = Compressor(density=0.01, quantise=Int8(block=64))
    spike = SpikeGuard("skip", sigma=100.0, steps=8)
    wanted = small(spike=spike, compression=compression, runner=Simulated(workers=2))

    def work(worker: Processes) -> TrainState:
        trainer = Trainer(wanted, prepared(), worker)
        poison(trainer.step, {10: 1e4})
        list(trainer.steps())
        return trainer.state

    state = simulate(2, alone(), work)
    assert (state.step, state.skipped) == (STEPS, 1)
