"""precision=auto: the fastest of those that suit, chosen once, said, recorded and kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command import SMALL, write_documents
from in_process import lmctl, succeed
from omegaconf import OmegaConf
from small import plan, prepared

from lmctl.core.errors import ConfigError
from lmctl.model.recurrent import RecurrentLM
from lmctl.objective.clm import CausalLM
from lmctl.objective.mlm import MaskedLM
from lmctl.plan import Plan
from lmctl.precision import int8_product
from lmctl.precision.auto import Auto
from lmctl.precision.bf16 import Bf16
from lmctl.precision.fp32 import Fp32
from lmctl.precision.int8 import Int8
from lmctl.train import fastest_precision

CPU = torch.device("cpu")


@pytest.fixture
def every_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that multiplies bf16 and int8, but not fp16."""
    monkeypatch.setattr(int8_product, "NATIVE", True)
    monkeypatch.setattr("lmctl.precision.autocast.native", lambda dtype: dtype == torch.bfloat16)


def test_candidates_are_what_the_device_has_units_for(every_unit, monkeypatch):
    run = plan(objective=MaskedLM(), precision=Auto())
    assert list(Auto().candidates(run, CPU)) == ["fp32", "bf16", "int8"]
    assert list(Auto(["int8", "fp32"]).candidates(run, CPU)) == ["fp32", "int8"]
    recurrent = plan(model=RecurrentLM(1, 32), objective=CausalLM(), precision=Auto())
    assert list(Auto().candidates(recurrent, CPU)) == ["fp32", "bf16"]
    monkeypatch.setattr(int8_product, "NATIVE", False)
    assert list(Auto().candidates(run, CPU)) == ["fp32", "bf16"]
    assert "fp32, bf16" in Auto().remarks(run, CPU)[0]
    with pytest.raises(ConfigError, match=r"precision\.among: none of int8 is made for this device"):
        Auto(["int8"]).candidates(run, CPU)


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [((100, 60, 50), Int8()), ((100, 60, 58), Bf16()), ((100, 98, 97), Fp32()), ((100, 120, 90), Int8())],
    ids=["the fastest", "a less exact one must be faster by more", "low precision does not pay", "skips one"],
)
def test_it_takes_the_fastest(every_unit, monkeypatch, alone, milliseconds, chosen):
    times, said = iter([0.1, *(ms / 1000 for ms in milliseconds)]), []
    monkeypatch.setattr(fastest_precision, "_seconds", lambda *_: next(times))
    run: Plan = plan(objective=MaskedLM(), precision=Auto())
    assert fastest_precision.settled(run, prepared(), alone, said.append).precision == chosen
    assert said[0].endswith(f"fp32 {milliseconds[0]}, bf16 {milliseconds[1]}, int8 {milliseconds[2]})")


def test_really_measured_and_nothing_changes_but_the_precision(every_unit, alone):
    run = plan(objective=MaskedLM(), precision=Auto(["fp32", "int8"]))
    found = fastest_precision.settled(run, prepared(), alone, lambda line: None)
    assert found.precision in (Fp32(), Int8())
    other = plan(objective=MaskedLM(), precision=Bf16())
    assert fastest_precision.settled(other, prepared(), alone, pytest.fail).precision == Bf16()


def test_the_choice_is_recorded_and_kept(tmp_path, monkeypatch):
    """A run that goes on with the same words finds what it chose, however fast anything is by now."""
    text = write_documents(tmp_path / "docs.txt")
    words = ["train", *SMALL, f"data.path={text}", "name=mine", "mix=mlm", "precision=auto", "resume=auto"]
    monkeypatch.setattr(fastest_precision, "_fastest", lambda *_: ("bf16", "auto: bf16"))
    first = succeed(*words, "budget.steps=2", cwd=tmp_path)
    assert "precision: auto: bf16" in first.stdout + first.stderr
    recorded = OmegaConf.load(tmp_path / "runs/mine/config.yaml")
    assert recorded.precision == {"_target_": "lmctl.precision.bf16.Bf16"}
    monkeypatch.setattr(fastest_precision, "_fastest", lambda *_: pytest.fail("measured again"))
    succeed(*words, "budget.steps=3", cwd=tmp_path)
    refused = lmctl(*words, "budget.steps=4", "precision=fp32", cwd=tmp_path)
    assert refused.returncode == 2
    assert "precision" in refused.stderr


def test_it_is_refused_where_nothing_trains(tmp_path: Path):
    done = lmctl("eval", "model_path=nowhere", "precision=auto", cwd=tmp_path)
    assert done.returncode == 2
    assert "precision=auto chooses when a training run begins" in done.stderr


def test_it_is_refused_for_a_teacher(tmp_path: Path):
    words = ["teacher=somewhere", "distill=logits", "distill.teacher_precision=auto"]
    done = lmctl("distill", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "distill.teacher_precision=auto: auto measures what learns" in done.stderr


def test_wrong_names_are_named():
    with pytest.raises(ValueError, match="among has int4; it can have fp32, tf32, bf16, fp16, int8"):
        Auto(["int4"])
