"""Bytes on paper are those of the tensors of a real run: of every precision, optimiser, compression, adversary."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planned import rehearsed, small_run, storage_of
from small import plan, prepared, tokenizer, vocabulary
from torch import Tensor, nn
from torch._subclasses.fake_tensor import UnsupportedOperatorException
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from two_processes import OPTIONS

from lmctl.adversary.fgm import FastGradient
from lmctl.adversary.freelb import FreeLB
from lmctl.adversary.noise import Noise
from lmctl.adversary.none import Clean
from lmctl.adversary.pgd import ProjectedGradient
from lmctl.adversary.rdrop import RDrop
from lmctl.adversary.smart import Smart
from lmctl.augment.base import Augment
from lmctl.compression.compressor import Compressor
from lmctl.config.schema import Budget
from lmctl.core.vocabulary import Each
from lmctl.cost.fake_tensors import fake_tensor_mode
from lmctl.cost.memory_tracker import ACTIVATIONS, FEEDBACK, GRADIENTS, LOGITS, ROWS, STATES, WEIGHTS, MemoryTracker
from lmctl.mix.stream import Position, Window
from lmctl.model.bert import Bert
from lmctl.model.gpt2 import Gpt2
from lmctl.model.pretrained import Pretrained
from lmctl.objective.clm import CausalLM
from lmctl.optim.adamw import AdamW
from lmctl.optim.sgd import Sgd
from lmctl.parallel.processes import Processes
from lmctl.parallel.simulate import as_workers
from lmctl.precision.bf16 import Bf16
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.fp8 import Fp8
from lmctl.precision.fp16 import Fp16
from lmctl.precision.fp32 import Fp32
from lmctl.precision.half_linear import half_copies
from lmctl.precision.int8 import Int8
from lmctl.precision.int8_full import Int8Full
from lmctl.precision.int8_lora import Int8Lora
from lmctl.precision.int8_weights import Int8Weights
from lmctl.precision.nf4_lora import Nf4Lora
from lmctl.runner.places import Ddp
from lmctl.train.state import TrainState
from lmctl.train.trainer import Trainer
from lmctl.train.weight_memory import size_of, tensors_in, weight_bytes

WIDE = Bert(2, 64, 2, 128, max_positions=64, dropout=0.0, attention_dropout=0.0)
"""Some of its matrices have enough values for 8-bit states."""
GPT2 = Gpt2(2, 32, 2, max_positions=64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Pretrained:
    """A model that was trained before, under adapters."""
    folder = tmp_path_factory.mktemp("trained")
    WIDE.load(vocabulary(), {"mlm": vocabulary().size, "pair": 2}).pretrained().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return Pretrained(str(folder), lora_rank=4)


def transient(network: nn.Module) -> int:
    """Bytes of the buffers that are not part of a network's state (positions and the like)."""
    kept = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}
    return size_of(buffer for buffer in network.buffers() if id(buffer) not in kept)


# Weights, gradients, states

PRECISIONS = [
    Fp32(), Bf16(), Bf16Pure(), Bf16Pure("kahan"), Fp16(), Fp8(emulate=True), Int8(), Int8Weights(),
    Int8Full(gradients="bf16"),
]  # fmt: skip


CASES: list[dict[str, Any]] = [{"precision": precision} for precision in PRECISIONS]
CASES += [{"precision": precision, "optim": AdamW(state_bits=8)} for precision in (Fp32(), PRECISIONS[-1])]
CASES += [{"precision": Int8Weights(), "optim": Sgd(momentum=0.9)}]
CASES += [{"precision": p, "model": GPT2, "objective": CausalLM()} for p in (Int8Weights(), Bf16Pure())]
CASES += [{"precision": precision, "model": "under adapters"} for precision in (Int8Lora(), Nf4Lora(), Fp32())]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_what_a_weight_takes(alone: Processes, trained: Pretrained, case: dict[str, Any]):
    changes = {"model": WIDE} | case | ({"model": trained} if case.get("model") == "under adapters" else {})
    trainer = Trainer(plan(**changes), prepared(), alone)
    next(trainer.steps())
    seen = rehearsed(**changes)
    copies = size_of(copy.values for copy in half_copies(trainer.network) if copy.values is not None)
    assert seen.most[WEIGHTS] == weight_bytes(trainer.network) + transient(trainer.network) + copies
    assert seen.most[STATES] == size_of(tensors_in(trainer.step.optimizer.state_dict()))
    learn = [p for p in trainer.learner.parameters() if p.requires_grad]
    assert seen.most[GRADIENTS] == pytest.approx(sum(p.numel() * p.element_size() for p in learn), rel=0.01)


def test_the_copy_that_is_exported_may_be_the_peak(tmp_path: Path):
    deep = replace(WIDE, layers=16, hidden=32, feed_forward=64)
    deep.load(vocabulary(), {"mlm": vocabulary().size, "pair": 2}).pretrained().save_pretrained(tmp_path)
    few = {"model": Pretrained(str(tmp_path), lora_rank=1), "size": 1, "seq_len": 8}
    assert rehearsed(precision=Nf4Lora(), **few).moment == "the export"
    assert rehearsed(**few | {"size": 8, "seq_len": 32}).moment == "a step"


# A whole step


class AsItIs(Augment):
    """An augmentation that leaves rows as long as they are."""

    def rewriter(self, tokenizer: Any, pieces: Any) -> Any:
        return Each(lambda ids, generator: ids)


def really(changes: dict[str, Any], processes: Processes) -> MemoryTracker:
    """A real step, the second of a run, on the rows that a rehearsal has."""
    run, sample = small_run(**changes)
    live = MemoryTracker(run.known.vocabulary.size)
    with live:
        trainer = Trainer(run.plan, run.known.prepared, processes)
        window = Window([sample.batch], {"corpus": 1.0}, Position())
        for _ in range(2):
            live.restart()
            trainer.state = TrainState()  # so that a warm-up is where it is most
            trainer._step(window, dict.fromkeys(trainer.terms, 9.0), {"corpus": sample.batch.tokens}, lambda: window)
    return live


ADVERSARIES = [Clean(), FastGradient(), ProjectedGradient(), FreeLB(), Smart(), RDrop(), Noise(AsItIs())]
DROPS = Bert(2, 32, 2, 64, max_positions=64)


@pytest.mark.parametrize("adversary", ADVERSARIES, ids=lambda adversary: type(adversary).__name__)
def test_a_step_with_an_adversary(alone: Processes, adversary: Any):
    assert isinstance(AsItIs(), Augment)
    changes = {"model": DROPS, "adversary": adversary}
    same(really(changes, alone), rehearsed(**changes))


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if not isinstance(p, Fp32)], ids=repr)
def test_a_step_of_a_precision(alone: Processes, precision: Any):
    changes = {"model": WIDE, "precision": precision}
    same(really(changes, alone), rehearsed(**changes))


@pytest.mark.parametrize("option", [name for name in OPTIONS if name != "none"])
def test_a_step_with_a_compression(alone: Processes, option: str):
    changes = OPTIONS[option] | {"compression": replace(OPTIONS[option]["compression"], simulate_workers=1)}
    same(really(changes, alone), rehearsed(**changes))


def same(real: MemoryTracker, seen: Any) -> None:
    assert seen.moment == "a step"
    assert seen.peak.total - seen.peak.by[ROWS] == pytest.approx(real.peak.total, rel=0.02)


def test_two_passes_that_are_compared_keep_twice_as_much():
    one, two, climb = (rehearsed(model=DROPS, adversary=rule).most for rule in (Clean(), RDrop(), FreeLB()))
    assert two[ACTIVATIONS] == pytest.approx(2 * one[ACTIVATIONS], rel=0.01)
    assert climb[ACTIVATIONS] == pytest.approx(one[ACTIVATIONS], rel=0.01)
    assert two[LOGITS] > 1.9 * one[LOGITS]


# The network between workers


@pytest.mark.parametrize("option", [name for name in OPTIONS if name != "none"])
def test_bytes_sent_and_kept_are_those_of_simulated_workers(alone: Processes, option: str):
    workers = {"topk_int8": 4, "int8": 1}.get(option, 2)
    compression = replace(OPTIONS[option]["compression"], simulate_workers=workers)
    changes = OPTIONS[option] | {"compression": compression, "budget": Budget(steps=3)}

    def work(worker: Processes) -> Any:
        trainer = Trainer(plan(**changes), prepared(), worker)
        assert len(list(trainer.steps())) == 3  # the warm-up of one of them is over then
        return trainer.strategy

    seen, strategy = rehearsed(**changes), as_workers(workers, alone, work)
    assert (seen.sent, seen.dense) == (strategy.sent, strategy.dense)
    assert seen.most.get(FEEDBACK, 0) == pytest.approx(storage_of(strategy.state_dict()), abs=64)


def test_gradients_are_sent_in_the_type_they_come_in():
    full, half = (rehearsed(runner=Ddp(2, device="cpu"), precision=precision) for precision in (Fp32(), Bf16Pure()))
    assert full.sent == full.dense == half.dense
    assert full.dense / 2 < half.sent < 0.53 * full.dense  # vectors come in fp32


def test_processes_have_buckets_from_the_beginning():
    one, two = rehearsed(size=8), rehearsed(size=16, runner=Ddp(2, device="cpu"))
    assert two.most[ACTIVATIONS] == pytest.approx(one.most[ACTIVATIONS], rel=0.1)
    assert two.peak.by[GRADIENTS] == one.most[GRADIENTS]
    micro = rehearsed(size=16, micro=4, runner=Ddp(2, device="cpu"))
    assert micro.most[GRADIENTS] == pytest.approx(2 * one.most[GRADIENTS], rel=0.01)  # until they are in the buckets
    residual = rehearsed(size=16, runner=Ddp(2, device="cpu"), compression=Compressor(density=0.1))
    assert residual.most[FEEDBACK] > 0.8 * one.most[GRADIENTS]


# Paper


@pytest.fixture
def fake() -> Iterator[None]:
    with fake_tensor_mode():
        yield


def test_questions_have_answers(fake: None):
    x = torch.ones(3, 4)
    assert bool(torch.isfinite(x).all())
    assert not (x > 2).any()
    assert float(x.sum()) == 0.0
    assert x.nonzero().shape == (0, 2)
    assert torch.bincount(x.long().flatten(), minlength=7).shape == (7,)
    assert torch.equal(x, x + 1)


def test_rows_are_packed_as_if_they_were_full(fake: None):
    rows = torch.randn(3, 5, 2)
    packed = pack_padded_sequence(rows, torch.tensor([5, 4, 2]), batch_first=True, enforce_sorted=False)
    assert packed.data.shape == (15, 2)
    assert packed.batch_sizes.tolist() == [3] * 5
    assert pad_packed_sequence(packed, batch_first=True, total_length=6)[0].shape == (3, 6, 2)


def test_modules_can_be_converted(fake: None):
    layer = nn.Linear(2, 3).to(torch.bfloat16)
    assert isinstance(layer.weight, Tensor)
    assert layer.weight.dtype == torch.bfloat16


def test_modules_can_be_copied(fake: None):
    layer = nn.Linear(2, 3).requires_grad_(False)
    copy = deepcopy(nn.ModuleList([layer, layer]))
    assert copy[0].weight is copy[1].weight is not layer.weight
    assert isinstance(copy[0].weight, nn.Parameter)
    assert not copy[0].weight.requires_grad
    assert copy[0].weight.untyped_storage()._cdata != layer.weight.untyped_storage()._cdata


def test_no_kernel_ever_runs(fake: None):
    with pytest.raises(UnsupportedOperatorException):
        torch.ops.aten._histogramdd_bin_edges(torch.ones(3, 2), [2, 2])


def test_storages_that_shrink_are_counted_anew():
    live = MemoryTracker(9)
    with live:
        tensor = torch.empty(1000)
        assert live.peak.total == 4000
        tensor.untyped_storage().resize_(0)
        live.restart()
        assert live.peak.total == 0
        del tensor
        torch.empty(10)
    assert live.peak.total == 40
