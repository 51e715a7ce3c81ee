"""bf16 and fp16 are really computed, on a CPU too; scaling skips, halves, grows; nothing non-finite gets through."""

from __future__ import annotations

import pytest
import torch
from compared import relative
from small import plan, poison, prepared, weights

from lmctl.config.schema import Budget
from lmctl.core.errors import Diverged
from lmctl.optim.sgd import Sgd
from lmctl.precision.bf16 import Bf16
from lmctl.precision.emulation import HalfProducts
from lmctl.precision.fp16 import Fp16
from lmctl.precision.fp32 import Fp32
from lmctl.train.trainer import Trainer

HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALF)
def test_emulated_products_are_native_products(dtype):
    """Rounded operands, fp32 accumulation, rounded result: forward and both gradients as torch's own kernels."""
    torch.manual_seed(0)
    x, w, b = (torch.randn(*shape, requires_grad=True) for shape in ((24, 40), (16, 40), (16,)))
    upstream = torch.randn(24, 16)

    def run(context):
        for tensor in (x, w, b):
            tensor.grad = None
        with context:
            y = torch.nn.functional.linear(x, w, b)
        y.float().backward(upstream)
        return y, x.grad, w.grad, b.grad

    ours = run(HalfProducts(dtype))
    native = run(torch.autocast("cpu", dtype=dtype))
    assert ours[0].dtype == native[0].dtype == dtype
    exact = run(torch.autocast("cpu", enabled=False))
    for mine, theirs, full in zip(ours, native, exact, strict=True):
        assert relative(mine, theirs) < 0.5 * relative(theirs, full) + 1e-7
        assert relative(mine, full) > 1e-5  # it did round


@pytest.mark.parametrize("clip_norm", [0.1, None])
def test_the_loss_scale_does_not_reach_what_is_clipped(alone, clip_norm):
    """By SGD, which a gradient of another size moves further: Adam would divide the size out."""
    changes = {"optim": Sgd(lr=0.1), "clip_norm": clip_norm, "budget": Budget(steps=20)}
    runs = [Trainer(plan(precision=p, **changes), prepared(), alone) for p in (Fp32(), Fp16(initial_scale=4096.0))]
    start = [p.detach().clone() for p in runs[0].network.parameters()]
    norms = [[float(report.grad_norm) for report in run.steps()] for run in runs]
    assert clip_norm is None or min(norms[0]) > 2 * clip_norm
    assert norms[1] == pytest.approx(norms[0], rel=0.02)
    moves = [[p.detach() - q for p, q in zip(run.network.parameters(), start, strict=True)] for run in runs]
    one, other = (torch.cat([move.flatten() for move in moved]) for moved in moves)
    assert (one - other).norm() < 0.02 * one.norm()


def test_fp16_overflow_leaves_the_weights_alone_and_the_schedule_waits(alone):
    trainer = Trainer(plan(precision=Fp16(initial_scale=1024.0, growth_interval=2)), prepared(), alone)
    poison(trainer, float("inf"), 2)
    scales, lrs, taken, before = [], [], [], weights(trainer)
    for report in trainer.steps():
        assert torch.equal(weights(trainer), before) != report.taken
        before = weights(trainer)
        scales.append(trainer.step.scaler.value)
        lrs.append(report.lr)
        taken.append(report.taken)
    assert taken == [True, False, True, True, True, True]
    assert trainer.state.step == 5
    assert trainer.state.skipped == 1
    assert scales == [1024.0, 512.0, 512.0, 1024.0, 1024.0, 2048.0]
    assert lrs[1] == lrs[2]


def test_a_collapsing_scale_ends_the_run_naming_the_tensor(alone):
    trainer = Trainer(plan(precision=Fp16(initial_scale=2.0)), prepared(), alone)
    poison(trainer, float("inf"))
    with pytest.raises(Diverged, match=r"diverged at step 1: the gradient of model\..* is not finite \(the loss scale"):
        list(trainer.steps())


@pytest.mark.parametrize("precision", [Fp32(), Bf16()], ids=["fp32", "bf16"])
def test_nan_never_reaches_the_weights(alone, precision):
    trainer = Trainer(plan(precision=precision), prepared(), alone)
    poison(trainer, float("nan"), 3)
    with pytest.raises(Diverged, match="diverged at step 3: the gradient of model"):
        list(trainer.steps())
    assert all(torch.isfinite(p).all() for p in trainer.network.parameters())
