"""The key `model.attention`: which function computes attention, and what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lmctl.core.component import MAY_CHANGE
from lmctl.core.errors import ConfigError
from lmctl.model.base import ModelSpec

if TYPE_CHECKING:
    import torch

    from lmctl.plan import Plan

CHOICES = ("auto", "sdpa", "tiled", "flex_attention", "flash_attention_2")
ON_GPUS = CHOICES[3:]


@dataclass(frozen=True)
class Attending(ModelSpec):
    """A model whose layers look their attention function up by name, in transformers' attention interface."""

    attention: str = field(default="auto", kw_only=True, metadata=MAY_CHANGE)
    """`sdpa`: torch's; `tiled`: the same, but on a CPU `lmctl.kernels.attention` for what it computes faster; `auto`:
    tiled where its kernels are compiled, otherwise sdpa; others: transformers' names."""

    def __post_init__(self) -> None:
        if self.attention not in CHOICES:
            raise ValueError(f"attention must be one of {', '.join(CHOICES)}, got {self.attention!r}")

    def settled(self, kernels: bool) -> ModelSpec:
        return replace(self, attention="tiled" if kernels else "sdpa") if self.attention == "auto" else self

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        yield from super().check(plan)
        if self.attention == "flash_attention_2" and plan.precision.product not in ("bf16", "fp16"):
            yield ConfigError(
                "model.attention=flash_attention_2 computes in half precision only",
                "precision=bf16, or model.attention=auto",
            )

    def refuse(self, device: torch.device) -> str | None:
        if self.attention not in ON_GPUS:
            return None
        from transformers.utils import is_flash_attn_2_available

        if device.type != "cuda":
            return f"attention={self.attention} trains on GPUs only; nearest: model.attention=auto"
        if self.attention == "flash_attention_2" and not is_flash_attn_2_available():
            return "attention=flash_attention_2 needs the package flash-attn (2.3.3 or newer), which is not installed"
        return None
