"""`lmctl doctor`: its proofs pass here, and none of them passes where what it proves is broken."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canary import TOKEN
from in_process import lmctl

from lmctl.cli.main import main
from lmctl.compression.dense import Dense
from lmctl.doctor import environment, networks
from lmctl.doctor.proof import Proof, outcomes
from lmctl.doctor.proofs import PROOFS
from lmctl.doctor.small_runs import SmallRuns
from lmctl.kernels import kernel
from lmctl.objective import clm
from lmctl.parallel.simulate import ThreadWire
from lmctl.precision.half import HalfPrecision
from lmctl.train import trainer
from lmctl.train.learner import Learner


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> SmallRuns:
    return SmallRuns(tmp_path_factory.mktemp("doctor"), on_cpu=True)


def test_the_quick_proofs_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Not in a cache of its own: compiling the kernels takes longer than all proofs."""
    assert main(["doctor", "quick=true", "runner=cpu", "format=json", f"out={tmp_path / 'report.json'}"]) == 0
    report, *proofs = map(json.loads, capsys.readouterr().out.splitlines())
    assert report["kind"] == "environment"
    assert {proof["name"]: proof["status"] for proof in proofs} == {p.name: "passed" for p in PROOFS if p.quick}
    written = json.loads((tmp_path / "report.json").read_text())
    without_kind = [{key: value for key, value in one.items() if key != "kind"} for one in (report, *proofs)]
    assert written == without_kind[0] | {"proofs": without_kind[1:]}


def break_resume(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(trainer, "restore_random_state", lambda state: None)


def break_accumulation(patch: pytest.MonkeyPatch) -> None:
    honest = Learner.forward

    def by_halves(learner: Learner, passes: Any, share: Any, *rest: Any) -> Any:
        """Divided by the counts of the micro-batch, as in the bug that many trainers had."""
        counts = {f"{one.batch.task}/{term}": n for one in passes for term, n in one.batch.counts().items()}
        return honest(learner, passes, replace(share, counts=dict(share.counts) | counts), *rest)

    patch.setattr(Learner, "forward", by_halves)


def break_workers(patch: pytest.MonkeyPatch) -> None:
    honest = ThreadWire._all_reduce
    patch.setattr(ThreadWire, "_all_reduce", lambda wire, vector: honest(wire, vector) * 1.01)


def break_compression(patch: pytest.MonkeyPatch) -> None:
    honest = Dense.mean
    patch.setattr(Dense, "mean", lambda dense, *given: honest(dense, *given).round(decimals=3))


def break_packing(patch: pytest.MonkeyPatch) -> None:
    """No mask, and positions that go on, from which transformers would make one."""
    honest = clm.separate
    patch.setattr("lmctl.model.network.document_inputs", lambda documents, model: {})
    patch.setattr(
        clm,
        "separate",
        lambda begins, real: (honest(begins, real)[0], np.tile(np.arange(real.shape[1]), (len(real), 1))),
    )


def break_kernels(patch: pytest.MonkeyPatch) -> None:
    name = next(iter(kernel.KERNELS))
    patch.setattr(kernel.KERNELS[name], "fault", "computes something else")


def break_export(patch: pytest.MonkeyPatch) -> None:
    honest = networks.models_of

    def worse(*given: Any) -> Any:
        models = {place: deepcopy(model) for place, model in honest(*given).items()}
        next(models[""].parameters()).data += 0.1
        return models

    patch.setattr(networks, "models_of", worse)


BROKEN = {
    "resume": break_resume,
    "accumulation": break_accumulation,
    "workers": break_workers,
    "compression": break_compression,
    "packing": break_packing,
    "kernels": break_kernels,
    "export": break_export,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_proof_fails_where_its_promise_is_broken(name: str, runs: SmallRuns, monkeypatch: pytest.MonkeyPatch):
    _ = runs.texts  # with everything else in order
    (proof,) = [proof for proof in PROOFS if proof.name == name]
    BROKEN[name](monkeypatch)
    (outcome,) = outcomes([proof], runs)
    assert outcome.status == "failed"
    assert not outcome.found.startswith(("TypeError", "AttributeError"))


def test_a_proof_that_breaks_down_is_a_failure_and_a_command_that_finds_one_ends_with_1(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken(_: SmallRuns) -> str:
        raise RuntimeError("no such unit\nat all")

    proof = Proof("broken", "it works", broken)
    (outcome,) = outcomes([proof], runs)
    assert (outcome.status, outcome.found) == ("failed", "RuntimeError: no such unit")
    monkeypatch.setattr("lmctl.doctor.proofs.PROOFS", (proof,))
    assert main(["doctor", "runner=cpu"]) == 1
    printed = capsys.readouterr()
    assert "failed  broken       it works" in printed.out
    assert "error: 1 of 1 proofs failed: broken" in printed.err


def test_what_cannot_be_tried_is_skipped(runs: SmallRuns):
    (outcome,) = outcomes([proof for proof in PROOFS if proof.name == "tf32"], runs)
    assert (outcome.status, "compute capability 8.0" in outcome.found) == ("skipped", True)


def test_the_report_has_no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LMCTL_CACHE", f"{tmp_path}/cache")
    for name in ("HF_TOKEN", "HF_HOME", "MY_PASSWORD"):
        monkeypatch.setenv(name, TOKEN)
    assert main(["doctor", "proofs=false", "runner=cpu"]) == 0
    said = capsys.readouterr().out
    assert TOKEN[8:] not in said
    assert str(tmp_path) not in said
    assert "variable: LMCTL_CACHE=~/cache" in said


def test_the_report_says_what_is_missing_and_what_pays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "is_installed", lambda library: library != "peft")
    monkeypatch.setattr(
        HalfPrecision, "no_gain", lambda option, device: "no units" if "Fp16" in type(option).__name__ else None
    )
    found = environment.report(on_cpu=True)
    assert found["missing"] == {"peft": {"for": environment.USES["peft"], "install": "pip install 'lmctl[lora]'"}}
    assert found["precisions"]["tf32"]["runs"] is False
    assert found["precisions"]["fp16"] == {"runs": True, "pays": False, "words": "runs, and saves no time: no units"}
    assert found["precisions"]["bf16"] == {"runs": True, "pays": True, "words": "yes"}
    assert "missing: peft, for model.lora_rank" in "\n".join(environment.lines(found))


@pytest.mark.parametrize(
    ("flags", "units"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni avx_vnni amx_bf16\n", ["avx2", "avx512", "vnni (int8)", "amx bf16"]),
        ("Features\t: fp asimd asimddp bf16\n", ["dot products (int8)", "bf16"]),
        ("model name\t: unknown\n", []),
    ],
)
def test_units_of_a_cpu(flags: str, units: list[str], tmp_path: Path):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}")
    assert environment.units(tmp_path / "cpuinfo") == units
    assert environment.units(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("only=[resme]", "error: only: there is no proof 'resme'; did you mean resume?"),
        ("out=nowhere/report.json", "error: out=nowhere/report.json: there is no directory nowhere"),
    ],
)
def test_a_mistake_is_told_before_any_work(word: str, said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", word]) == 2
    printed = capsys.readouterr()
    assert (printed.out, said in printed.err) == ("", True)


@pytest.mark.slow
def test_all_proofs_pass(tmp_path: Path):
    done = lmctl("doctor", "runner=cpu", "format=json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    statuses = {one["name"]: one["status"] for one in map(json.loads, done.stdout.splitlines()[1:])}
    assert {name for name, status in statuses.items() if status != "passed"} <= {"tf32"}
    assert set(statuses) == {proof.name for proof in PROOFS}
