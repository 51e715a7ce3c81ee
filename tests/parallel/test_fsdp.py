"""Sharded runs take the steps of one process, whatever is trained and however."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import fsdp_workers
import pytest
import torch
from command import in_processes
from small import plan

from lmctl.compression.compressor import Compressor
from lmctl.core.errors import ConfigError
from lmctl.core.shards import rows_of
from lmctl.optim.muon import Muon
from lmctl.parallel.processes import Processes
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.int8 import Int8
from lmctl.runner.fsdp import Fsdp

CLOSE = 2e-5
"""Weights after two steps of AdamW at 3e-3 in float32, where sums are added in another order."""
HALF = 2e-3


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of four processes found."""
    folder = tmp_path_factory.mktemp("four")
    in_processes(4, "fsdp_workers.py", folder)
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(4)]


def same_steps(alone: Processes, found: list[dict[str, Any]], case: str, name: str | None = None) -> None:
    expected, limit = fsdp_workers.trained(alone, case), HALF if case in fsdp_workers.HALF else CLOSE
    for one in (rank[name or case] for rank in found):
        torch.testing.assert_close(one["norms"], expected["norms"], rtol=100 * limit, atol=0)
        for tensor, values in expected["weights"].items():
            noise = tensor.endswith(("key.bias", "k_proj.bias"))  # of gradient 0, which AdamW takes for a direction
            off = float((one["weights"][tensor] - values).abs().max())
            assert off < (0.01 if noise else limit), f"{tensor} {off}"
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
        ({"compression": Compressor()}, "compression=none"),
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


def test_replicas_divide_the_processes():
    with pytest.raises(ConfigError, match="does not divide 6 processes") as refused:
        Fsdp(processes=6, replicas=4, device="cpu").world()
    assert refused.value.hint == "nearest: runner.replicas=3"
