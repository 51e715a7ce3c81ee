"""Cross-entropy of large logits, in all its forms, against torch's own in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmctl.core.errors import LmctlError
from lmctl.kernels import backend
from lmctl.kernels import cross_entropy as module
from lmctl.kernels.cross_entropy import IGNORED, LEAST, cross_entropy

FORMS = ["fused", "plain", "torch"]
"""The kernel, compiled and plain, and torch's exponential."""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    choose("auto")


def choose(form: str) -> None:
    backend.use_compiled(form != "plain")
    module.use("fused" if form == "plain" else form)


@settings(max_examples=30, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    rows=st.integers(1, 40),
    width=st.sampled_from([1, 2, 3, 1000, 4097, 30_000]),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    scale=st.sampled_from([0.0, 1.0, 80.0]),
    ignored=st.booleans(),
    seed=st.integers(0, 99),
)
def test_loss_and_gradient_are_those_of_torch(
    form: str, rows: int, width: int, smoothing: float, scale: float, ignored: bool, seed: int
):
    choose(form)
    torch.manual_seed(seed)
    logits = (torch.randn(width, rows) * scale).t().requires_grad_()
    labels = torch.randint(width, (rows,))
    if ignored:
        labels[::3] = IGNORED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST", 0)
        loss = cross_entropy(logits, labels, smoothing)
    (gradient,) = torch.autograd.grad(loss * 0.25, logits)
    exact = logits.detach().double().requires_grad_()
    wanted = F.cross_entropy(exact, labels, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(loss, wanted.float(), rtol=2e-6, atol=2e-5)
    (right,) = torch.autograd.grad(wanted * 0.25, exact)
    torch.testing.assert_close(gradient, right.float(), rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 9),
    width=st.integers(1, 300),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    smoothing=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 99),
)
def test_compiled_and_plain_kernels_give_the_same_bits(
    rows: int, width: int, dtype: torch.dtype, smoothing: float, seed: int
):
    torch.manual_seed(seed)
    logits, labels = torch.randn(rows, width).mul_(20).to(dtype).requires_grad_(), torch.randint(width, (rows,))
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST", 0)
        for form in ("fused", "plain"):
            choose(form)
            loss = cross_entropy(logits, labels, smoothing)
            found.append((loss, torch.autograd.grad(loss / 7, logits)[0]))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_do_not_pass_unseen(value: float):
    for form in FORMS:
        choose(form)
        logits = torch.randn(32, LEAST // 32)
        logits[3, 5] = value
        loss = cross_entropy(logits.requires_grad_(), torch.arange(32))
        loss.backward()
        assert not loss.isfinite(), form
        assert not logits.grad.isfinite().all(), form
        assert logits.grad[4:].isfinite().all(), form


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, form: str):
    """The gradient is rounded once, after it was scaled: in fp16 a small probability would be lost otherwise."""
    choose(form)
    logits = torch.randn(40, 5000).mul_(5).to(dtype).requires_grad_()
    labels, found = torch.randint(5000, (40,)), []
    for function in (cross_entropy, lambda x, y: F.cross_entropy(x.float(), y, reduction="sum")):
        loss = function(logits, labels)
        found.append((loss.detach(), torch.autograd.grad(loss * 1024, logits)[0]))
    (loss, gradient), (wanted, right) = found
    torch.testing.assert_close(loss, wanted)
    assert (gradient.dtype, loss.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(gradient, right, rtol=2 ** (-7 if dtype == torch.bfloat16 else -10), atol=1e-6)


def test_the_kernel_keeps_nothing_as_large_but_the_logits():
    choose("fused")
    logits, labels = torch.randn(32, LEAST // 32, requires_grad=True), torch.arange(32)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        cross_entropy(logits, labels)
    assert [tensor.data_ptr() for tensor in kept if tensor.numel() > 100] == [logits.data_ptr()]


def test_with_torchs_exponential_the_gradient_is_given_once():
    choose("torch")
    logits, labels = torch.randn(32, LEAST // 32, requires_grad=True), torch.arange(32)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor), lambda tensor: tensor):
        loss = cross_entropy(logits, labels)
    assert kept == []
    before = logits.detach().clone()
    loss.backward(retain_graph=True)
    assert torch.equal(logits, before)
    with pytest.raises(LmctlError, match="only once"):
        loss.backward()


def test_without_a_gradient_it_is_torchs_own():
    logits, labels = torch.randn(32, LEAST // 32), torch.arange(32)
    assert torch.equal(
        cross_entropy(logits, labels, 0.1), F.cross_entropy(logits, labels, None, reduction="sum", label_smoothing=0.1)
    )
