"""Rare synchronisation: known values, real and simulated workers, resuming, what is validated, and what is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import SMALL, metrics, succeed, summary, write_documents
from compared import relative
from exchanges import Learner
from in_process import run_here
from interrupted import ends_as_undisturbed
from planned import rehearsed
from safetensors.torch import load_file
from sessions import node
from small import plan, poison, prepared
from small_tasks import two_tasks
from torch import Tensor
from two_processes import DILOCO, diloco, weights

from lmctl.average.ema import ExponentialAverage
from lmctl.compression.compressor import Compressor
from lmctl.compression.none import Uncompressed
from lmctl.compression.quantise import Int8
from lmctl.config.schema import Budget
from lmctl.core.errors import ConfigError, Diverged
from lmctl.cost.memory_tracker import FEEDBACK, STATES
from lmctl.model.bert import Bert
from lmctl.optim.sgd import Sgd
from lmctl.parallel.diloco import DiLoCo as Strategy
from lmctl.parallel.processes import Processes
from lmctl.parallel.simulate import ThreadProcesses, in_turns
from lmctl.plan import Plan
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.fp16 import Fp16
from lmctl.precision.int8_weights import Int8Weights
from lmctl.runner.diloco import DiLoCo
from lmctl.runner.places import Ddp
from lmctl.runner.simulated import Simulated
from lmctl.schedule.shapes import Constant
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_reader import read
from lmctl.train.run_identity import changed_keys
from lmctl.train.trainer import Trainer

TOPK = Compressor(density=0.05, quantise=Int8(64))


@pytest.fixture(scope="module")
def alone() -> Iterator[Processes]:
    """This process with one thread, as each of several has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Processes(on_cpu=True)
    torch.set_num_threads(threads)


def played(workers: int, alone: Processes, work: Any) -> list[Any]:
    """What `work(processes)` returns in each of so many simulated workers."""
    return in_turns(workers, lambda rank, baton: work(ThreadProcesses(alone, rank, baton)))


def outer_steps(worker: Processes, moved: Tensor, lr: float, momentum: float) -> list[Tensor]:
    """One parameter's common values after each outer step, to which this worker came by `moved` [steps, ...]."""
    learner, found = Learner(), []
    strategy = Strategy(worker, Uncompressed(), 1, lr, momentum)
    strategy.prepare(learner)
    for way in moved:
        with torch.no_grad():
            learner.first += way
        strategy.after_step(taken=True, last=False)
        found.append(learner.first.detach().clone())
    return found


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_outer_step_is_nesterovs(alone, momentum):
    """Against the formula of the paper: three steps of three workers."""
    moved = torch.randn(3, 3, *Learner().first.shape, generator=torch.Generator().manual_seed(0))
    seen = played(3, alone, lambda worker: outer_steps(worker, moved[worker.rank], 0.7, momentum))
    x, u = torch.zeros_like(moved[0, 0]), torch.zeros_like(moved[0, 0])
    for step, values in enumerate(zip(*seen, strict=True)):
        d = -moved[:, step].mean(dim=0)
        u = momentum * u + d
        x = x - 0.7 * (d + momentum * u)
        assert all(torch.equal(value, values[0]) for value in values)
        assert torch.allclose(values[0], x, atol=1e-6)


PLAIN: dict[str, Any] = {"optim": Sgd(lr=0.1), "clip_norm": None, "schedule": Constant()}


def final_weights(worker: Processes, **changes: Any) -> Tensor:
    trainer = Trainer(plan(**changes), prepared(), worker)
    list(trainer.steps())
    return weights(trainer.network)


def test_every_step_with_outer_lr_1_and_no_momentum_is_gradient_averaging(alone):
    """Where the inner optimiser is plain SGD; Nesterov momentum is another rule."""
    averaged, apart, other = (
        played(3, alone, lambda worker, runner=runner: final_weights(worker, runner=runner, size=12, **PLAIN))
        for runner in (Simulated(3), *(DiLoCo(every=1, outer_lr=1.0, outer_momentum=m, workers=3) for m in (0.0, 0.9)))
    )
    for mine, theirs in zip(apart, averaged, strict=True):
        assert relative(mine, theirs) < 1e-6
    assert relative(other[0], averaged[0]) > 1e-3


@pytest.mark.parametrize("option", DILOCO)
def test_simulated_workers_are_what_processes_are(both, alone, option):
    """To the bit, in each step of each worker, dropout included."""
    simulated = played(2, alone, lambda worker: diloco(worker, **DILOCO[option], simulated=True))
    for mine, real in zip(simulated, both, strict=True):
        assert torch.equal(mine["weights"], real["diloco"][option]["weights"])
        assert mine["bytes"] == real["diloco"][option]["bytes"]
        assert mine["figures"] == real["diloco"][option]["figures"]
    same = [torch.equal(one, other) for one, other in zip(*(mine["weights"] for mine in simulated), strict=True)]
    assert same == [False, False, True, False, False, True, True]


LIVELY = Bert(2, 32, 2, 64, max_positions=64)
APART: dict[str, Any] = {"model": LIVELY, "budget": Budget(steps=7), "compression": TOPK}
EVERY3 = DiLoCo(every=3, workers=2)


def seen(trainer: Trainer) -> tuple[Tensor, Any]:
    """A worker's own weights, all of them, and what it counted."""
    state = trainer.state
    return weights(trainer.learner), (state.bytes_sent, state.bytes_dense, trainer.strategy.figures())


RUNS: dict[str, Callable[[], tuple[Plan, Any]]] = {
    "one task": lambda: (plan(runner=EVERY3, **APART), prepared()),
    "weights besides the network's": lambda: two_tasks(runner=EVERY3, budget=Budget(steps=7)),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_goes_on_to_the_same_bits_from_any_step(alone, tmp_path, run):
    own, text = RUNS[run]()

    def whole(worker: Processes) -> tuple[Tensor, Any]:
        trainer = Trainer(own, text, worker)
        checkpoints = Checkpoints(tmp_path, 9, worker.rank, lambda bad: any(worker.sum([bad])))
        for report in trainer.steps():
            parts = trainer.step.average.tensors(), trainer.state_dict(), trainer.own_state()
            checkpoints.save(report.step, *parts)
        return seen(trainer)

    def resumed(worker: Processes, step: int) -> tuple[Tensor, Any]:
        trainer, saved = Trainer(own, text, worker), read(tmp_path / f"step-{step:08d}")
        for _ in itertools.islice(trainer.steps(), 4):  # as before a rollback: nothing of it may be left
            pass
        trainer.load(saved.weights, saved.state, saved.of_rank(worker.rank))
        assert len(list(trainer.steps())) == 7 - step
        return seen(trainer)

    undisturbed = played(2, alone, whole)
    for step in (1, 3, 5):
        for one, again in zip(undisturbed, played(2, alone, lambda worker, s=step: resumed(worker, s)), strict=True):
            assert torch.equal(one[0], again[0])
            assert one[1] == again[1]


def test_what_is_validated_and_saved_is_what_all_workers_have(alone):
    """Between outer steps the weights of the newest one; after the last step those of one that comes early."""

    def work(worker: Processes) -> list[tuple[Tensor, Tensor, Tensor]]:
        trainer, found = Trainer(plan(runner=EVERY3, **APART), prepared(), worker), []
        for _ in trainer.steps():
            own, saved = weights(trainer.network), trainer.step.average.tensors()
            with trainer.step.average.in_use():
                used = weights(trainer.network)
            assert torch.equal(weights(trainer.network), own)
            found.append((own, used, torch.cat([saved[name].flatten() for name, _ in named(trainer)])))
        trainer.step.average.settle()
        assert torch.equal(weights(trainer.network), found[-1][1])
        return found

    def named(trainer: Trainer) -> list[tuple[str, Tensor]]:
        return [(f"model.{name}", p) for name, p in trainer.network.model.named_parameters()]

    one, other = played(2, alone, work)
    assert all(torch.equal(mine[1], theirs[1]) for mine, theirs in zip(one, other, strict=True))
    assert all(torch.equal(used, saved) for _, used, saved in one)
    changes = [not torch.equal(now[1], before[1]) for before, now in itertools.pairwise(one)]
    assert changes == [False, True, False, False, True, True]
    assert [torch.equal(own, used) for own, used, _ in one] == [False, False, True, False, False, True, True]


def test_an_overflow_in_one_worker_is_skipped_by_all(alone):
    own = plan(runner=EVERY3, **APART | {"precision": Fp16(initial_scale=64.0)})

    def work(worker: Processes) -> tuple[list[bool], list[float], list[Tensor]]:
        trainer = Trainer(own, prepared(), worker)
        if worker.rank == 1:
            poison(trainer, math.inf, 3)
        found = [(r.taken, trainer.step.scaler.value, weights(trainer.network)) for r in trainer.steps()]
        return tuple(map(list, zip(*found, strict=True)))  # type: ignore[return-value]

    one, other = played(2, alone, work)
    assert one[0] == other[0] == [True, True, False, True, True, True, True, True]
    assert one[1] == other[1] == [64.0, 64.0, *[32.0] * 6]
    for _, _, steps in (one, other):
        assert torch.equal(steps[1], steps[2])
        assert all(torch.isfinite(step).all() for step in steps)
    equal = [torch.equal(mine, theirs) for mine, theirs in zip(one[2], other[2], strict=True)]
    assert equal == [False, False, False, True, False, False, True, True]  # a skipped step is none of the three


@pytest.mark.parametrize("action", ["stop", "skip"])
def test_a_gradient_that_is_not_finite_is_known_to_all(alone, action):
    own = plan(runner=EVERY3, on_nonfinite=action, **APART)

    def work(worker: Processes) -> list[bool]:
        trainer = Trainer(own, prepared(), worker)
        if worker.rank == 1:
            parameter = next(p for n, p in trainer.network.named_parameters() if "output.dense.weight" in n)
            parameter.register_hook(lambda gradient: gradient * math.nan if trainer.state.window == 4 else gradient)
        if action == "skip":
            return [report.taken for report in trainer.steps()]
        with pytest.raises(Diverged, match=r"at step 5: .*output\.dense\.weight is not finite"):
            list(trainer.steps())
        return []

    one, other = played(2, alone, work)
    assert one == other == ([True] * 4 + [False] + [True] * 3 if action == "skip" else [])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "workers said twice": ({"compression": Compressor(simulate_workers=4)}, "simulate_workers=null runner.workers=4"),
    "bf16 weights": ({"precision": Bf16Pure()}, "precision=bf16 "),
    "int8 weights": ({"precision": Int8Weights()}, "precision=bf16 "),
    "an average": ({"average": ExponentialAverage()}, "average=none"),
    "gradients compared": ({"mix": replace(two_tasks()[0].mix, conflict_every=1)}, "mix.conflict_every=null"),
    "clipping of what is sent": ({"compression": replace(TOPK, local_clip=True)}, "compression.local_clip=false"),
    "two momenta": ({"compression": replace(TOPK, momentum=0.5)}, "compression.momentum=0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_go_together_is_refused_with_the_nearest_that_does(what):
    changes, nearest = REFUSED[what]
    with pytest.raises(ConfigError) as caught:
        plan(runner=EVERY3, **changes)
    assert "runner=diloco" in str(caught.value)
    assert f"nearest: {nearest}" in f"{caught.value} {caught.value.hint}" or nearest in str(caught.value.hint)


def test_a_single_worker_is_refused():
    for runner, world in ((DiLoCo(processes=1, device="cpu"), 1), (DiLoCo(device="cpu"), 1)):
        with pytest.raises(ConfigError, match="a single worker has no others"):
            plan(runner=runner).workers(world)
    with pytest.raises(ConfigError, match="2 simulated workers are threads of one process, and this run has 4"):
        plan(runner=EVERY3).workers(4)
    for settings in ({"every": 0}, {"workers": 0}, {"outer_lr": 0.0}, {"outer_momentum": 1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))} must"):
            DiLoCo(**settings)
    with pytest.raises(ValueError, match="either workers or processes"):
        DiLoCo(processes=2, workers=2)
    assert (DiLoCo(workers=3).world(), DiLoCo(workers=3).simulated, DiLoCo(3, device="cpu").world()) == (1, 3, 3)


@pytest.mark.parametrize("option", DILOCO)
def test_a_plan_says_the_bytes_and_the_memory(both, option):
    """Bytes of a step are a third of those of three, of which one is an outer step: two of these in seven steps, and
    the last. What the outer optimiser keeps is twice the weights."""
    runs = {"model": LIVELY, **DILOCO[option]}
    apart = rehearsed(runner=DiLoCo(2, device="cpu", every=3), **runs)
    averaged = rehearsed(runner=Simulated(2), **runs)
    sent, dense = both[0]["diloco"][option]["bytes"]
    flags = 8
    assert sent - 7 * flags == pytest.approx(9 * (apart.sent - flags), abs=9)
    assert 7 * apart.dense == dense
    assert apart.most[STATES] == pytest.approx(averaged.most[STATES] * 2, rel=0.01)
    assert apart.most.get(FEEDBACK, 0) == averaged.most.get(FEEDBACK, 0)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_documents(folder / "docs.txt")
    return folder


def test_a_run_says_what_it_sends_and_exports_what_all_have(home):
    """As typed: the record counts, the exported weights are those of the last checkpoint, and a run that goes on keeps
    what it is."""
    apart = ["runner=diloco", "runner.workers=2", "runner.every=4", "compression=topk_int8", "budget.steps=10"]
    said = run_here("train", *SMALL, "data.path=docs.txt", *apart, "name=apart", "eval.every=3", cwd=home)
    assert "compression: differences of the weights, every 4 steps" in said
    assert "1 process that plays 2 workers" in said
    assert "so little of the gradient" not in said
    run = home / "runs" / "apart"
    end, last = summary(run), metrics(run)[-2]
    assert end["bytes_dense"] > 4 * 10 * end["bytes_sent"]
    assert end["compression_ratio"] == pytest.approx(end["bytes_dense"] / end["bytes_sent"], abs=0.01)
    assert last.keys() >= {"outer_norm", "residual_norm", "compression_ratio", "bytes_dense"}
    assert [line["step"] for line in metrics(run) if line["split"] == "valid"] == [0, 4, 8, 10]
    saved, exported = (load_file(run / path) for path in ("checkpoints/step-00000010/model.safetensors", MODEL))
    shared = {name.removeprefix("model."): tensor for name, tensor in saved.items()}
    common = [name for name in exported if name in shared]
    assert len(common) > 10
    assert all(torch.equal(exported[name], shared[name]) for name in common)
    again = ["train", "resume=auto", f"run_dir={run}", "budget.steps=12", "runner=simulated", "runner.workers=2"]
    said = run_here(*again, "compression=none", "resume.allow=[runner,compression]", cwd=home)
    assert "what the workers had not sent yet is dropped" in said
    assert summary(run)["steps"] == 12


@pytest.mark.parametrize(
    ("now", "change"),
    [
        (DiLoCo(every=5), "runner.every was 4 in this run and is 5 now"),
        (DiLoCo(every=4, outer_lr=1.0), "runner.outer_lr was 0.7 in this run and is 1.0 now"),
        (Ddp(2), "runner._target_ was lmctl.runner.diloco.DiLoCo in this run and is lmctl.runner.places.Ddp now"),
        (DiLoCo(every=4, workers=3, device="cpu"), None),
    ],
)
def test_what_a_run_learns_with_may_not_change_and_where_it_runs_may(now, change):
    """In a group whose options may otherwise change."""
    found = changed_keys({"runner": node(DiLoCo(every=4))}, {"runner": node(now)})
    assert [one.what for one in found][:1] == ([change] if change else [])
    assert all("runner" in one.names for one in found)
    assert changed_keys({"runner": node(Ddp(2))}, {"runner": node(Simulated(3))}) == []


MODEL = "model/model.safetensors"
PAIR = ["runner=diloco", "runner.processes=2", "runner.device=cpu", "runner.every=7"]


@pytest.mark.slow
@pytest.mark.parametrize("more", [["compression=topk_int8"], ["precision=fp16"]], ids=lambda words: words[0])
def test_killed_and_resumed_is_bit_exact(home, tmp_path, more):
    ends_as_undisturbed(tmp_path, home / "docs.txt", [*PAIR, *more])


@pytest.mark.slow
def test_three_processes_end_with_the_bits_of_three_simulated_workers(home, tmp_path):
    """Sums over more than two are made in one order, whoever makes them. Two processes go on with what three had."""
    words = ["train", *SMALL, f"data.path={home / 'docs.txt'}", "batch.size=12", "budget.steps=8", "runner=diloco"]
    words += ["runner.device=cpu", "runner.every=3", "compression=topk_int8", "model.dropout=0.1"]
    succeed(*words, "name=real", "runner.processes=3", cwd=tmp_path)
    succeed(*words, "name=played", "runner.workers=3", cwd=tmp_path)
    real, played = ((tmp_path / "runs" / name / MODEL).read_bytes() for name in ("real", "played"))
    assert real == played
    again = succeed("train", "resume=auto", "run_dir=runs/real", "budget.steps=12", "runner.processes=2", cwd=tmp_path)
    assert "2 processes now, 3 before" in again.stderr
    assert "what the workers had not sent yet is dropped" in again.stderr
