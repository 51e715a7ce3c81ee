"""Dropout from a counter: the same bits compiled and plain, one mask in both passes, and the right distribution."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lmctl.kernels import backend
from lmctl.kernels.counter import Key, halves
from lmctl.kernels.dropout import DTYPES, MASKED, STEPS, dropout

SIZES = st.one_of(st.sampled_from([0, 1, 511, 512, 513, 1023, 1024, 1025, 131_071, 200_001]), st.integers(0, 5000))
WORDS = st.integers(0, 2**32 - 1)
KEYS = st.builds(Key, WORDS, WORDS)


@pytest.fixture(autouse=True)
def _compiled() -> Iterator[None]:
    """numba is installed where tests run, and its kernel passes the self-check."""
    backend.use_compiled(True)
    assert MASKED.function() is not MASKED.plain, MASKED.fault
    yield
    backend.use_compiled(True)


def masked(compiled: bool, x: Tensor, key: Key, threshold: int) -> Tensor:
    """What one of the kinds makes of `x`, as the bits of its numbers."""
    backend.use_compiled(compiled)
    out = torch.full_like(x, 7)
    MASKED.function()(x, out, key, threshold, STEPS / (STEPS - threshold))
    return out.view(torch.int16 if x.element_size() == 2 else torch.int32)


@settings(max_examples=40, deadline=None)
@given(size=SIZES, key=KEYS, threshold=st.integers(1, STEPS - 1), dtype=st.sampled_from(DTYPES))
def test_compiled_and_plain_give_the_same_bits(size: int, key: Key, threshold: int, dtype: torch.dtype):
    x = torch.randn(size).mul_(100).to(dtype)
    assert torch.equal(masked(True, x, key, threshold), masked(False, x, key, threshold))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_not_hidden(dtype: torch.dtype):
    """As F.dropout, which multiplies: 0 times infinity is not a number."""
    x = torch.tensor([math.inf, -math.inf, math.nan] * 400).to(dtype)
    for compiled in (True, False):
        backend.use_compiled(compiled)
        assert not torch.isfinite(dropout(x, 0.5)).any()


@settings(max_examples=8, deadline=None)
@given(size=st.integers(1, 300_000), threads=st.integers(2, 7), key=KEYS)
def test_the_number_of_threads_changes_nothing(size: int, threads: int, key: Key):
    x, before = torch.randn(size), torch.get_num_threads()
    one = masked(True, x, key, 9000)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(masked(True, x, key, 9000), one)
        assert torch.equal(masked(False, x, key, 9000), one)
    finally:
        torch.set_num_threads(before)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 70), columns=st.integers(1, 70), p=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_the_mask_of_the_backward_pass_is_that_of_the_forward_pass(rows: int, columns: int, p: float, seed: int):
    """On a transposed input, whose elements count in the order of its rows; against autograd's product with a mask."""
    torch.manual_seed(seed)
    x = torch.rand(columns, rows).add_(0.5).t().requires_grad_()
    weights = torch.randn(rows, columns)
    y = dropout(x, p)
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    mask = (y.detach() != 0) * (STEPS / (STEPS - round(p * STEPS)))
    other = x.detach().clone().requires_grad_()
    product = other * mask
    assert torch.equal(y, product)
    assert torch.equal(gradient, torch.autograd.grad((product * weights).sum(), other)[0])


def test_the_second_derivative_is_that_of_a_product():
    x = torch.randn(3000, dtype=torch.float32).requires_grad_()
    y = dropout(x.square(), 0.3)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, torch.where(y == 0, 0.0, 2 / (1 - round(0.3 * STEPS) / STEPS)))


@settings(max_examples=5, deadline=None)
@given(p=st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.9]), key=KEYS)
def test_the_mean_is_kept_and_so_many_are_dropped(p: float, key: Key):
    """Within five standard deviations, on a million elements."""
    count, threshold = 1 << 20, round(p * STEPS)
    kept = masked(True, torch.ones(count), key, threshold).view(torch.float32)
    rate = threshold / STEPS
    spread = 5 * math.sqrt(rate * (1 - rate) / count)
    assert float((kept == 0).float().mean()) == pytest.approx(rate, abs=spread)
    assert float(kept.double().mean()) == pytest.approx(1.0, abs=spread / (1 - rate))
    assert kept.unique().tolist() == [0.0, pytest.approx(1 / (1 - rate))]


@settings(max_examples=5, deadline=None)
@given(one=KEYS, other=KEYS)
def test_masks_of_two_keys_and_of_neighbours_are_independent(one: Key, other: Key):
    """Correlations are within five standard deviations: of two streams, of a stream with itself one element, half a
    block and a block later."""
    count = 1 << 18
    first, second = (halves(count, key).float().sub_(32767.5) for key in (one, other))
    pairs = [(first[:-lag], first[lag:]) for lag in (1, 512, 1024)]
    if one != other:
        pairs.append((first, second))
    for a, b in pairs:
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 5 / math.sqrt(len(a))


def test_each_call_draws_another_mask_and_a_replayed_generator_the_same():
    x, state = torch.ones(5000), torch.get_rng_state()
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)


def test_a_recomputed_layer_drops_the_same():
    x = torch.randn(64, 64, requires_grad=True)
    state = torch.get_rng_state()
    (plain,) = torch.autograd.grad(dropout(x.tanh(), 0.4).square().sum(), x)
    torch.set_rng_state(state)
    again = checkpoint(lambda value: dropout(value.tanh(), 0.4), x, use_reentrant=False)
    torch.rand(3)  # what others draw before the layer is recomputed
    assert torch.equal(torch.autograd.grad(again.square().sum(), x)[0], plain)


def test_nothing_is_kept_for_the_backward_pass():
    kept: list[Tensor] = []
    x = torch.randn(4096, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor), lambda tensor: tensor):
        dropout(x, 0.1)
        assert kept == []
        F.dropout(x, 0.1)
        assert len(kept) == 1  # its mask


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False), (1.0, True)])
def test_where_nothing_is_drawn_it_is_torchs(p: float, training: bool):
    x, state = torch.randn(100), torch.get_rng_state()
    assert torch.equal(dropout(x, p, training), torch.zeros(100) if p == 1 else x)
    assert torch.equal(torch.get_rng_state(), state) or p == 1
    with pytest.raises(ValueError, match="between 0 and 1"):
        dropout(x, 1.5)


def test_other_numbers_and_devices_are_left_to_torch():
    assert dropout(torch.ones(50, dtype=torch.float64), 0.5).dtype == torch.float64
    assert dropout(torch.ones(50, device="meta"), 0.5).device.type == "meta"
