"""`lmctl plan` for a machine with GPUs that is not this one: what is refused there, what fits, what is assumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lmctl.cli.main import main
from lmctl.cost.fake_tensors import fake_tensor_mode, on_gpu
from lmctl.cost.machine import CARDS
from lmctl.cost.memory_tracker import ACTIVATIONS, MemoryTracker

SMALL = ["data=text", "data.path=missing", "tokenizer.vocab_size=300", "batch.seq_len=32", "out=plan.json"]
"""A run whose data does not exist."""


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def planned(*words: str) -> dict:
    assert main(["plan", *SMALL, *words]) == 0
    return json.loads(Path("plan.json").read_text())


def test_a_gpu_that_is_not_here_can_be_planned_for(capsys: pytest.CaptureFixture[str]):
    found = planned("runner=gpu")
    text = capsys.readouterr().out
    assert text.startswith("legal\n")
    assert "there is no GPU here: assumed 1 x GPU\n" in text
    assert "only an H200 was compared" in text
    assert "how much memory it has was not said: gpu=h100 or gpu_memory_gib=80\n" in text
    assert found["memory"]["device"] == "cuda"
    assert found["machine"] == {"gpu": "GPU", "gpus": 1, "memory_bytes": None, "capability": [9, 0]}
    assert (found["room_bytes"], found["fits"]) == (None, None)


def test_its_memory_is_that_of_its_tensors_alone():
    found = planned("gpu=h100", "model.hidden=32", "model.feed_forward=64")
    assert {"allocator", "kernels", "libraries"}.isdisjoint(found["memory"]["components"])
    size = 4 * found["parameters"]["total"]
    assert found["memory"]["components"]["weights"]["peak_bytes"] == pytest.approx(size, rel=0.05)  # and buffers
    assert found["memory"]["components"]["optimiser states"]["peak_bytes"] == pytest.approx(2 * size, rel=0.01)
    assert found["room_bytes"] == 80 * 2**30
    assert found["fits"] is True


def test_offloaded_shards_are_in_host_memory(capsys: pytest.CaptureFixture[str]):
    words = ["gpu=h100", "gpus=4", "runner=fsdp", "precision=bf16", "model.hidden=32", "model.feed_forward=64"]
    kept, offloaded = planned(*words), planned(*words, "runner.offload=true")
    assert "host memory" in capsys.readouterr().out
    shards = 16 * kept["parameters"]["total"] / 4
    assert (kept["memory"]["host_bytes"], offloaded["memory"]["host_bytes"]) == (0, pytest.approx(shards, rel=0.05))
    parts = [found["memory"]["components"] for found in (kept, offloaded)]
    assert parts[0]["optimiser states"]["most_bytes"] > parts[1]["optimiser states"]["most_bytes"] == 0
    assert parts[0]["weights"]["most_bytes"] > parts[1]["weights"]["most_bytes"] > 0  # what is gathered


def test_what_does_not_fit_is_said_first(capsys: pytest.CaptureFixture[str]):
    found = planned("gpu_memory_gib=0.002", "precision=bf16")
    assert capsys.readouterr().out.startswith("legal, but too large for the 2.0 MiB there are\n")
    assert found["fits"] is False
    assert main(["plan", "-m", *SMALL, "gpu_memory_gib=0.002,64"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[1] for row in rows[1:3]] == ["too", "yes"]


@pytest.mark.parametrize(
    ("card", "precision", "legal"),
    [
        ("t4", "bf16", False),
        ("t4", "fp16", True),
        ("v100", "tf32", False),
        ("a100", "tf32", True),
        ("a100", "fp8", False),
        ("rtx4090", "fp8", True),
        ("H100", "fp8", True),
    ],
)
def test_what_that_card_cannot_do_is_refused(card: str, precision: str, legal: bool, capsys):
    assert main(["plan", *SMALL, f"gpu={card}", f"precision={precision}"]) == (0 if legal else 2)
    assert legal or "nearest: precision=" in capsys.readouterr().err


def test_several_processes_have_a_gpu_each():
    found = planned("runner=ddp", "runner.device=gpu", "runner.processes=4", "gpu=a100")
    assert found["machine"]["gpus"] == 4
    assert found["wire"]["workers"] == 4
    assert planned("gpu=a100", "gpus=2")["wire"]["workers"] == 2  # runner=auto takes them all


def test_more_processes_than_gpus_are_refused_as_on_that_machine(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *SMALL, "runner=ddp", "runner.processes=4", "gpu=a100", "gpus=2"]) == 2
    assert "runner.processes=4: this machine has 2 GPUs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gpu=h1000"], "gpu=h1000: no such card is known; did you mean h100?"),
        (["runner=cpu", "gpu=h100"], "the runner stays on the CPU"),
        (["gpu=h100", "measure=true"], "only the machine itself can"),
        (["gpu_memory_gib=0"], "gpu_memory_gib must be above 0"),
    ],
)
def test_mistakes_are_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *SMALL, *words]) == 2
    assert said in capsys.readouterr().err


def test_without_such_words_the_plan_is_for_this_machine():
    found = planned("runner=auto")
    assert found["machine"] is None
    assert found["memory"]["device"] == "cpu"


def test_cards_are_of_sensible_sizes():
    assert all(8 * 2**30 < card.memory < 2**38 for card in CARDS.values() if card.memory)


def kept(layer, *shape: int) -> int:
    """Bytes that a layer of a network on paper keeps for its backward pass, besides what it is given."""
    live = MemoryTracker(vocabulary=-1)
    with fake_tensor_mode(), on_gpu(), live:
        given = torch.empty(shape, requires_grad=True)
        with live.keeping():
            out = layer(given)
        assert out.requires_grad
        return live.now(ACTIVATIONS) - given.nbytes * (live._kind[given.untyped_storage()._cdata] == ACTIVATIONS)


def test_dropout_keeps_a_byte_per_value():
    """As torch's `native_dropout` does on CUDA: a mask of bools."""
    assert kept(nn.Dropout(0.1), 4, 8, 16) == 4 * 8 * 16


def test_attention_keeps_no_weights():
    """FlashAttention (Dao et al. 2022, section 3.1): a value per row of the softmax, none per pair."""
    rows, heads, length, width = 2, 4, 64, 8

    def attend(value):
        return F.scaled_dot_product_attention(value, value, value, dropout_p=0.1)

    assert kept(attend, rows, heads, length, width) < 4 * rows * heads * length * length


def test_autocast_computes_powers_in_float32():
    """As CUDA's autocast does and a CPU's does not: GPT-2's GELU keeps twice as much."""
    with on_gpu(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.pow(torch.ones(2, dtype=torch.bfloat16), 3.0).dtype == torch.float32


@pytest.mark.parametrize("extra", [["gradient_checkpointing=true"], ["optim=adamw8bit", "optim.paged=true"]])
def test_what_a_cpu_would_do_otherwise_is_planned_too(extra: list[str]):
    found = planned("gpu=h100", "precision=bf16", *extra)
    assert found["memory"]["peak_bytes"] > 0
