"""Common base of precisions that convert the linear layers of a network and leave the rest in float."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from lmctl.precision.base import Precision, no_bf16

if TYPE_CHECKING:
    import torch

    from lmctl.plan import Plan


@dataclass(frozen=True)
class LinearLayers(Precision):
    """`float_products`: dtype of all other products. `exclude`: patterns (`*`) of layer names that are not converted;
    None: output heads and adapters (`lmctl.precision.layer_choice.HEADS`)."""

    float_products: str = "fp32"
    exclude: Optional[list[str]] = None

    def __post_init__(self) -> None:
        if self.float_products not in ("fp32", "bf16"):
            raise ValueError(f"float_products must be fp32 or bf16, got {self.float_products!r}")

    @property
    def name(self) -> str:
        """Name of the option in the config."""
        return type(self).__module__.rsplit(".", 1)[-1]

    def refuse(self, device: torch.device) -> str | None:
        return no_bf16(device) if self.float_products == "bf16" else None

    def refuse_run(self, plan: Plan) -> str | None:
        if not plan.model.linear_layers:
            return (
                f"{self.name} works on linear layers, and {type(plan.model).__name__} has none but its head; "
                "nearest: precision=bf16"
            )
        return None

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        from lmctl.precision.autocast import products_in

        return products_in(self.float_products, device)

    def reference(self, device: torch.device) -> AbstractContextManager[Any]:
        from lmctl.precision.autocast import full_products
        from lmctl.precision.counting import as_reference

        full_products()
        return as_reference()


def check_scale(scale: str) -> None:
    """ValueError unless `scale` is a kind of int8 scale."""
    if scale not in ("float", "pow2"):
        raise ValueError(f"scale must be float or pow2 (a power of two: fixed point), got {scale!r}")
