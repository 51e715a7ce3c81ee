"""The self-proof: what is wrong with a layer's products, gradients or update is found before the first step, in every
low precision; and honest ones pass with room to spare."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from precisions import PRECISIONS
from small import plan, prepared
from small_tasks import small_task
from torch import Tensor, nn

from lmctl.core.errors import LmctlError
from lmctl.model.gpt2 import Gpt2
from lmctl.objective.clm import CausalLM
from lmctl.optim.adamw import AdamW
from lmctl.optim.sgd import Sgd
from lmctl.parallel.processes import Processes
from lmctl.precision import (
    arithmetic,
    codecs,
    emulation,
    fp8_arithmetic,
    half_linear,
    linear,
    stored_linear,
    stored_optimiser,
)
from lmctl.precision.half_linear import HalfProduct
from lmctl.precision.layer_choice import KINDS
from lmctl.train.precision_proof import SLOPE, FirstStep, prove
from lmctl.train.trainer import Trainer

LOW = [name for name in PRECISIONS if name != "fp32"]
GPT2: dict[str, Any] = {"model": Gpt2(2, 32, 2, 64), "objective": CausalLM()}


def trainer_of(alone: Processes, name: str, **changes: Any) -> Trainer:
    return Trainer(plan(precision=PRECISIONS[name], **changes), prepared(), alone)


@pytest.mark.parametrize("name", LOW)
@pytest.mark.parametrize("changes", [{}, GPT2, {"optim": Sgd(lr=1e-3, momentum=0.9, layer_decay=0.5)}])
def test_honest_formats_pass_with_room_to_spare_and_leave_no_trace(alone, name, changes):
    """What was promised is found; weights, buffers, gradients and random numbers are what they were, to the bit."""
    trainer, option = trainer_of(alone, name, **changes), PRECISIONS[name]
    state, random = copy.deepcopy(trainer.network.state_dict()), torch.get_rng_state()
    table = prove(trainer)
    assert table["layers"] >= 9
    assert max(abs(slope - 1) for slope in table["layer_slopes"]) < SLOPE / 3
    if option.product is not None:
        half = option.product in ("bf16", "fp16")
        assert table["low_products"][option.product] >= (8 if changes is GPT2 else 12)
        assert half == (table["half_products"] == table["low_products"][option.product])
        assert table["signal_to_noise_db"] > 20
        assert f"{'half-precision' if half else option.product} products in the first" in table["proof"]
    if option.storage is not None:
        assert table["stored_weights"] >= 16_384
        assert table["storage_db"] > 35
        assert f"weights stored as {option.storage}" in table["proof"]
    after = trainer.network.state_dict()
    assert state.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in state.items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in trainer.learner.parameters())
    assert trainer.network.training
    assert not any(module._forward_hooks for module in trainer.network.modules() if isinstance(module, KINDS))


def test_the_proof_of_fp32_counts_no_half_products(alone):
    table = prove(trainer_of(alone, "fp32"))
    assert table["half_products"] == 0
    assert table["signal_to_noise_db"] is None


class Tampered(torch.autograd.Function):
    """A product as it is, whose gradients come back times a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def tamper(monkeypatch: Any, name: str, factor: float) -> None:
    """The weight gradients of `name` times `factor`; nothing else changes."""
    if name in ("bf16", "fp16"):
        backward_half = HalfProduct.backward

        def tampered(ctx: Any, gradient: Tensor) -> Any:
            gx, gw, *rest = backward_half(ctx, gradient)
            return gx, None if gw is None else gw * factor, *rest

        monkeypatch.setattr(HalfProduct, "backward", staticmethod(tampered))
        return
    if name in ("bf16_pure", "bf16_kahan"):
        rounded = emulation.HalfProducts._round
        monkeypatch.setattr(emulation, "native", lambda dtype: False)
        monkeypatch.setattr(
            emulation.HalfProducts,
            "_round",
            lambda self, v: (
                Tampered.apply(rounded(self, v), factor) if isinstance(v, nn.Parameter) else rounded(self, v)
            ),
        )
        monkeypatch.setattr("lmctl.precision.autocast.native", lambda dtype: False)
        return
    honest = arithmetic.weight_gradient
    for place in (linear, codecs):
        monkeypatch.setattr(place, "weight_gradient", lambda *given: honest(*given) * factor)
    floats = codecs.FloatProducts.backward

    def backward(self: Any, *given: Any) -> Any:
        gx, gw = floats(self, *given)
        return gx, None if gw is None else gw * factor

    monkeypatch.setattr(codecs.FloatProducts, "backward", backward)


@pytest.mark.parametrize("name", LOW)
@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.8])
def test_weight_gradients_that_are_wrong_are_found(alone, monkeypatch, name, factor):
    trainer = trainer_of(alone, name)
    tamper(monkeypatch, name, factor)
    with pytest.raises(LmctlError, match=r"the weight gradient of model\.bert\..* times that of fp32") as caught:
        prove(trainer)
    assert float(str(caught.value).split(" times")[0].rsplit(" ", 1)[1]) == pytest.approx(factor, abs=0.03)


@pytest.mark.parametrize("name", LOW)
@pytest.mark.parametrize("factor", [1.2, 0.8])
def test_products_that_are_a_fifth_off_are_found(alone, monkeypatch, name, factor):
    trainer = trainer_of(alone, name, **GPT2)
    for kind in (arithmetic.Int8Arithmetic, fp8_arithmetic.Fp8Arithmetic):
        honest = kind.multiply
        monkeypatch.setattr(kind, "multiply", lambda self, *given, honest=honest: honest(self, *given) * factor)
    floats, half = codecs.FloatProducts.forward, emulation.HalfProducts.__torch_function__

    def scaled(self: Any, *given: Any) -> Any:
        found = floats(self, *given)
        return found._replace(output=found.output * factor)

    monkeypatch.setattr(codecs.FloatProducts, "forward", scaled)

    product = half_linear._product
    monkeypatch.setattr(half_linear, "_product", lambda *given: product(*given) * factor)

    def off(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = half(self, func, types, args, kwargs)
        return found * factor if func in emulation.PRODUCTS else found

    monkeypatch.setattr(emulation.HalfProducts, "__torch_function__", off)
    monkeypatch.setattr("lmctl.precision.autocast.native", lambda dtype: False)
    with pytest.raises(LmctlError, match=r"(times that of|too much from) (that of )?fp32"):
        prove(trainer)


def test_one_layer_of_many_is_enough(alone):
    """An input gradient that is lost in a single layer, of which the logits know nothing."""
    trainer = trainer_of(alone, "int8")
    name, layer = [(n, m) for n, m in trainer.network.named_modules() if isinstance(m, linear.LowLinear)][5]
    honest = layer.arithmetic

    class Half(arithmetic.Int8Arithmetic):
        def quantise_gradient(self, values: Tensor) -> Any:
            both = super().quantise_gradient(values)
            return both._replace(rows=both.rows._replace(scale=both.rows.scale / 2))

    layer.arithmetic = Half(honest.stochastic, honest.pow2)
    with pytest.raises(LmctlError, match=rf"the input gradient of {name} is 0\.50 times that of fp32"):
        prove(trainer)


STORED = ["int8_weights", "int8_weights_bf16", "int8_full", "int8_full_pow2", "bf16_pure", "bf16_kahan"]


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("where", ["store", "optimiser"])
@pytest.mark.parametrize("optim", [AdamW(), Sgd()], ids=["adamw", "sgd"])
def test_updates_that_are_never_written_are_found(alone, monkeypatch, name, where, optim):
    trainer = trainer_of(alone, name, optim=optim)
    if where == "store":
        monkeypatch.setattr(stored_linear.StoredWeight, "write", lambda *_: None)
        monkeypatch.setattr("lmctl.precision.bf16_store.ParameterStore.write", lambda *_: None)
    else:
        monkeypatch.setattr(stored_optimiser.StoredOptimizer, "step", lambda *_: None)
    with pytest.raises(LmctlError, match=r"the update of model\.bert\..* is 0\.00 times that of fp32"):
        prove(trainer)


@pytest.mark.parametrize("name", ["int8", "bf16", "fp8", "fp16"])
def test_an_optimiser_that_does_nothing_is_found(alone, monkeypatch, name):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: None)
    with pytest.raises(LmctlError, match=r"the update of model\.bert\..* is 0\.00 times that of fp32"):
        prove(trainer_of(alone, name))


@pytest.mark.parametrize("name", ["fp32", "int8_weights"])
def test_a_first_step_that_changes_nothing_ends_the_run(alone, monkeypatch, name):
    trainer = trainer_of(alone, name)
    FirstStep(trainer).complete(next(trainer.steps()))
    trainer = trainer_of(alone, name)
    first = FirstStep(trainer)
    monkeypatch.setattr(trainer.step.optimizer, "step", lambda *_: None)
    with pytest.raises(LmctlError, match="step 1 changed no weight, though the gradient's norm is"):
        first.complete(next(trainer.steps()))


@pytest.mark.parametrize("task", ["clm_stream", "class", "translate", "t5"])
def test_whatever_is_trained_is_looked_at(alone, task):
    trainer = Trainer(*small_task(task, dropout=0.1, precision=PRECISIONS["bf16"]), alone)
    carried = getattr(trainer.network, "carried", dict)()
    assert prove(trainer)["layers"] >= 1
    assert getattr(trainer.network, "carried", dict)().keys() == carried.keys()
