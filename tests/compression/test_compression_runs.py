"""Compression in runs: two real processes over gloo, and workers simulated in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import SMALL, lmctl, metrics, succeed, summary, write_documents
from compared import relative
from in_process import run_here
from interrupted import arguments, ends_as_undisturbed
from planned import rehearsed, storage_of
from small import plan, prepared
from two_processes import OPTIONS, conflicts, stream, stream_plan, trained, weights

from lmctl.compression.compressor import Compressor
from lmctl.core.errors import ConfigError, Diverged
from lmctl.core.paths import Paths
from lmctl.cost.memory_tracker import FEEDBACK
from lmctl.parallel.processes import Processes
from lmctl.parallel.simulate import as_workers
from lmctl.runner.places import Ddp
from lmctl.runner.simulated import Simulated
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_reader import read
from lmctl.train.resume_checkpoint import resume
from lmctl.train.run_identity import Identity
from lmctl.train.trainer import Trainer
from lmctl.train.weight_memory import tensors_in


@pytest.fixture(scope="module")
def alone() -> Iterator[Processes]:
    """This process with one thread, as each of the two has: more would add up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Processes(on_cpu=True)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("option", OPTIONS)
def test_replicas_stay_equal_to_the_bit(both, option):
    assert torch.equal(both[0][option]["weights"], both[1][option]["weights"])
    assert both[0][option]["norms"] == both[1][option]["norms"]


@pytest.mark.parametrize(("asked", "option"), [*(("runner", name) for name in OPTIONS), ("compression", "topk_int8")])
def test_simulated_workers_are_what_processes_are(both, alone, asked, option):
    """Two workers in one process end with the bits of two processes, and count the same bytes, whoever asks for
    them."""
    changes: dict[str, Any] = {"runner": Simulated(2)}
    if asked == "compression":
        changes = {"compression": replace(OPTIONS[option]["compression"], simulate_workers=2)}
    simulated = trained(alone, **OPTIONS[option] | changes)
    assert torch.equal(simulated["weights"], both[0][option]["weights"])
    assert simulated["bytes"] == both[0][option]["bytes"]
    one, other = simulated["figures"], dict(both[0][option]["figures"])
    assert one.pop("gradient_cosine", 0.0) == pytest.approx(other.pop("gradient_cosine", 0.0), rel=1e-5)
    assert one == other


def test_everything_sent_exactly_is_no_compression(both, alone):
    assert relative(both[0]["everything"]["weights"], both[0]["none"]["weights"]) < 1e-6
    none = trained(alone)
    assert relative(both[0]["none"]["weights"], none["weights"]) < 1e-6
    assert none["bytes"] == (0, 0)
    for workers in (1, 4):
        for feedback in (True, False):
            compression = Compressor(error_feedback=feedback, simulate_workers=workers)
            simulated = trained(alone, compression=compression)
            assert relative(simulated["weights"], none["weights"]) < 1e-6
        if workers == 1:
            assert torch.equal(simulated["weights"], none["weights"])


def test_tracks_stay_together_in_two_processes(both, alone, tmp_path):
    """A network that carries states: training and every validation are those of one process."""
    one = stream(alone, tmp_path)
    assert len(one["scores"]) == 5
    rows = len(Trainer(stream_plan(), prepared(), alone).validation.examples["corpus"])
    assert rows > 3 * 4  # validation goes on from where it was, several times
    for process in both:
        for mine, theirs in zip(one["scores"], process["stream"]["scores"], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5)
        assert relative(process["stream"]["weights"], one["weights"]) < 1e-5
    tracks = [{name.split("/")[0] for name in process["stream"]["carried"]} for process in both]
    assert tracks == [{"0", "1"}, {"2", "3"}]


def test_going_on_in_another_number_of_processes_keeps_every_track(both, alone, tmp_path):
    """What two processes carried, one goes on with: the same rows, and no dropout in between."""
    one = stream(alone, tmp_path)
    saved = read(both[0]["folder"] / "stream" / "step-00000002")
    trainer = Trainer(stream_plan(), prepared(), alone)
    trainer.load(saved.weights, saved.state, None, saved.carried())
    assert len(trainer.network.carried()) == len(one["carried"])
    assert len(list(trainer.steps())) == 3
    assert relative(weights(trainer.network), one["weights"]) < 1e-5
    blank = Trainer(stream_plan(), prepared(), alone)
    blank.load(saved.weights, saved.state, None)  # tracks of which nothing is known begin anew
    assert len(list(blank.steps())) == 3
    assert relative(weights(blank.network), one["weights"]) > 1e-5


@pytest.mark.parametrize("before", [1, 2])
def test_what_workers_keep_is_dropped_in_another_number_of_processes_only(alone, tmp_path, before):
    """A checkpoint that one process wrote, said to be of `before`: residuals, momentum and generators of its own."""
    own = plan(compression=Compressor(density=0.1, simulate_workers=1), run_dir=str(tmp_path), resume="auto")
    first, paths, prints = Trainer(own, prepared(), alone), Paths(tmp_path), {"text": "same"}
    for _, _ in zip(range(2), first.steps(), strict=False):
        pass
    contents = first.state_dict() | {"identity": Identity({}, prints, before).state_dict()}
    torch.rand(7)
    kept_by_it = first.own_state()
    Checkpoints(paths.checkpoints, 2).save(2, first.network.state_dict(), contents, kept_by_it)
    heard, trainer = list[str](), Trainer(own, prepared(), alone)
    assert not resume(own, paths, trainer, Identity({}, prints, 1), heard.append)
    kept = [t for t in tensors_in(trainer.strategy.state_dict()) if t.numel() > 1]
    assert any(t.any() for t in kept) == (before == 1)
    assert torch.equal(torch.get_rng_state(), kept_by_it["random"]["torch"]) == (before == 1)
    assert any("what the workers had not sent yet is dropped" in line for line in heard) == (before == 2)
    assert trainer.state.step == 2


def test_conflict_in_two_processes_is_that_of_the_whole_step(both, alone):
    one = conflicts(alone)
    assert len(one) == 5
    assert all(0 < abs(cosines["corpus|topics"]) < 1 for cosines in one)
    for process in both:
        for mine, theirs in zip(one, process["conflicts"], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-4)


def test_bytes_sent_and_dense(both):
    found = both[0]
    assert found["none"]["bytes"][0] == found["none"]["bytes"][1] == 5 * found["none"]["dense"]
    parameters = 4 * len(found["none"]["weights"])
    assert all(found[option]["dense"] == parameters for option in OPTIONS)
    assert all(found[option]["bytes"][1] == 5 * parameters for option in OPTIONS)
    for option, least in {"fp16": 1.8, "bf16": 1.8, "int8": 3, "onebit": 8, "topk_int8": 8, "powersgd": 3}.items():
        assert found[option]["figures"]["compression_ratio"] > least
        assert found[option]["bytes"][0] == 5 * found[option]["sent"]
    assert found["momentum"]["bytes"][0] > 5 * found["momentum"]["sent"]  # denser while warming up


@pytest.mark.parametrize("option", ["none", "topk_int8", "powersgd"])
def test_a_plan_says_the_bytes_that_processes_send_and_keep(both, option):
    seen = rehearsed(**OPTIONS[option], runner=Ddp(2, device="cpu"))
    for found in both:
        assert (seen.sent, seen.dense) == (found[option]["sent"], found[option]["dense"])
        assert seen.most.get(FEEDBACK, 0) == pytest.approx(storage_of(found[option]["state"]), abs=64)


def test_accumulation_gives_the_same_step(both):
    assert relative(both[0]["accumulated"]["weights"], both[0]["topk_int8"]["weights"]) < 1e-4
    assert both[0]["accumulated"]["bytes"] == both[0]["topk_int8"]["bytes"]


def test_fp16_overflow_in_one_process_skips_in_both(both):
    for found in both:
        found = found["overflow"]
        assert found["taken"] == [True, True, False, True, True, True]
        assert found["skipped"] == 1
        assert torch.equal(found["residuals"][1], found["residuals"][2])
        assert torch.equal(found["weights"][1], found["weights"][2])
        assert not torch.equal(found["residuals"][2], found["residuals"][3])
        assert all(torch.isfinite(residual).all() for residual in found["residuals"])
    assert not torch.equal(both[0]["overflow"]["residuals"][2], both[1]["overflow"]["residuals"][2])
    assert torch.equal(both[0]["overflow"]["weights"][-1], both[1]["overflow"]["weights"][-1])


@pytest.mark.parametrize("option", ["topk_int8", "int8", "momentum", "powersgd"])
def test_saved_and_resumed_it_ends_with_the_same_bits(both, option):
    for found in both:
        assert torch.equal(found["resumed"][option], found[option]["weights"])
        assert not torch.equal(found["dropped"][option], found[option]["weights"])
    assert torch.equal(both[0]["dropped"][option], both[1]["dropped"][option])


def test_powersgd_is_torchs(both):
    """Against torch's own hook, where that one works: in a single bucket, from the same random start."""
    for found in both:
        for step in found["powersgd_peer"]["gradients"]:
            for theirs, ours in step:
                assert relative(ours, theirs) < 1e-4


def test_divergence_names_the_tensor(alone):
    own = plan(compression=Compressor(density=0.1, simulate_workers=2))

    def work(worker: Processes) -> None:
        trainer = Trainer(own, prepared(), worker)
        name, parameter = [(n, p) for n, p in trainer.network.named_parameters() if "output.dense.weight" in n][-1]
        parameter.register_hook(lambda gradient: gradient * float("nan"))
        with pytest.raises(Diverged, match=f"the gradient of {name} is not finite"):
            next(trainer.steps())

    as_workers(2, alone, work)


def test_rows_that_workers_cannot_share(alone):
    with pytest.raises(ConfigError, match=r"batch\.size=8 cannot be shared equally by 3 simulated workers"):
        Trainer(plan(compression=Compressor(simulate_workers=3)), prepared(), alone)
    with pytest.raises(ConfigError, match="no gradient exchange in a single process"):
        Trainer(plan(compression=Compressor()), prepared(), alone)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_documents(folder / "docs.txt")
    return folder


BY_RUNNER = ["runner=simulated", "runner.workers=2", "compression.simulate_workers=null"]
BY_COMPRESSION = ["runner=auto", "compression.simulate_workers=2"]


def test_the_report_says_that_workers_were_simulated(home):
    """As typed: one process is refused before any work, simulated workers are named and counted, and the run goes on
    whichever of the two keys asks for as many of them."""
    words = ["train", *SMALL, "data.path=docs.txt", "compression=topk_int8", "compression.probe_every=2"]
    said = run_here(*words, "name=refused", cwd=home, ends=2)
    assert "error: compression: there is no gradient exchange in a single process" in said
    assert "runner=simulated" in said
    assert "corpus" not in said
    assert not (home / "runs").exists()
    said = run_here(*words, *BY_COMPRESSION, "name=played", "budget.steps=6", cwd=home)
    assert "1 process that plays 2 workers" in said
    assert "compression: 2 workers simulated in one process" in said
    assert "compression: so little of the gradient" in said
    run = home / "runs" / "played"
    end, lines = summary(run), metrics(run)
    assert any("2 workers simulated" in line for line in end["compression"])
    assert end["compression_ratio"] == pytest.approx(end["bytes_dense"] / end["bytes_sent"], abs=0.01)
    assert end["compression_ratio"] > 10
    for line in (line for line in lines if line["split"] == "train"):
        assert line["density"] == 0.01
        assert line.keys() >= {"compression_ratio", "residual_norm", "gradient_cosine", "bytes_sent", "bytes_dense"}
        assert -1 <= line["gradient_cosine"] <= 1
    again = ["train", "resume=auto", f"run_dir={run}"]
    for steps, way in ((8, BY_RUNNER), (10, BY_COMPRESSION)):
        assert "not bit-exact" not in run_here(*again, f"budget.steps={steps}", *way, cwd=home)
        assert summary(run)["steps"] == steps
    said = run_here(*again, "budget.steps=12", *BY_RUNNER, "runner.workers=3", cwd=home, ends=2)
    assert "error: resume: compression.simulate_workers was 2 in this run and is 3 now" in said


PAIR = ["runner=ddp", "runner.processes=2", "runner.device=cpu"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["compression=topk_int8", "compression.probe_every=3", *PAIR],
        ["compression=int8", "precision=fp16", *PAIR],
        ["compression=powersgd", "compression.simulate_workers=2"],
    ],
    ids=["topk_int8", "int8 and fp16", "powersgd simulated"],
)
def test_killed_and_resumed_is_bit_exact(home, tmp_path, more):
    ends_as_undisturbed(tmp_path, home / "docs.txt", more)


@pytest.mark.slow
def test_another_number_of_processes_drops_what_was_not_sent(home, tmp_path):
    words = arguments(home / "docs.txt", "moved", "compression=topk_int8", *PAIR, "budget.steps=4")
    succeed(*words, cwd=tmp_path)
    done = succeed("train", "resume=auto", "run_dir=runs/moved", "budget.steps=8", "runner.processes=4", cwd=tmp_path)
    assert "4 processes now, 2 before" in done.stderr
    assert "what the workers had not sent yet is dropped" in done.stderr
    assert summary(tmp_path / "runs" / "moved")["steps"] == 8
    refused = lmctl("train", "resume=auto", "run_dir=runs/moved", "budget.steps=9", "runner=cpu", cwd=tmp_path)
    assert refused.returncode == 2
    assert "no gradient exchange in a single process" in refused.stderr
