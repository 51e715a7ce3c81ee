"""A network whose weights are made later has the bits of one that was built at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fsdp_workers import FAMILIES
from safetensors.torch import load_file, save_file
from small import tokenizer
from small_tasks import small_task
from small_teachers import taught, teacher
from transformers import AutoModelForCausalLM

from lmctl.config.schema import Student
from lmctl.distill.init_from_teacher import init_from_teacher
from lmctl.model.bert import Bert
from lmctl.model.pretrained import Pretrained
from lmctl.model.teacher_layers import TeacherLayers
from lmctl.parallel.deferred_weights import LEAST, DeferredWeights
from lmctl.plan import Plan
from lmctl.train.build_parts import network_of
from lmctl.train.prepare import Prepared

CASES = FAMILIES | {"padded vocabulary": ("mlm", {"model": Bert(1, 32, 2, 64, pad_vocabulary_to=2 * LEAST)})}


@pytest.mark.parametrize("case", CASES)
def test_weights_and_the_generator_are_those_of_an_ordinary_start(case: str):
    task, changes = CASES[case]
    same_start(*small_task(task, **changes))


def in_files(place: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(place)
    (place / "model.safetensors").unlink()
    model.save_pretrained(place, max_shard_size="20KB")
    assert len(list(place.glob("*.safetensors"))) > 2


def in_half_precision(place: Path) -> None:
    """As many models are published."""
    file, config = place / "model.safetensors", place / "config.json"
    save_file({n: t.bfloat16() for n, t in load_file(file).items()}, file, {"format": "pt"})
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "bfloat16"}))


def with_fewer_pieces(place: Path) -> None:
    """Weights for fewer pieces than its tokenizer has."""
    model = AutoModelForCausalLM.from_pretrained(place)
    model.resize_token_embeddings(len(tokenizer()) - 3)
    model.save_pretrained(place)


def nothing(place: Path) -> None:
    pass


FILES: dict[str, tuple[str, str, str, Callable[[Path], None], dict[str, Any]]] = {
    "tied": ("gpt2", "clm", "clm", nothing, {}),
    "new head": ("bert", "mlm", "class", nothing, {}),
    "head left out": ("bert", "class", "mlm_nsp", nothing, {}),
    "seq2seq": ("t5", "t5", "t5", nothing, {}),
    "recurrent": ("lstm", "clm", "clm", nothing, {}),
    "several files": ("llama", "clm", "clm", in_files, {}),
    "half precision": ("gpt2", "clm", "clm", in_half_precision, {}),
    "other vocabulary": ("llama", "clm", "clm", with_fewer_pieces, {}),
    "other vocabulary, tied": ("gpt2", "clm", "clm", with_fewer_pieces, {}),
    "adapters": ("gpt2", "clm", "clm", nothing, {"lora_rank": 2}),
    "adapters, new head": ("bert", "mlm", "class", nothing, {"lora_rank": 2}),
}


@pytest.mark.parametrize("case", FILES)
def test_weights_of_files_are_read_later(case: str, tmp_path: Path):
    model, trained, task, change, settings = FILES[case]
    place = Path(teacher(tmp_path, model, trained))
    change(place)
    same_start(*small_task(task, model=Pretrained(str(place), **settings)), resized=change is with_fewer_pieces)


def test_layers_of_a_teacher_are_read_later(tmp_path: Path):
    place = teacher(tmp_path, "bert", "mlm")
    same_start(*taught("mlm", place, model=TeacherLayers(place, 2), student=Student("uniform")))


def same_start(plan: Plan, prepared: Prepared, resized: bool = False) -> None:
    """A network that is built at once and one that is filled later have the same weights, words and random numbers.
    A table that is resized is made at once."""
    torch.manual_seed(3)
    expected = network_of(plan, prepared)
    init_from_teacher(plan, prepared, expected)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    with DeferredWeights() as deferred:
        network = network_of(plan, prepared)
        init_from_teacher(plan, prepared, network)
    assert torch.equal(torch.get_rng_state(), after)
    assert (network.report, network.untrained) == (expected.report, expected.untrained)
    large = {name for name, p in expected.named_parameters() if p.numel() >= LEAST and p.ndim > 1}
    assert len(large - {name for name, p in network.named_parameters() if p.is_meta}) == resized
    deferred.fill(network)
    assert torch.equal(torch.get_rng_state(), after)
    found, names = network.state_dict(), [(name, p.requires_grad) for name, p in network.named_parameters()]
    assert names == [(name, p.requires_grad) for name, p in expected.named_parameters()]
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found[name], tensor), name
