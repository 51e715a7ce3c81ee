"""Pure bf16 training: weights in bf16 without an fp32 master copy.

bf16 has 8 bits of mantissa: with rounding to nearest, an update below 2^-8 of a weight is always lost. Stochastic
rounding preserves it in expectation (Zamirai et al. 2020, "Revisiting BFloat16 training"); Kahan summation keeps the
error in a second bf16 number. Updates are computed in fp32, one parameter at a time. Vectors (norms, biases) stay in
fp32: they are small, and a norm's weight near 1 would change in steps of 2^-8.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lmctl.optim.base import OptimSpec
from lmctl.precision.base import Precision, no_bf16, recurrent

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lmctl.plan import Plan


@dataclass(frozen=True)
class Bf16Pure(Precision):
    """bf16 matrices, fp32 vectors, bf16 products; `rounding`: how updates are rounded."""

    product: ClassVar[str | None] = "bf16"
    storage: ClassVar[str | None] = "bf16"

    rounding: str = "stochastic"
    force: bool = False

    def __post_init__(self) -> None:
        if self.rounding not in ("stochastic", "kahan", "nearest"):
            raise ValueError(f"rounding must be stochastic, kahan or nearest, got {self.rounding!r}")
        if self.rounding == "nearest" and not self.force:
            raise ValueError(
                "rounding must be stochastic or kahan: nearest loses every update below 2^-8 of a weight (a loss of "
                "3.84 instead of 3.07 was measured); precision.force=true insists"
            )

    def refuse(self, device: torch.device) -> str | None:
        return no_bf16(device)

    def refuse_run(self, plan: Plan) -> str | None:
        if not plan.model.linear_layers:
            return recurrent(type(plan.model).__name__)
        return None

    def convert(self, network: nn.Module, device: torch.device) -> list[str]:
        from lmctl.precision.bf16_store import to_bf16_matrices

        return to_bf16_matrices(network)

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        import torch

        from lmctl.precision.autocast import half_products

        return half_products(torch.bfloat16, device)

    def reference(self, device: torch.device) -> AbstractContextManager[Any]:
        from lmctl.precision.bf16_store import products_of_bf16_in_fp32

        return products_of_bf16_in_fp32(device)

    def optimiser(self, spec: OptimSpec, learner: nn.Module, device: torch.device, seed: int) -> torch.optim.Optimizer:
        from lmctl.precision.bf16_store import stores_of
        from lmctl.precision.stored_optimiser import StoredOptimizer

        return StoredOptimizer(spec.optimiser(learner, device), stores_of(learner, self.rounding), seed)

    def restore(self, model: nn.Module) -> nn.Module:
        import copy

        return copy.deepcopy(model).float()

    def table(self, device: torch.device) -> dict[str, str]:
        import torch

        from lmctl.precision.autocast import dtype_table

        master = {
            "stochastic": "none: stochastic rounding",
            "kahan": "none: the rounding error, in bf16 (Kahan)",
            "nearest": "none: rounding to nearest (updates are lost)",
        }[self.rounding]
        mixed = "bf16, vectors fp32"
        roles = {"parameter": mixed, "master": master, "gradient": mixed, "reduction": mixed}
        return dtype_table("bf16", device, torch.bfloat16, roles)
