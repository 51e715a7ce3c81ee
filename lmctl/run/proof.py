"""The self-proof of a precision on the run's first batch.

Several libraries' low-precision modes were seen to do nothing without saying so. So before the first step one
batch is run forward in the run's precision and in fp32: the low-precision products are counted (more than none),
the logits must differ, and not by more than a stated signal-to-noise ratio allows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lmctl.core.errors import LmctlError
from lmctl.core.types import Batch
from lmctl.run.learner import Watched
from lmctl.run.runner import Runner

LEAST_DECIBEL = 20.0
HALF = (torch.bfloat16, torch.float16)
ROWS = 8
"""Rows of the first batch that are enough to tell."""


def prove(runner: Runner) -> dict[str, Any]:
    """The dtype table of the run with its proof; raises if a low precision does nothing, or too much."""
    device, precision = runner.processes.device, runner.plan.precision
    table: dict[str, Any] = dict(precision.table(device))
    state = torch.get_rng_state()
    batch = runner.stream.first(next(iter(runner.stream.streams)), ROWS).to(device)
    runner.learner.eval()
    with torch.no_grad():
        reference = _logits(runner, batch)
        with precision.products(device) as mode, CountHalf() as counted:
            logits = _logits(runner, batch)
    runner.learner.train()
    torch.set_rng_state(state)
    products = counted.count + (getattr(mode, "count", 0) or 0)
    noise = (logits - reference).norm() / reference.norm()
    decibel = float("inf") if noise == 0 else -20 * float(torch.log10(noise))
    wanted = not table["compute"].startswith("fp32")
    if wanted and (products == 0 or noise == 0):
        raise LmctlError(f"precision: asked for {table['compute']}, but the first batch was computed in fp32")
    if wanted and not decibel >= LEAST_DECIBEL:  # also if it is not a number
        raise LmctlError(f"precision: {table['compute']} differs too much from fp32 ({decibel:.0f} dB)")
    table["half_products"] = products
    table["signal_to_noise_db"] = None if noise == 0 else round(decibel, 1)
    table["proof"] = (
        f"{products} half-precision products in the first forward pass, {decibel:.0f} dB from fp32"
        if wanted
        else "no half-precision product in the first forward pass"
    )
    return table


def _logits(runner: Runner, batch: Batch) -> Tensor:
    """All logits that the loss of `batch` asks for, float32 [n]."""
    inputs = {name: value for name, value in batch.inputs.items() if name not in ("track", "fresh")}
    watched = Watched(runner.network)
    objective = runner.learner.objectives[batch.task]
    objective.terms(watched, replace(batch, inputs=inputs))  # type: ignore[arg-type]  # encodes and heads, no more
    return torch.cat([logits.float().reshape(-1) for logits in watched.logits])


class CountHalf(TorchDispatchMode):
    """Counts matrix products whose operands really are half precision, below autocast."""

    PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in self.PRODUCTS and any(isinstance(a, Tensor) and a.dtype in HALF for a in args):
            self.count += 1
        return func(*args, **(kwargs or {}))
