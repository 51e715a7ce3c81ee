"""Rotary positions in one pass: multiplication by e^(i angle), transformers' numbers, the same bits in both kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.cohere import modeling_cohere
from transformers.models.llama import modeling_llama
from transformers.models.modernbert import modeling_modernbert
from transformers.models.qwen2 import modeling_qwen2

from lmctl.cost.fake_tensors import fake_tensor_mode
from lmctl.kernels import backend
from lmctl.kernels.rotary import DTYPES, ROTATED, rotate
from lmctl.model import fused_rotary
from lmctl.model.fused_rotary import FusedRotary, fuse_rotary


@pytest.fixture(autouse=True)
def _compiled() -> Iterator[None]:
    """numba is installed where tests run, and its kernel passes the self-check."""
    threads = torch.get_num_threads()
    backend.use_compiled(True)
    assert ROTATED.function() is not ROTATED.plain, ROTATED.fault
    yield
    backend.use_compiled(True)
    torch.set_num_threads(threads)


def transformers_own(code: ModuleType) -> Callable[..., Any]:
    """The function of a module of transformers, whether it was replaced before or not."""
    function = vars(code)["apply_rotary_pos_emb"]
    return function.original if isinstance(function, FusedRotary) else function


def angles_of(rows: int, length: int, width: int) -> tuple[Tensor, Tensor]:
    """As models make them: the same for both halves."""
    angles = torch.rand(rows, length, width // 2).mul_(6).repeat(1, 1, 2)
    return angles.cos(), angles.sin()


def projected(dtype: torch.dtype, shared: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What layers project, [R, L, 3, A, D], with queries and keys in it, [R, A, L, D]."""
    whole = torch.randn(2, 9, 3, 4, 20).to(dtype).requires_grad_()
    q, k, _ = whole.unbind(2)
    return whole, q.transpose(1, 2), (k if not shared else k[:, :, :1]).transpose(1, 2)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(1, most) for most in (4, 40, 5, 40))),
    own=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    threads=st.integers(1, 4),
)
def test_compiled_and_plain_give_the_same_bits(sizes: tuple[int, ...], own: bool, dtype: torch.dtype, threads: int):
    rows, length, heads, half = sizes
    x = torch.randn(rows, length, 3, heads + 1, 2 * half).mul_(100).to(dtype)[:, :, 1, 1:]
    cos, sin = angles_of(rows if own else 1, length, 2 * half)
    torch.set_num_threads(threads)
    found = []
    for compiled in (True, False):
        backend.use_compiled(compiled)
        found.append(rotate(x, cos, sin))
    backend.use_compiled(True)
    assert torch.equal(*found)


def test_work_is_shared_out_to_threads_without_changing_a_bit():
    x, (cos, sin) = torch.randn(16, 128, 4, 64), angles_of(16, 128, 64)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(rotate(x, cos, sin))
    assert torch.equal(*found)


def test_it_is_a_product_of_complex_numbers():
    """Su et al. 2021, section 3.2.1: a pair is multiplied by e^(i angle); the gradient, by e^(-i angle)."""
    x, angles = torch.randn(3, 7, 2, 10, requires_grad=True), torch.rand(3, 7, 5) * 6
    twice = angles.repeat(1, 1, 2)
    turned = rotate(x, twice.cos(), twice.sin())
    turn = torch.polar(torch.ones_like(angles), angles).unsqueeze(2)
    assert torch.allclose(_complex(turned.detach()), _complex(x.detach()) * turn, atol=1e-6)
    upstream = torch.randn_like(turned)
    (gradient,) = torch.autograd.grad(turned, x, upstream)
    assert torch.allclose(_complex(gradient), _complex(upstream) * turn.conj(), atol=1e-6)


def _complex(pairs: Tensor) -> Tensor:
    return torch.complex(*pairs.chunk(2, dim=-1))


def test_angles_of_the_two_halves_may_differ():
    """Its gradient is that of the formula, whatever the angles."""
    x, cos, sin = torch.randn(2, 3, 2, 6, requires_grad=True), torch.randn(1, 3, 6), torch.randn(1, 3, 6)
    first, second = x.chunk(2, dim=-1)
    expected = x * cos[:, :, None] + torch.cat([-second, first], dim=-1) * sin[:, :, None]
    turned, upstream = rotate(x, cos, sin), torch.randn_like(x)
    assert torch.equal(turned, expected)
    assert torch.equal(*(torch.autograd.grad(y, x, upstream)[0] for y in (turned, expected)))


@pytest.mark.parametrize("shared", [False, True], ids=["as many keys", "shared keys"])
@pytest.mark.parametrize("code", [modeling_modernbert, modeling_llama, modeling_qwen2])
def test_numbers_and_gradients_are_those_of_transformers(code: ModuleType, shared: bool):
    original = transformers_own(code)
    whole, q, k = projected(torch.float32, shared)
    angles = angles_of(2, 9, 20)
    found = []
    for function in (FusedRotary(original), original):
        results = function(q, k, *angles)
        loss = sum(result.pow(2).mul(torch.arange(20)).sum() for result in results)
        found.append((*results, *torch.autograd.grad(loss, whole)))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize("of_angles", DTYPES)
@pytest.mark.parametrize("code", [modeling_modernbert, modeling_llama])
def test_in_half_precision_too(code: ModuleType, of_angles: torch.dtype):
    """Llama's function leaves float32, which autocast would cast for the product that reads it; with angles in bfloat16
    it rounds after each operation, and is called itself. Gradients are nearer to exact ones."""
    original = transformers_own(code)
    whole, q, k = projected(torch.bfloat16, shared=False)
    cos, sin = (angles.to(of_angles) for angles in angles_of(1, 9, 20))
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = FusedRotary(original)(q, k, cos, sin), original(q, k, cos, sin)
    exact = original(q.double(), k.double(), cos.double(), sin.double())
    upstream = torch.randn_like(ours[0])
    for one, other, right in zip(ours, theirs, exact, strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, other.bfloat16())
        found = [torch.autograd.grad(y, whole, upstream.to(y.dtype), retain_graph=True)[0] for y in (one, other, right)]
        off, theirs_off = ((gradient.double() - found[2].double()).abs().sum() for gradient in found[:2])
        assert off <= theirs_off


def test_what_the_kernel_does_not_know_is_left_to_transformers(monkeypatch: pytest.MonkeyPatch):
    """A bfloat16 tensor of Llama's outside autocast becomes float32 there; float64 and half the width stay theirs."""
    monkeypatch.setattr(fused_rotary, "rotate", _never)
    fused = FusedRotary(original := transformers_own(modeling_llama))
    cos, sin = angles_of(1, 9, 20)
    for dtype in (torch.bfloat16, torch.float64):
        _, q, k = projected(dtype, shared=False)
        for one, other in zip(fused(q, k, cos, sin), original(q, k, cos, sin), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


def test_queries_without_rows_are_left_to_transformers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fused_rotary, "rotate", _never)
    original = transformers_own(modeling_llama)
    q, (cos, sin) = torch.randn(4, 9, 20), angles_of(1, 9, 20)
    assert torch.equal(FusedRotary(original)(q, q, cos, sin)[0], original(q, q, cos, sin)[0])


def _never(*_: Any) -> Tensor:
    raise AssertionError("called")


def test_only_functions_that_do_the_same_are_replaced(monkeypatch: pytest.MonkeyPatch):
    """Cohere's rotates number 2i and number 2i + 1."""
    kept, replaced = transformers_own(modeling_cohere), transformers_own(modeling_llama)
    for code, function in ((modeling_cohere, kept), (modeling_llama, replaced)):
        monkeypatch.setitem(vars(code), "apply_rotary_pos_emb", function)
    config: dict[str, Any] = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**config, intermediate_size=8))
    fuse_rotary(model)
    assert isinstance(first := vars(modeling_llama)["apply_rotary_pos_emb"], FusedRotary)
    fuse_rotary(model)
    assert vars(modeling_llama)["apply_rotary_pos_emb"] is first
    fuse_rotary(modeling_cohere.CohereForCausalLM(modeling_cohere.CohereConfig(**config, intermediate_size=8)))
    assert vars(modeling_cohere)["apply_rotary_pos_emb"] is kept
    monkeypatch.setitem(vars(modeling_llama), "apply_rotary_pos_emb", replaced)
    for without_data in (torch.device("meta"), fake_tensor_mode()):
        with without_data:
            fuse_rotary(LlamaForCausalLM(LlamaConfig(**config, intermediate_size=8)))
        assert isinstance(vars(modeling_llama)["apply_rotary_pos_emb"], FusedRotary)
        monkeypatch.setitem(vars(modeling_llama), "apply_rotary_pos_emb", replaced)
    fuse_rotary(model)
    called: list[Tensor] = []
    monkeypatch.setattr(fused_rotary, "rotate", lambda x, cos, sin: called.append(x) or rotate(x, cos, sin))
    words = torch.arange(6).view(2, 3)
    with torch.no_grad():
        ours = model(words).logits
        monkeypatch.setitem(vars(modeling_llama), "apply_rotary_pos_emb", replaced)
        assert torch.equal(ours, model(words).logits)
    assert len(called) == 2
