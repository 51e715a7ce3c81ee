"""Sharded runs take the steps of one process, whatever is trained and however."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import distill_workers
import fsdp_workers
import pytest
import torch
from command import in_processes
from damaged import sign
from planned import rehearsed
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small import plan

from lmctl.compression.compressor import Compressor
from lmctl.compression.powersgd import PowerSgd
from lmctl.compression.quantise import Sign
from lmctl.core.errors import ConfigError
from lmctl.core.shards import rows_of
from lmctl.cost.memory_tracker import FEEDBACK
from lmctl.optim.muon import Muon
from lmctl.parallel.processes import Processes
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.fp16 import Fp16
from lmctl.precision.int8 import Int8
from lmctl.runner.fsdp import Fsdp
from lmctl.runner.places import Cpu
from lmctl.train.checkpoint_reader import Damaged, read, verify, weights_of

CLOSE = 2e-5
"""Weights after two steps of AdamW at 3e-3 in float32, where sums are added in another order."""
HALF = 3e-3
"""The same in half precision, where a gradient near 0 may change its sign."""


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of four processes found."""
    return in_processes(4, "fsdp_workers.py", tmp_path_factory.mktemp("four"))


def same_steps(alone: Processes, found: list[dict[str, Any]], case: str, name: str | None = None) -> None:
    rounded = case in fsdp_workers.HALF | fsdp_workers.COMPRESSED
    expected, limit = fsdp_workers.trained(alone, case), HALF if rounded else CLOSE
    for one in (rank[name or case] for rank in found):
        torch.testing.assert_close(one["norms"], expected["norms"], rtol=100 * limit, atol=0)
        for tensor, values in expected["weights"].items():
            noise = tensor.endswith(("key.bias", "k_proj.bias"))  # of gradient 0, which AdamW takes for a direction
            off = float((one["weights"][tensor] - values).abs().max())
            assert off < (0.01 if noise else limit), f"{tensor} {off}"
        assert one["as planned"]
        assert one["weights"].keys() == expected["weights"].keys()
        assert one["scores"] == pytest.approx(expected["scores"], rel=limit)
    kept = sum(rank[name or case]["kept"] for rank in found)
    assert kept == (1 if name is None else 2) * expected["kept"], "each weight is in one process"
    assert max(rank[name or case]["kept"] for rank in found) < 0.7 * expected["kept"]


@pytest.mark.parametrize("case", fsdp_workers.QUICK)
def test_two_processes_give_the_steps_of_one(alone: Processes, both: list[dict[str, Any]], case: str):
    same_steps(alone, [rank["fsdp"] for rank in both], case)


@pytest.mark.slow
@pytest.mark.parametrize("case", fsdp_workers.CASES)
def test_four_processes_give_the_steps_of_one(alone: Processes, four: list[dict[str, Any]], case: str):
    same_steps(alone, four, case)


@pytest.mark.slow
def test_two_replicas_of_two_processes_give_the_steps_of_one(alone: Processes, four: list[dict[str, Any]]):
    same_steps(alone, four, "bert", "replicas")


@pytest.mark.parametrize("case", fsdp_workers.SENT)
def test_a_plan_says_the_bytes_that_are_sent_and_kept(both: list[dict[str, Any]], case: str):
    seen = rehearsed(runner=Fsdp(processes=2, device="cpu"), **fsdp_workers.SENT[case])
    for rank in both:
        expected = {"sent": seen.sent, "dense": seen.dense, "kept": seen.most.get(FEEDBACK, 0)}
        assert rank["fsdp"]["traffic"][case] == expected
    assert (seen.most.get(FEEDBACK, 0) > 0) == (case == "int8")


def test_a_sharded_teacher_says_what_a_whole_one_does(alone: Processes, both: list[dict[str, Any]]):
    expected = distill_workers.found(alone, both[0]["folder"], fsdp_workers.LESSONS)
    for case, one in expected.items():
        for rank in both:
            found = rank["fsdp"]["lessons"][case]
            torch.testing.assert_close(found["weights"], one["weights"], rtol=0, atol=5 * CLOSE)
            for ours, theirs in zip(found["terms"], one["terms"], strict=True):
                assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_sharded_checkpoint_is_gone_on_with_to_the_bit(both: list[dict[str, Any]]):
    for rank in both:
        assert torch.equal(rank["fsdp"]["resumed"], rank["fsdp"]["undisturbed"])
        assert torch.equal(rank["fsdp"]["resumed int8"], rank["fsdp"]["undisturbed int8"])
        assert not torch.equal(rank["fsdp"]["resumed int8"], rank["fsdp"]["resumed"])


def test_a_sharded_checkpoint_is_gone_on_with_by_whole_weights(alone: Processes, both: list[dict[str, Any]]):
    undisturbed = both[0]["fsdp"]["undisturbed"]
    torch.testing.assert_close(both[0]["fsdp"]["replicated"], undisturbed, rtol=0, atol=CLOSE)
    found = fsdp_workers.resumed(alone, both[0]["folder"] / "fsdp", keep=False, runner=Cpu())
    torch.testing.assert_close(found, undisturbed, rtol=0, atol=CLOSE)


@pytest.mark.slow
def test_a_checkpoint_of_four_is_gone_on_with_by_two(four: list[dict[str, Any]], tmp_path: Path):
    folder = four[0]["folder"]
    for rank in four:
        assert torch.equal(rank["resumed"], rank["undisturbed"])
    shutil.copytree(folder / "saved", tmp_path / "saved")
    found = in_processes(2, "fsdp_workers.py", tmp_path)[0]["resumed"]
    torch.testing.assert_close(found, four[0]["undisturbed"], rtol=0, atol=CLOSE)


def test_weights_in_shards_are_those_that_were_saved(both: list[dict[str, Any]]):
    checkpoint = both[0]["folder"] / "fsdp" / "step-00000002"
    assert verify(checkpoint) is None
    assert not (checkpoint / "model.safetensors").exists()
    for name, piece in weights_of(checkpoint).items():
        files = [load_file(checkpoint / f"model-{shard}-of-2.safetensors") for shard in range(2)]
        parts = [file[name] for file in files if name in file]
        assert torch.equal(piece[:], torch.cat(parts) if len(parts) > 1 else parts[0])
        assert torch.equal(piece[1:3], piece[:][1:3])


def without_rows(path: Path) -> None:
    """A shard, as it would be with another number of rows."""
    with safe_open(path, "pt") as file:
        rows = json.loads(file.metadata()["rows"])
        tensors = {name: file.get_tensor(name) for name in rows}
    name = next(name for name in tensors if len(tensors[name]) > 1)
    save_file(tensors | {name: tensors[name][1:]}, path, {"rows": json.dumps(rows)})


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda p: (p / "model-1-of-2.safetensors").unlink(), "rows of"),
        (lambda p: without_rows(p / "model-1-of-2.safetensors"), "rows of|a gap in"),
        (lambda p: without_rows(p / "state-0-of-2.safetensors"), "rows of|a gap in"),
        (lambda p: (p / "state-0-of-2.safetensors").write_bytes(b"none"), "cannot be read"),
        (lambda p: save_file({"x": torch.zeros(2)}, p / "model-1-of-2.safetensors", {"rows": "[]"}), "cannot be read"),
        (lambda p: save_file({}, p / "state-1-of-2.safetensors", {"rows": "{}"}), "rows of"),
    ],
)
def test_a_damaged_shard_is_told(both: list[dict[str, Any]], tmp_path: Path, damage: Any, what: str):
    shutil.copytree(both[0]["folder"] / "fsdp" / "step-00000002", checkpoint := tmp_path / "step-00000002")
    damage(checkpoint)
    assert verify(checkpoint) is not None
    sign(checkpoint)
    with pytest.raises(Damaged, match=what):
        read(checkpoint)


def test_rows_of_a_shard_are_those_of_torch():
    for count in range(9):
        chunks = [len(chunk) for chunk in torch.arange(count).chunk(4)] if count else []
        lengths = [len(range(count)[rows_of(count, 4, shard)]) for shard in range(4)]
        assert lengths == chunks + [0] * (4 - len(chunks))


@pytest.mark.parametrize(
    ("changes", "nearest"),
    [
        ({"precision": Int8()}, "precision=bf16"),
        ({"precision": Bf16Pure()}, "precision=bf16"),
        ({"compression": Compressor(density=0.1)}, "compression=int8"),
        ({"compression": Compressor(quantise=Sign())}, "compression=int8"),
        ({"compression": PowerSgd()}, "compression=int8"),
        ({"compression": Compressor(local_clip=True)}, "compression.local_clip=false"),
        ({"compression": Compressor(probe_every=1)}, "compression.probe_every=null"),
        ({"compression": Compressor(), "precision": Fp16()}, "compression.error_feedback=false"),
        ({"compile": True}, "compile=false"),
        ({"optim": Muon()}, "optim=adamw"),
        ({"optim": replace(plan().optim, state_bits=8)}, "optim.state_bits=32"),
        ({"mix": replace(plan().mix, conflict_every=1)}, "mix.conflict_every=null"),
    ],
)
def test_what_needs_whole_weights_is_refused(changes: dict[str, Any], nearest: str):
    with pytest.raises(ConfigError, match="runner=fsdp") as refused:
        plan(runner=Fsdp(processes=2), **changes)
    assert refused.value.hint == f"nearest: {nearest}, or runner=ddp"


def test_offloading_needs_a_gpu_and_shards(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="this run computes on CPUs") as refused:
        Fsdp(processes=2, offload=True, device="cpu").world()
    assert refused.value.hint == "nearest: runner.offload=false"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ConfigError, match="every process has whole weights"):
        Fsdp(processes=4, replicas=4, offload=True, device="gpu").world()
    assert Fsdp(processes=4, offload=True, device="gpu").world() == 4
    with pytest.raises(ConfigError, match="does not scale gradients") as refused:
        plan(runner=Fsdp(processes=2, offload=True, device="gpu"), precision=Fp16())
    assert refused.value.hint == "nearest: precision=bf16, or runner=ddp"


def test_replicas_divide_the_processes():
    with pytest.raises(ConfigError, match="does not divide 6 processes") as refused:
        Fsdp(processes=6, replicas=4, device="cpu").world()
    assert refused.value.hint == "nearest: runner.replicas=3"
