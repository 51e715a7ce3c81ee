"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019).

With `state_bits=8` both moments are stored in 8 bits, in blocks of 256 values (Dettmers et al. 2022, "8-bit optimizers
via block-wise quantization"), by bitsandbytes; those of tensors below 4096 elements stay float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from lmctl.core.bitsandbytes import bitsandbytes
from lmctl.core.errors import ConfigError
from lmctl.optim.base import OptimSpec, check_moments
from lmctl.optim.groups import parameter_groups

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class AdamW(OptimSpec):
    """AdamW with weight decay on matrices only (no biases, norms or other vectors), and layer-wise learning rate
    decay. Both may be cautious (`lmctl/optim/cautious.py`)."""

    adaptive: ClassVar[bool] = True

    lr: float = 1.5e-3
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1e-8
    layer_decay: float = 1.0
    cautious_updates: bool = False
    cautious_decay: bool = False
    state_bits: int = 32
    paged: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_moments(self.betas, self.eps)
        if self.state_bits not in (8, 32):
            raise ValueError(f"state_bits must be 32 or 8, got {self.state_bits}")
        if self.paged and self.state_bits != 8:
            raise ValueError("paged needs state_bits=8")

    @property
    def imports(self) -> tuple[str, ...]:
        return ("bitsandbytes",) if self.state_bits == 8 else ()

    def optimiser(self, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
        import torch

        from lmctl.optim.cautious import cautious

        groups = parameter_groups(network, self.weight_decay, self.layer_decay)
        betas = (self.betas[0], self.betas[1])
        if self.state_bits == 32:
            rule = cautious(torch.optim.AdamW, self.cautious_updates, self.cautious_decay)
            return rule(groups, lr=self.lr, betas=betas, eps=self.eps, fused=True)  # type: ignore[call-arg]
        if self.paged and device.type != "cuda":
            raise ConfigError("optim.paged=true: states are paged from a GPU, and there is none", "paged=false")
        rule = cautious(bitsandbytes().optim.AdamW, self.cautious_updates, self.cautious_decay)
        return rule(  # type: ignore[call-arg]
            groups, lr=self.lr, betas=betas, eps=self.eps, optim_bits=8, is_paged=self.paged
        )
