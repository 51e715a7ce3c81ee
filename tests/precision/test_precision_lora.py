"""A model frozen in int8 or NF4 under adapters: plain tensors in checkpoints, merged float weights out."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from resumed import goes_on_to_the_bit
from small import plan, prepared, tokenizer, vocabulary

from lmctl.config.schema import Budget
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.model.bert import Bert
from lmctl.model.gpt2 import Gpt2
from lmctl.model.pretrained import Pretrained
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.optim.adamw import AdamW
from lmctl.precision.codecs import FloatProducts
from lmctl.precision.fp32 import Fp32
from lmctl.precision.int8_lora import Int8Lora
from lmctl.precision.int8_weights import Int8Weights
from lmctl.precision.nf4_lora import Nf4Lora
from lmctl.precision.stored_linear import StoredWeight
from lmctl.train.precision_proof import prove
from lmctl.train.trainer import Trainer
from lmctl.train.weight_memory import bytes_per_parameter

OPTIONS = pytest.mark.parametrize("option", [Int8Lora(), Nf4Lora()], ids=["int8", "nf4"])
V = vocabulary()


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Pretrained:
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    spec = Bert(2, 64, 2, 128, max_positions=64, dropout=0.0, attention_dropout=0.0)
    spec.load(V, {"mlm": V.size, "pair": 2}).pretrained().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return Pretrained(str(folder), lora_rank=4)


def trainer_of(alone, model, option, steps: int = 6) -> Trainer:
    changes = {"objective": MaskedLMAndNextSentence(), "optim": AdamW(lr=1e-2), "budget": Budget(steps=steps)}
    return Trainer(plan(model=model, precision=option, **changes), prepared(), alone)


@OPTIONS
def test_the_frozen_base_stays_and_adapters_learn_through_validation(alone, bert, option):
    trainer = trainer_of(alone, bert, option, 12)
    table = prove(trainer)
    assert table["stored_weights"] == 2 * (4 * 64 * 64 + 2 * 64 * 128)
    assert table["storage_db"] > (40 if option.storage == "int8" else 18)
    before = copy.deepcopy(trainer.network.state_dict())
    for _ in trainer.steps():
        trainer.validation.scores(trainer.learner)  # after which gradients must still reach the first layer's adapters
    after = trainer.network.state_dict()
    for name, value in after.items():
        moved = not torch.equal(before[name], value)
        assert moved == ("lora_" in name), name
    in_float = trainer_of(alone, bert, Fp32(), 12)
    list(in_float.steps())
    losses = [one.validation.scores(one.learner)["loss"] for one in (trainer, in_float)]
    assert losses[0] == pytest.approx(losses[1], abs=0.005)


@OPTIONS
@pytest.mark.parametrize("factor", [-1.0, 0.0, 1.2])
def test_what_frozen_weights_pass_on_is_proven(alone, bert, option, monkeypatch, factor):
    honest = FloatProducts.backward

    def backward(self, *given):
        gx, gw = honest(self, *given)
        return None if gx is None else gx * factor, gw

    trainer = trainer_of(alone, bert, option)
    monkeypatch.setattr(FloatProducts, "backward", backward)
    with pytest.raises(LmctlError, match=rf"the input gradient of .* is -?{abs(factor):.2f} times"):
        prove(trainer)


@OPTIONS
def test_it_goes_on_to_the_bit_from_plain_tensors(alone, bert, option, tmp_path):
    """What is in the checkpoint counts, not what init_from gave."""
    kind = {"int8": torch.int8, "nf4": torch.uint8}[option.storage]

    def forget(trainer: Trainer) -> None:
        stored = [module for module in trainer.network.modules() if isinstance(module, StoredWeight)]
        assert len(stored) == 12
        for module in stored:
            module.tensors()[option.storage].zero_()

    undisturbed, _ = goes_on_to_the_bit(lambda: trainer_of(alone, bert, option), 3, tmp_path, forget)
    assert sum(value.dtype == kind for value in undisturbed.network.state_dict().values()) == 12


@OPTIONS
def test_export_has_the_adapters_merged_into_float_weights(alone, bert, option):
    trainer = trainer_of(alone, bert, option)
    list(trainer.steps())
    ids = torch.arange(5, 25)[None]
    trainer.network.eval()
    with torch.no_grad():
        ours = trainer.network.head("mlm", trainer.network.encode({"input_ids": ids}, torch.arange(20)))
        model = trainer.plan.precision.restore(trainer.network.pretrained()).eval()
        theirs = model(input_ids=ids).prediction_logits[0]
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not any("lora" in name or option.storage in name for name in model.state_dict())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert type(model.bert.encoder.layer[0].output.dense) is torch.nn.Linear


@OPTIONS
def test_conv1d_bases_merge_too(option, tmp_path: Path):
    torch.manual_seed(0)
    spec = Gpt2(2, 64, 2, max_positions=64, dropout=0.0, attention_dropout=0.0)
    spec.load(V, {"lm": V.size}).pretrained().save_pretrained(tmp_path)
    network = Pretrained(str(tmp_path), lora_rank=2).load(V, {"lm": V.size}).eval()
    option.convert(network, torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        ids = torch.arange(5, 25)[None]
        ours = network.head("lm", network.encode({"input_ids": ids}, torch.arange(20)))
        assert torch.allclose(ours, network.pretrained().eval()(input_ids=ids).logits[0], atol=1e-4)


def test_memory_is_what_the_tensors_take(alone, bert):
    sizes = {}
    for option in (Int8Lora(), Nf4Lora()):
        trainer = trainer_of(alone, bert, option)
        list(trainer.steps())
        sizes[option.storage] = bytes_per_parameter(trainer.learner, trainer.network, trainer.step.optimizer)
    assert 1.0 < sizes["nf4"]["weights"] < sizes["int8"]["weights"] < 2.6
    share = sum(p.numel() for p in trainer.learner.parameters() if p.requires_grad)
    share /= sum(p.numel() for p in trainer.network.parameters())
    for part in sizes.values():
        assert part["gradients"] == pytest.approx(4 * share, abs=1e-3)
        assert part["optimiser"] == pytest.approx(8 * share, abs=0.01)


@pytest.mark.parametrize("name", ["int8_lora", "nf4_lora"])
def test_it_is_refused_without_a_trained_model_or_adapters(bert, name):
    option = {"int8_lora": Int8Lora, "nf4_lora": Nf4Lora}[name]()
    with pytest.raises(ConfigError, match=f"{name} freezes a model that was trained before, and Bert starts from scr"):
        plan(precision=option)
    with pytest.raises(ConfigError, match=r"so adapters have to learn: model\.lora_rank=8"):
        plan(precision=option, model=Pretrained(bert.init_from))
    with pytest.raises(ConfigError, match=r"where torch\.compile does not look"):
        plan(precision=option, model=bert, compile=True)
    assert plan(precision=option, model=bert, objective=MaskedLMAndNextSentence())


def test_trained_int8_weights_may_have_adapters_as_well(alone, bert):
    trainer = trainer_of(alone, bert, Int8Weights())
    list(trainer.steps())
    assert not any("lora" in name for name in trainer.network.pretrained().state_dict())


@pytest.mark.parametrize("alpha", [4.0, 16.0])
def test_adapters_count_for_alpha_over_rank(bert, alpha):
    """Hu et al. 2022, section 4.1: W + (alpha / rank) B A, here with rank 4 and matrices that are known."""
    network = replace(bert, lora_alpha=alpha).load(V, {"mlm": V.size, "pair": 2})
    base = {name: p.clone() for name, p in network.named_parameters() if name.endswith("base_layer.weight")}
    random = torch.Generator().manual_seed(1)
    factors = {}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
                factors[name] = parameter.clone()
    merged = dict(Fp32().restore(network.pretrained()).named_parameters())
    assert len(base) >= 4
    for name, weight in base.items():
        stem = name.removesuffix("base_layer.weight")
        a, b = (next(v for key, v in factors.items() if key.startswith(f"{stem}lora_{letter}")) for letter in "AB")
        found = merged[stem.removeprefix("model.") + "weight"]
        torch.testing.assert_close(found - weight, alpha / 4 * b @ a, rtol=1e-4, atol=1e-6)
