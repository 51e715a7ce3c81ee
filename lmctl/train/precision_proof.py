"""Precision proof: a check, on the run's first batch, that low precision is really used and not too inexact.

Low-precision modes of several libraries were found to have no effect without a warning. So before the first step one
batch runs forward in the run's precision and in fp32: the number of low-precision products must be above zero, and the
logits must differ, by no more than a minimum signal-to-noise ratio allows. Weights stored in a low precision are
counted too, and compared with the float weights they were made from. Then products, gradients and update of every
linear layer are compared one by one (`precision_proof_layers.py`). After the first step at more than a hundredth of the
peak learning rate some weight must have changed.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lmctl.core.batch import Batch
from lmctl.core.errors import LmctlError
from lmctl.parallel.strategy import checksum
from lmctl.precision.counting import counting, storage
from lmctl.train.learner import Learner
from lmctl.train.precision_proof_layers import Finding, findings
from lmctl.train.step import StepReport
from lmctl.train.trainer import Trainer

HALF = {torch.bfloat16: "bf16", torch.float16: "fp16"}
ROWS = 8
"""Rows of the first batch that are used."""
LEARNT_FROM = 4
"""Of these, rows for the gradients: their activations take less memory than a step's. Never more than a micro-batch
has, and one only where activations do not fit into memory."""
SLOPE = 0.1
"""Maximum distance from 1 of the regression slope of a layer's product, gradient or update on that of float32. Correct
formats were within 0.025: fp8 0.015, int8 0.002, bf16 with Kahan summation 0.023."""


def prove(trainer: Trainer) -> dict[str, Any]:
    """Run the proof and return the dtype table with its results; raises if low precision has no effect, or is too
    inexact."""
    device, precision = trainer.processes.device, trainer.plan.precision
    table: dict[str, Any] = dict(precision.table(device))
    if trainer.plan.optim.state_bits == 8:
        table["optimiser"] = "8 bits, fp32 where a tensor has less than 4096 elements"
    task = next(iter(trainer.stream.streams))
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        reference, logits, products = logits_in_both_precisions(
            trainer.learner, trainer.stream.first(task, min(ROWS, trainer.micro.fitting or ROWS)).to(device)
        )
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
        _loud_enough(trainer, table["compute"], decibel)
        said.append(f"{number} {what} products in the first forward pass, {decibel:.0f} dB from fp32")
    if precision.storage is not None:
        kept = storage(trainer.network, precision.storage)
        if kept.elements == 0:
            raise LmctlError(f"precision: asked for weights stored as {precision.storage}, but there are none")
        _loud_enough(trainer, f"storage as {precision.storage}", kept.decibel)
        table["stored_weights"], table["storage_db"] = kept.elements, round(kept.decibel, 1)
        said.append(f"{kept.elements:,} weights stored as {precision.storage}, {kept.decibel:.0f} dB from float")
    with torch.random.fork_rng(devices=cuda):
        layers = _layers(trainer, task)
    if layers:
        table["layers"] = len({one.layer for one in layers})
        table["layer_slopes"] = [round(pick(one.slope for one in layers), 4) for pick in (min, max)]
        said.append(
            f"products, gradients and updates of {table['layers']} linear layers {table['layer_slopes'][0]:.3f} to "
            f"{table['layer_slopes'][1]:.3f} times those of fp32"
        )
    table["proof"] = "; ".join(said) or "no half-precision product in the first forward pass"
    return table


def logits_in_both_precisions(learner: Learner, batch: Batch) -> tuple[Tensor, Tensor, Counter[str]]:
    """Logits of the losses of `batch`, float32 [n], in fp32 and in the run's precision, with the number of
    low-precision products of the second pass by kind."""
    device, precision = learner.device, learner.precision
    learner.eval()
    # Eager mode: products in compiled code are not counted, and code compiled under a mode would not be reused.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        with precision.reference(device):
            reference = _logits(learner, batch)
        with counting() as products, precision.products(device), CountDtypes(products):
            logits = _logits(learner, batch)
    learner.train()
    return reference, logits, products


def _layers(trainer: Trainer, task: str) -> list[Finding]:
    """Findings of all linear layers; LmctlError if one of them fails. None without low precision, or for a resumed run,
    which was checked when it began."""
    plan, learner = trainer.plan, trainer.learner
    if trainer.state.window or (plan.precision.product is None and plan.precision.storage is None):
        return []
    micro = 1 if plan.gradient_checkpointing else trainer.micro.most
    batch = trainer.stream.first(task, min(LEARNT_FROM, max(1, micro))).to(trainer.processes.device)
    learner.eval()
    with torch.compiler.set_stance("force_eager"):
        found = list(findings(learner, batch, plan.optim, plan.seed))
    learner.train()
    for one in found:
        _good(one, plan.precision.least_decibel)
    return found


def _good(one: Finding, least: float) -> None:
    """LmctlError if a finding is not explained by rounding."""
    # Gradients have heavier tails than outputs, so scales fit them less well; updates are rounded stochastically.
    least = {"output": least, "update": -math.inf}.get(one.what, least / 2)
    if not abs(one.slope - 1) <= SLOPE:  # also true for NaN
        wrong = f"is {one.slope:.2f} times that of fp32 (rounding leaves {1 - SLOPE:g} to {1 + SLOPE:g})"
    elif one.decibel < least:
        wrong = f"differs too much from that of fp32 ({one.decibel:.0f} dB, below {least:.0f})"
    else:
        return
    raise LmctlError(f"precision: the {one.what} of {one.layer} {wrong}", NEAREST)


LEAST_LR = 0.01
"""Share of the peak learning rate below which, early in warm-up, an update may be too small to change any weight."""


class FirstStep:
    """Check that the first steps change the weights."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.before = checksum(trainer.learner) if trainer.state.step == 0 else None

    def complete(self, report: StepReport) -> bool:
        """Whether the check is complete: `report` is of the first step with a sufficient learning rate. LmctlError if
        there was a gradient then, and no weight has changed since the beginning."""
        if self.before is None:  # a resumed run
            return True
        if not report.taken or report.lr < LEAST_LR * self.trainer.plan.optim.lr:
            return False
        changed = self.trainer.processes.sum([float(checksum(self.trainer.learner) != self.before)])
        if float(report.grad_norm) > 0 and not any(changed):
            raise LmctlError(
                f"step {report.step} changed no weight, though the gradient's norm is {float(report.grad_norm):.3g}",
                "precision=fp32, or another optim=",
            )
        return True


NEAREST = "nearest: precision=bf16; or leave layers in float with precision.exclude, where there is such a key"
WORDS = {"bf16": "half-precision", "fp16": "half-precision"}


def _loud_enough(trainer: Trainer, what: str, decibel: float) -> None:
    """LmctlError if the signal-to-noise ratio is too low. A resumed run, checked when it began, is never ended here."""
    least = trainer.plan.precision.least_decibel
    if trainer.state.window == 0 and not decibel >= least:  # also true for NaN
        raise LmctlError(
            f"precision: {what} differs too much from fp32 ({decibel:.0f} dB, below {least:.0f})",
            NEAREST,
        )


def _logits(learner: Learner, batch: Batch) -> Tensor:
    first, *others = (logits.float().reshape(-1) for logits in learner.logits(batch.by_itself()).values())
    return torch.cat([first, *others]) if others else first  # torch copies a single one, too


class CountDtypes(TorchDispatchMode):
    """Torch dispatch mode below autocast that counts products by operand dtype: half precision, and float32 while TF32
    is allowed."""

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
