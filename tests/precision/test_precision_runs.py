"""Every precision in training: it learns, goes on to the bit, accumulates and exports."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from precisions import PRECISIONS
from resumed import goes_on_to_the_bit
from small import SUMMARY, plan, prepared
from torch import Tensor

from lmctl.config.schema import Budget
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.paths import Paths
from lmctl.model.bert import Bert
from lmctl.model.recurrent import RecurrentLM
from lmctl.objective.clm import CausalLM
from lmctl.objective.mlm import MaskedLM
from lmctl.optim.adamw import AdamW
from lmctl.precision.bf16 import Bf16
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.fp8 import Fp8
from lmctl.precision.int8 import Int8
from lmctl.precision.int8_full import Int8Full
from lmctl.precision.int8_weights import Int8Weights
from lmctl.runner.base import Runner
from lmctl.train.learner import Share
from lmctl.train.precision_proof import prove
from lmctl.train.trainer import Trainer
from lmctl.train.weight_memory import tensors_in

LOW = [name for name in PRECISIONS if name not in ("fp32", "bf16", "fp16")]
HOT = AdamW(lr=1e-2)


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    return copy.deepcopy(trainer.network.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def mlm(reports: list[Any]) -> list[float]:
    return [float(r.losses.totals["corpus/mlm"]) / r.counts["corpus/mlm"] for r in reports]


LEARN = ("bf16", "fp16", "bf16_pure", "bf16_kahan", "fp8", "int8", "int8_weights_bf16", "int8_full_pow2")


@pytest.fixture(scope="module")
def fp32(alone) -> float:
    trainer = Trainer(plan(optim=HOT, objective=MaskedLM(), budget=Budget(steps=60)), prepared(), alone)
    list(trainer.steps())
    return trainer.validation.scores(trainer.learner)["loss"]


@pytest.mark.parametrize("name", LEARN)
def test_it_learns_what_fp32_learns(alone, fp32, name):
    changes = {"optim": HOT, "objective": MaskedLM(), "budget": Budget(steps=60)}
    trainer = Trainer(plan(precision=PRECISIONS[name], **changes), prepared(), alone)
    losses = mlm(list(trainer.steps()))
    assert trainer.state.step == 60
    assert losses[-1] < losses[0] - 0.1
    assert trainer.validation.scores(trainer.learner)["loss"] == pytest.approx(fp32, abs=0.03)


def test_too_much_noise_ends_a_run_before_it_begins_but_not_one_that_goes_on(alone, monkeypatch):
    monkeypatch.setattr(Int8, "least_decibel", 200.0)
    trainer = Trainer(plan(precision=Int8()), prepared(), alone)
    with pytest.raises(LmctlError, match=r"int8 in linear layers, fp32 elsewhere differs too much .* below 200\)"):
        prove(trainer)
    next(trainer.steps())
    assert prove(trainer)["low_products"]["int8"] == 12


def test_what_pretends_to_compute_or_store_in_few_bits_is_found_out(alone, monkeypatch):
    monkeypatch.setattr(Int8, "convert", lambda *_: [])
    with pytest.raises(LmctlError, match=r"asked for int8 in linear layers.* but the first batch was computed in fp32"):
        prove(Trainer(plan(precision=Int8()), prepared(), alone))
    monkeypatch.setattr(Bf16, "products", lambda *_: nullcontext())
    with pytest.raises(LmctlError, match="computed in fp32"):
        prove(Trainer(plan(precision=Bf16()), prepared(), alone))
    monkeypatch.setattr(Int8Weights, "convert", lambda *_: [])
    with pytest.raises(LmctlError, match="asked for weights stored as int8, but there are none"):
        prove(Trainer(plan(precision=Int8Weights()), prepared(), alone))


WIDE = Bert(1, 64, 2, 128, max_positions=64)
"""Its feed-forward weights are large enough for 8-bit moments; and it has dropout."""


@pytest.mark.parametrize(
    ("name", "bits"), [*((name, 32) for name in LOW), ("fp32", 8), ("bf16_kahan", 8), ("int8_full", 8)]
)
def test_it_goes_on_to_the_bit(alone, tmp_path, name, bits):
    def fresh() -> Trainer:
        changes = {"precision": PRECISIONS[name], "optim": AdamW(lr=1e-2, state_bits=bits), "model": WIDE}
        return Trainer(plan(**changes, budget=Budget(steps=6)), prepared(), alone)

    undisturbed, _ = goes_on_to_the_bit(fresh, 3, tmp_path, prove)  # proven, as a session does before it goes on
    if bits == 8:
        kinds = {tensor.dtype for tensor in tensors_in(undisturbed.step.optimizer.state_dict())}
        assert torch.uint8 in kinds


SPLIT = {"fp32": 1e-6, "bf16": 0.01, "bf16_pure": 0.02, "fp8": 0.1}
SPLIT |= {"int8": 0.05, "int8_weights": 1e-6, "int8_full": 0.05}
"""How far apart two micro-batches instead of one may bring a step's gradient: scales per channel are those of a
micro-batch, and bf16 gradients are added up in bf16."""


@pytest.mark.parametrize("name", SPLIT)
def test_accumulation_gives_the_same_gradient(alone, name):
    options = {"int8": Int8(stochastic=False), "int8_full": Int8Full(stochastic=False)}
    gradients = []
    for micro in (None, 4):
        trainer = Trainer(plan(precision=options.get(name, PRECISIONS[name]), micro=micro), prepared(), alone)
        trainer.step.optimizer.zero_grad = lambda **_: None  # type: ignore[method-assign]
        next(trainer.steps())
        gradients.append(torch.cat([p.grad.float().flatten() for p in trainer.learner.parameters()]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < SPLIT[name]


@pytest.mark.parametrize("name", ["bf16_pure", "bf16_kahan", "int8", "int8_weights", "int8_full", "fp8"])
def test_export_is_plain_float_and_gives_the_same_logits(alone, tmp_path: Path, name):
    from transformers import BertForPreTraining

    from lmctl.train.export import export

    trainer = Trainer(plan(precision=PRECISIONS[name]), prepared(), alone)
    list(trainer.steps())
    paths = Paths(tmp_path)
    before = state_of(trainer)
    export(paths, trainer, SUMMARY)
    assert same(before, state_of(trainer))
    plain = BertForPreTraining.from_pretrained(paths.model).eval()
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    assert not any("int8" in key or "scale" in key for key in plain.state_dict())
    ids = torch.arange(5, 25)[None]
    trainer.network.eval()
    with torch.no_grad(), trainer.plan.precision.reference(torch.device("cpu")):
        ours = trainer.network.head("mlm", trainer.network.encode({"input_ids": ids}, torch.arange(20)))
        theirs = plain(input_ids=ids).prediction_logits[0]
    assert torch.allclose(ours, theirs, atol=5e-3 if name.startswith("bf16") else 1e-5)


@pytest.mark.parametrize("name", ["bf16", "fp16", "int8", "int8_weights", "int8_full", "bf16_pure", "fp8"])
def test_activations_recomputed_give_the_same_run(alone, name):
    states = []
    for recompute in (False, True):
        trainer = Trainer(plan(precision=PRECISIONS[name], gradient_checkpointing=recompute), prepared(), alone)
        list(trainer.steps())
        states.append(state_of(trainer))
    assert same(*states)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fp32", "int8", "fp8", "bf16_pure"])
def test_it_is_compiled_after_the_proof_too(alone, name):
    """A dispatch mode around a compiled function would make dynamo leave it alone for ever."""
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    trainer = Trainer(plan(precision=PRECISIONS[name], compile=True), prepared(), alone)
    prove(trainer)
    list(trainer.steps())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_several_tasks_and_idle_processes_touch_every_stored_parameter(alone):
    trainer = Trainer(plan(precision=Int8Full()), prepared(), alone)
    list(trainer.steps())
    trainer.learner([], Share({})).total.backward()
    assert all(not p.grad.any() and p.grad.shape == p.shape for p in trainer.learner.parameters())


def test_nothing_but_the_vectors_stays_in_fp32_with_bf16_pure(alone):
    trainer = Trainer(plan(precision=Bf16Pure()), prepared(), alone)
    for parameter in trainer.learner.parameters():
        assert parameter.dtype == (torch.bfloat16 if parameter.ndim > 1 else torch.float32)
    with pytest.raises(ValueError, match="rounding must be stochastic or kahan: nearest loses every update"):
        Bf16Pure(rounding="nearest")
    assert Bf16Pure(rounding="nearest", force=True).rounding == "nearest"
    with pytest.raises(ConfigError, match=r"torch's recurrent ones \(RecurrentLM\) take weights of one kind only"):
        plan(model=RecurrentLM(1, 32), objective=CausalLM(), precision=Bf16Pure())
    with pytest.raises(ConfigError, match=r"recurrent ones \(LSTM\)"):
        Bf16Pure().convert(torch.nn.LSTM(4, 4), torch.device("cpu"))


def test_small_steps_reach_bf16_weights_unless_rounded_to_nearest(alone):
    moved = {}
    for rounding in ("stochastic", "kahan", "nearest"):
        option = Bf16Pure(rounding=rounding, force=True)
        trainer = Trainer(plan(precision=option, optim=AdamW(lr=1e-5, weight_decay=0.0)), prepared(), alone)
        before = state_of(trainer)
        list(trainer.steps())
        after = state_of(trainer)
        name = "model.bert.encoder.layer.0.intermediate.dense.weight"
        moved[rounding] = float((after[name] != before[name]).float().mean())
    assert moved["nearest"] < 0.2 < moved["stochastic"]
    assert moved["nearest"] < moved["kahan"]


@pytest.mark.parametrize("on_cpu", [True, False])
def test_what_needs_a_gpu_is_refused_without_one(on_cpu):
    from lmctl.precision.tf32 import Tf32

    class Elsewhere(Runner):
        def world(self) -> int:
            return 1

        def on_cpu(self) -> bool:
            return on_cpu

        def strategy(self, *_):
            raise NotImplementedError

    place = Elsewhere()
    for option, nearest in ((Tf32(), "precision=fp32"), (Fp8(), "precision=bf16, or precision.emulate=true")):
        if on_cpu:
            with pytest.raises(ConfigError, match=f"precision: {option.product} needs an NVIDIA GPU .*{nearest}"):
                plan(precision=option, runner=place)
        else:
            plan(precision=option, runner=place)
            assert nearest in str(option.refuse(torch.device("cpu")))
