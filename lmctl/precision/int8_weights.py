"""int8 weight training: weights stored in int8 without a float copy, updates rounded stochastically.

As torchao's `int8_weight_only_quantized_training`, with a scale per output channel that follows the channel's largest
weight in every step. Unlike it, any optimiser works, and checkpoints hold plain tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.optim.base import OptimSpec
from lmctl.precision.linear_layers import LinearLayers, check_scale

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lmctl.plan import Plan
    from lmctl.precision.stored_linear import Codec


@dataclass(frozen=True)
class Int8Weights(LinearLayers):
    """int8 weights in every linear layer except heads; float products."""

    storage: ClassVar[str | None] = "int8"

    scale: str = "float"
    gradients: str = "fp32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(self.scale)
        if self.gradients not in ("fp32", "bf16"):
            raise ValueError(f"gradients must be fp32 or bf16, got {self.gradients!r}")

    def refuse_run(self, plan: Plan) -> str | None:
        if plan.compile:
            return (
                f"{self.name} keeps weights where torch.compile does not look for them; "
                "nearest: compile=false, or precision=int8"
            )
        return super().refuse_run(plan)

    def codec(self) -> Codec:
        """Storage format and products of the weights."""
        from lmctl.precision.codecs import Int8Rows

        return Int8Rows(self.float_products, self.scale == "pow2")

    def convert(self, network: nn.Module, device: torch.device) -> list[str]:
        import torch

        from lmctl.precision.layer_choice import choose
        from lmctl.precision.stored_linear import store_weight

        choice = choose(network, self.exclude, self.name)
        for module in choice.chosen.values():
            store_weight(module, self.codec(), torch.bfloat16 if self.gradients == "bf16" else torch.float32)
        return choice.say("int8 weights")

    def optimiser(self, spec: OptimSpec, learner: nn.Module, device: torch.device, seed: int) -> torch.optim.Optimizer:
        from lmctl.precision.stored_linear import LayerStore, StoredWeight
        from lmctl.precision.stored_optimiser import StoredOptimizer

        stores = [LayerStore(module) for module in learner.modules() if isinstance(module, StoredWeight)]
        return StoredOptimizer(spec.optimiser(learner, device), stores, seed)

    def restore(self, model: nn.Module) -> nn.Module:
        from lmctl.core.model_copies import restored_copy

        return restored_copy(model)

    def table(self, device: torch.device) -> dict[str, str]:
        from lmctl.precision.autocast import dtype_table

        return dtype_table(self.float_products, roles=self.roles())

    def roles(self) -> dict[str, str]:
        """Entries of the dtype table that differ from float32."""
        kind = "power of two" if self.scale == "pow2" else "fp32 scale"
        return {
            "parameter": f"int8 with a {kind} per output channel in linear layers, fp32 elsewhere",
            "master": "none in linear layers: stochastic rounding",
            "gradient": f"{self.gradients} in linear layers, fp32 elsewhere",
            "reduction": f"{self.gradients} in linear layers, fp32 elsewhere",
        }
