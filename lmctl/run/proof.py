"""The self-proof of a precision on the run's first batch.

Several libraries' low-precision modes were seen to do nothing without saying so. So before the first step one
batch is run forward in the run's precision and in fp32: the low-precision products are counted (more than none),
the logits must differ, and not by more than a stated signal-to-noise ratio allows. Where weights are stored in a
low precision they are counted too, and compared with the float weights they were made from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lmctl.core.batch import Batch
from lmctl.core.errors import LmctlError
from lmctl.precision.counting import counting, storage
from lmctl.run.learner import Learner
from lmctl.run.reading import Watched
from lmctl.run.runner import Runner

HALF = {torch.bfloat16: "bf16", torch.float16: "fp16"}
ROWS = 8
"""Rows of the first batch that are enough to tell."""


def prove(runner: Runner) -> dict[str, Any]:
    """The dtype table of the run with its proof; raises if a low precision does nothing, or too much."""
    device, precision = runner.processes.device, runner.plan.precision
    table: dict[str, Any] = dict(precision.table(device))
    if getattr(runner.plan.optim, "state_bits", 32) == 8:
        table["optimiser"] = "8 bits, fp32 where a tensor has less than 4096 elements"
    state = torch.get_rng_state()
    batch = runner.stream.first(next(iter(runner.stream.streams)), ROWS).to(device)
    reference, logits, products = both_ways(runner.learner, batch)
    torch.set_rng_state(state)
    noise = float((logits - reference).norm() / reference.norm())
    decibel = float("inf") if noise == 0 else -20 * float(torch.log10(torch.tensor(noise)))
    table["half_products"] = products["bf16"] + products["fp16"]
    table["low_products"] = dict(products)
    table["signal_to_noise_db"] = None if noise == 0 else round(decibel, 1)
    said = []
    if precision.product is not None:
        number, what = products[precision.product], WORDS.get(precision.product, precision.product)
        if number == 0 or noise == 0:
            raise LmctlError(f"precision: asked for {table['compute']}, but the first batch was computed in fp32")
        _loud_enough(runner, table["compute"], decibel)
        said.append(f"{number} {what} products in the first forward pass, {decibel:.0f} dB from fp32")
    if precision.storage is not None:
        kept = storage(runner.network, precision.storage)
        if kept.elements == 0:
            raise LmctlError(f"precision: asked for weights stored as {precision.storage}, but there are none")
        _loud_enough(runner, f"storage as {precision.storage}", kept.decibel)
        table["stored_weights"], table["storage_db"] = kept.elements, round(kept.decibel, 1)
        said.append(f"{kept.elements:,} weights stored as {precision.storage}, {kept.decibel:.0f} dB from float")
    table["proof"] = "; ".join(said) or "no half-precision product in the first forward pass"
    return table


def both_ways(learner: Learner, batch: Batch) -> tuple[Tensor, Tensor, Counter[str]]:
    """All logits that the loss of `batch` asks for, float32 [n], in fp32 and in the run's precision, and the products
    of the second pass by kind."""
    device, precision = learner.device, learner.precision
    learner.eval()
    # Compiled code would neither be counted nor, once a mode has watched it, be used in training.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        with precision.reference(device):
            reference = _logits(learner, batch)
        with counting() as products, precision.products(device), CountDtypes(products):
            logits = _logits(learner, batch)
    learner.train()
    return reference, logits, products


WORDS = {"bf16": "half-precision", "fp16": "half-precision"}


def _loud_enough(runner: Runner, what: str, decibel: float) -> None:
    """A run that goes on was found good when it began, and must not be lost to what its weights have become."""
    least = runner.plan.precision.least_decibel
    if runner.state.window == 0 and not decibel >= least:  # also if it is not a number
        raise LmctlError(
            f"precision: {what} differs too much from fp32 ({decibel:.0f} dB, below {least:.0f})",
            "nearest: precision=bf16; or leave layers in float with precision.exclude, where there is such a key",
        )


def _logits(learner: Learner, batch: Batch) -> Tensor:
    inputs = {name: value for name, value in batch.inputs.items() if name not in ("track", "fresh")}
    watched = Watched(learner.network)  # type: ignore[arg-type]
    objective = learner.objectives[batch.task]
    objective.terms(watched, replace(batch, inputs=inputs))  # type: ignore[arg-type]  # encodes and heads, no more
    return torch.cat([logits.float().reshape(-1) for logits in watched.logits])


class CountDtypes(TorchDispatchMode):
    """Counts, below autocast, the products that show by themselves what they are: those of operands in half
    precision, and those of float32 operands while torch is free to use TF32."""

    PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear")

    def __init__(self, counter: Counter[str]) -> None:
        super().__init__()
        self.counter = counter
        self.tf32 = torch.get_float32_matmul_precision() != "highest"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in self.PRODUCTS:
            operands = [a for a in args if isinstance(a, Tensor)]
            half = next((HALF[a.dtype] for a in operands if a.dtype in HALF), None)
            if half is not None:
                self.counter[half] += 1
            elif self.tf32 and operands[0].is_cuda:
                self.counter["tf32"] += 1
        return func(*args, **(kwargs or {}))
