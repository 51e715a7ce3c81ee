"""LoRA over a frozen int8 model, with fp32 adapters (LLM.int8: Dettmers et al. 2022; LoRA: Hu et al. 2022). Inputs are
not quantised, so LLM.int8's outlier columns are not needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.precision.linear_layers import LinearLayers

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lmctl.plan import Plan
    from lmctl.precision.stored_linear import Codec


@dataclass(frozen=True)
class Int8Lora(LinearLayers):
    """Frozen int8 weights in every linear layer except heads, float products, fp32 adapters."""

    storage: ClassVar[str | None] = "int8"

    def refuse_run(self, plan: Plan) -> str | None:
        if plan.model.starts_from is None:
            return (
                f"{self.name} freezes a model that was trained before, and {type(plan.model).__name__} starts from "
                "scratch; give init_from=... model.lora_rank=8, or nearest: precision=int8_weights"
            )
        if not plan.model.lora_rank:
            return f"{self.name} freezes the model, so adapters have to learn: model.lora_rank=8"
        if plan.compile:
            return f"{self.name} keeps weights where torch.compile does not look for them; nearest: compile=false"
        return super().refuse_run(plan)

    def codec(self) -> Codec:
        """Storage format and products of the frozen weights."""
        from lmctl.precision.codecs import Int8Rows

        return Int8Rows(self.float_products, False)

    def convert(self, network: nn.Module, device: torch.device) -> list[str]:
        from lmctl.precision.layer_choice import choose
        from lmctl.precision.stored_linear import store_weight

        codec = self.codec()
        choice = choose(network, self.exclude, self.name)
        for module in choice.chosen.values():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
            store_weight(module, codec)
        return choice.say(f"{codec.format} weights, frozen")

    def table(self, device: torch.device) -> dict[str, str]:
        from lmctl.precision.autocast import dtype_table

        kept = {"int8": "int8 with an fp32 scale per output channel", "nf4": "nf4 with an fp32 scale per 64 weights"}
        roles = {
            "parameter": f"{kept[str(self.storage)]} in linear layers, frozen; fp32 elsewhere",
            "master": "none in frozen layers",
            "gradient": "fp32, adapters and heads only",
        }
        return dtype_table(self.float_products, roles=roles)
