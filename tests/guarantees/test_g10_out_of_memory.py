"""G10: where memory runs out, micro-batches are halved; the rows of a step and its losses stay the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from resumed import goes_on_to_the_bit
from sessions import Ears, session
from small import plan, prepared, weights
from small_tasks import small_task
from walked import alone

from lmctl.core.errors import ConfigError, Exit, OutOfMemory
from lmctl.jobs.training import Training, launch_with_memory
from lmctl.model.bert import Bert
from lmctl.parallel.launch import WorkersFailed
from lmctl.plan import Plan
from lmctl.runner.base import Node
from lmctl.train.learner import Learner
from lmctl.train.micro_batches import weights_out_of_memory
from lmctl.train.trainer import Trainer

LIVELY = Bert(2, 32, 2, 64, max_positions=64)
"""With dropout."""
GPU, HOST = torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")


@pytest.fixture
def memory(monkeypatch):
    """Memory for so many rows in a pass forward, as a function to set them."""
    room: dict[str, Any] = {}
    plain = Learner.forward

    def forward(learner, passes, *rest, **more):
        rows = max(len(one.batch.inputs["input_ids"]) for one in passes) if passes else 0
        if learner.training and rows > room.get("rows", rows):
            raise room["error"]
        return plain(learner, passes, *rest, **more)

    monkeypatch.setattr(Learner, "forward", forward)

    def limit(rows: int, error: Exception = GPU) -> None:
        room.update(rows=rows, error=error)

    return limit


def trained(wanted: Plan) -> Trainer:
    trainer = Trainer(wanted, prepared(), alone())
    list(trainer.steps())
    return trainer


@pytest.mark.parametrize("error", [GPU, HOST], ids=["gpu", "host"])
def test_g10_the_global_batch_and_the_losses_stay(memory, error):
    whole = trained(plan())
    memory(3, error)
    parts = trained(plan())
    assert parts.state.micro_batches == 4 * whole.state.micro_batches
    assert parts.micro.notes == [
        f"out of memory with micro-batches of {rows} rows x 32: from here on {rows // 2}, and as many rows per step as "
        "before"
        for rows in (8, 4)
    ]
    torch.testing.assert_close(weights(parts), weights(whole), rtol=0, atol=5e-6)


@pytest.mark.parametrize("wanted", ["mlm", "clm_stream", "t5"])
def test_g10_the_step_is_repeated_as_if_it_had_begun_so(memory, wanted):
    """To the bits of batch.micro=2, dropout and states carried from row to row included."""
    own, text = small_task(wanted, dropout=0.1)
    micro = Trainer(replace(own, batch=replace(own.batch, micro=2)), text, alone())
    list(micro.steps())
    memory(2)
    halved = Trainer(own, text, alone())
    list(halved.steps())
    assert halved.micro.notes
    assert torch.equal(weights(halved), weights(micro))


def test_g10_a_resumed_run_knows_what_fitted(memory, tmp_path):
    memory(5)
    again: list[Trainer] = []
    whole, _ = goes_on_to_the_bit(lambda: Trainer(plan(model=LIVELY), prepared(), alone()), 3, tmp_path, again.append)
    assert whole.micro.notes
    assert not again[0].micro.notes
    assert again[0].micro.limit == 4


def test_g10_a_run_says_it_once_and_records_it(memory, tmp_path):
    memory(4)
    run = session(tmp_path, plan(), prepared())
    summary = run.run()
    assert isinstance(run.display, Ears)
    assert sum("out of memory" in line for line in run.display.heard) == 1
    assert summary["micro_batch_rows"] == 4


def test_g10_validation_has_smaller_batches_too(memory, tmp_path, monkeypatch):
    whole = session(tmp_path / "whole", plan(), prepared()).run()
    metrics = Learner.metrics

    def small(learner, batch):
        if len(batch.inputs["input_ids"]) > 3:
            raise GPU
        return metrics(learner, batch)

    monkeypatch.setattr(Learner, "metrics", small)
    parts = session(tmp_path / "parts", plan(), prepared()).run()
    assert parts["micro_batch_rows"] == 2
    assert parts["valid"] == pytest.approx(whole["valid"], rel=1e-4)


def test_g10_what_no_smaller_batch_helps_says_so(memory):
    memory(0)
    with pytest.raises(OutOfMemory, match="micro-batches of 1 row x 32") as rows:
        trained(plan())
    assert rows.value.code == Exit.OUT_OF_MEMORY
    assert "seq_len" in str(rows.value.hint)
    with pytest.raises(OutOfMemory, match="for the model's weights") as whole, weights_out_of_memory():
        raise HOST
    assert "batch" not in str(whole.value.hint)
    with pytest.raises(RuntimeError, match="a bug"), weights_out_of_memory():
        raise RuntimeError("a bug")
    with pytest.raises(ConfigError), weights_out_of_memory():
        raise ConfigError("a mistake")


def test_g10_workers_that_cannot_repeat_a_step_alone_start_again(tmp_path, monkeypatch):
    """DDP averages during the backward pass: the launcher starts the run again, from its last checkpoint."""
    calls: list[list[str]] = []

    def launch(world, name, words=(), *_):
        calls.append(list(words))
        if len(calls) < 3:
            raise WorkersFailed([Exit.OUT_OF_MEMORY])

    monkeypatch.setattr("lmctl.parallel.launch.launch", launch)
    wanted = plan(run_dir=str(tmp_path))
    with pytest.raises(WorkersFailed):  # before the record has begun, it is the weights that do not fit
        launch_with_memory(Training(wanted, {}, {}), 2, Node(), print)  # type: ignore[arg-type]
    (tmp_path / "config.yaml").write_text("")
    calls.clear()
    launch_with_memory(Training(wanted, {}, {}), 2, Node(), print)  # type: ignore[arg-type]
    assert calls == [[], ["batch.micro=2", "resume=auto"], ["batch.micro=1", "resume=auto"]]


def test_g10_the_step_after_a_validation_without_memory_is_that_of_a_resumed_run():
    """Its rows were drawn before, in micro-batches that are too large by now."""
    trainer = Trainer(plan(), prepared(), alone())
    accumulate, most = trainer.step.accumulate, list[int]()

    def seen(window, counts, moment):
        most.append(max(len(batch.inputs["input_ids"]) for batch in window.batches))
        return accumulate(window, counts, moment)

    trainer.step.accumulate = seen  # type: ignore[method-assign]
    for report in trainer.steps():
        if report.step == 1:
            trainer.micro.fitting = 2
    assert most[0] > 2
    assert set(most[1:]) == {2}
