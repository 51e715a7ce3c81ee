"""Attention on CPUs against torch's own, and its two kinds of kernels against each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmctl.kernels import attention_tiles, backend
from lmctl.kernels.attention import attention


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    backend.use_compiled(True)


def random_spans(rows: int, queries: int, keys: int) -> Tensor:
    """Some of them empty."""
    ends = torch.randint(0, keys + 1, (2, rows, queries)).int()
    return torch.stack([ends.amin(0), ends.amax(0)], -1)


def mask_of(spans: Tensor, keys: int) -> Tensor:
    places = torch.arange(keys)
    return ((places >= spans[..., :1]) & (places < spans[..., 1:]))[:, None]


def inputs(rows: int, heads: int, queries: int, keys: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    """Query, key, value as projections leave them, [R, L, A, D] transposed."""
    shapes = [(rows, length, heads, width) for length in (queries, keys, keys)]
    return [torch.randn(shape).to(dtype).transpose(1, 2).requires_grad_() for shape in shapes]


def softmax(query: Tensor, key: Tensor, spans: Tensor, scale: float) -> Tensor:
    """Attention weights [R, A, Q, K]; of a query that sees nothing 0."""
    seen = mask_of(spans, key.shape[2])
    return ((query @ key.mT) * scale).masked_fill(~seen, -torch.inf).softmax(-1).masked_fill(~seen, 0.0)


def with_gradients(output: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    upstream = torch.linspace(-1, 1, output.numel()).view(output.shape).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, tensors, upstream)]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 2e-5), (torch.bfloat16, 6e-2)])
@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (40, 150), (300, 300)])
def test_it_is_softmax_over_the_keys_that_are_seen(
    compiled: bool, dtype: torch.dtype, near: float, queries: int, keys: int
):
    torch.manual_seed(queries)
    backend.use_compiled(compiled)
    tensors, spans = inputs(2, 3, queries, keys, 8, dtype), random_spans(2, queries, keys)
    found = with_gradients(attention(*tensors, spans, 0.3), tensors)
    query, key, value = (tensor.detach().float().requires_grad_() for tensor in tensors)
    expected = with_gradients((softmax(query, key, spans, 0.3) @ value).transpose(1, 2), [query, key, value])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, atol=near * float(other.abs().max()), rtol=0)


def test_all_rows_may_have_the_same_spans():
    tensors = inputs(3, 2, 50, 50, 8, torch.float32)
    places = torch.arange(50, dtype=torch.int32)
    causal = torch.stack([torch.zeros_like(places), places + 1], -1)[None]
    expected = F.scaled_dot_product_attention(*tensors, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(attention(*tensors, causal, 8**-0.5), expected)


@pytest.mark.parametrize("compiled", [True, False])
def test_dropped_weights_are_0_and_the_others_scaled(compiled: bool):
    """With the identity for values the output is the weights, so that the mask can be read off it."""
    backend.use_compiled(compiled)
    (query, key, value), spans = inputs(2, 2, 130, 70, 70, torch.float32), random_spans(2, 130, 70)
    weights = softmax(query, key, spans, 0.05)
    torch.manual_seed(3)
    dropped = attention(query, key, torch.eye(70).expand(2, 2, 70, 70), spans, 0.05, 0.25).transpose(1, 2)
    kept = dropped != 0
    seen = mask_of(spans, 70).expand_as(kept)
    assert abs(float(kept[seen].float().mean()) - 0.75) < 0.015
    torch.testing.assert_close(dropped, torch.where(kept, weights / 0.75, 0.0))

    torch.manual_seed(3)
    found = with_gradients(attention(query, key, value, spans, 0.05, 0.25), [query, key, value])
    expected = ((weights * kept / 0.75) @ value).transpose(1, 2)
    for one, other in zip(found, with_gradients(expected, [query, key, value]), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


@given(
    shape=st.tuples(*(st.integers(1, most) for most in (3, 3, 70, 90))),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    dropout=st.sampled_from([0.0, 0.1, 0.9]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_compiled_and_plain_kernels_give_the_same_bits(
    shape: tuple[int, int, int, int], dtype: torch.dtype, dropout: float, seed: int
):
    rows, heads, queries, keys = shape
    torch.manual_seed(seed)
    tensors, spans = inputs(rows, heads, queries, keys, 4, dtype), random_spans(rows, queries, keys)
    found = []
    for compiled in (True, False):
        backend.use_compiled(compiled)
        torch.manual_seed(seed)
        found.append(with_gradients(attention(*tensors, spans, 2.0, dropout), tensors))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_what_is_dropped_does_not_depend_on_tiles_and_threads(monkeypatch: pytest.MonkeyPatch):
    tensors, spans = inputs(4, 3, 90, 90, 90, torch.float32), random_spans(4, 90, 90)
    eye, results, threads = torch.eye(90).expand(4, 3, 90, 90), [], torch.get_num_threads()
    try:
        for queries, scores, many in ((128, 1 << 18, 1), (16, 1 << 8, 1), (128, 1 << 18, 2)):
            monkeypatch.setattr(attention_tiles, "QUERIES", queries)
            monkeypatch.setattr(attention_tiles, "SCORES", scores)
            torch.set_num_threads(many)
            torch.manual_seed(1)
            results.append(attention(*tensors[:2], eye, spans, 0.1, 0.5))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert torch.equal(results[0] != 0, other != 0)
        torch.testing.assert_close(results[0], other)


def test_the_generator_of_the_cpu_decides_what_is_dropped():
    tensors, spans = inputs(1, 2, 20, 20, 8, torch.float32), torch.tensor([0, 20], dtype=torch.int32).expand(1, 20, 2)
    state = torch.get_rng_state()
    first, second = (attention(*tensors, spans, 0.3, 0.5) for _ in range(2))
    torch.set_rng_state(state)
    assert torch.equal(first, attention(*tensors, spans, 0.3, 0.5))
    assert not torch.equal(first, second)


def test_numbers_that_are_not_finite_stay_so():
    query, key, value = inputs(1, 1, 3, 40, 8, torch.float32)
    with torch.no_grad():
        query[0, 0, 1, 0] = torch.nan
    spans = torch.tensor([0, 40], dtype=torch.int32).expand(1, 3, 2)
    for compiled in (True, False):
        backend.use_compiled(compiled)
        assert attention(query, key, value, spans, 0.3).isnan().all(-1).flatten().tolist() == [False, True, False]
