"""Top-k sparsification, quantisation and error feedback: one component behind fp16, bf16, int8, onebit, topk,
topk_int8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lmctl.compression.base import not_in_shards
from lmctl.compression.option import Option
from lmctl.compression.quantise import Fp32, Quantiser
from lmctl.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from lmctl.compression.error_feedback import ErrorFeedback
    from lmctl.compression.exchange import Method
    from lmctl.compression.gradient_layout import GradientLayout
    from lmctl.compression.reduce_scatter import ShardCompression
    from lmctl.compression.wire import Wire
    from lmctl.optim.base import OptimSpec
    from lmctl.plan import Plan

AGGRESSIVE = 0.1
"""Densities up to this hurt adaptive optimisers."""


@dataclass(frozen=True, kw_only=True)
class Compressor(Option):
    """The stages of compression in their order, each with its settings."""

    density: float = 1.0
    """Top-k: the share of a tensor's values that is sent, those of largest magnitude; 1: all, without indices."""
    warmup_steps: int = 0
    """Steps in which the density falls geometrically from `warmup_density` (Lin et al. 2018, section 3.3)."""
    warmup_density: float = 0.25
    threshold: Literal["sampled", "exact"] = "sampled"
    """How the top k are found: among the values above a threshold from a sample, or by a full top-k. Both select the
    same values, except among equal ones; sampled is several times faster on a CPU."""
    quantise: Quantiser = field(default_factory=Fp32)
    momentum: float = 0.0
    """Momentum correction (Lin et al. 2018, section 3.2) in place of the optimiser's own momentum."""
    mask_momentum: bool = True
    """Momentum factor masking (ibid., section 3.3)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.density <= 1:
            raise ValueError(f"density must be above 0, up to 1, got {self.density}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {self.warmup_steps}")
        if self.warmup_steps and not self.density <= self.warmup_density < 1:
            raise ValueError(
                f"warmup_density must be from density={self.density} to below 1, got {self.warmup_density}"
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be from 0 to below 1, got {self.momentum}")
        if self.momentum and not (self.error_feedback and self.density < 1):
            raise ValueError("momentum corrects for what is sent late: it needs error_feedback and a density below 1")

    def check_use(self, workers: int | None, optim: OptimSpec, clip_norm: float | None) -> None:
        if self.momentum and optim.adaptive:
            raise ConfigError(
                f"compression.momentum={self.momentum}: the optimiser has a momentum of its own (betas)",
                "nearest: compression.momentum=0, or optim=sgd",
            )
        if self.momentum and optim.momentum:
            raise ConfigError(
                f"compression.momentum={self.momentum} and optim.momentum={optim.momentum} would both be applied",
                "momentum correction takes the optimiser's place: optim.momentum=0",
            )
        super().check_use(workers, optim, clip_norm)

    def check_differences(self) -> Iterator[ConfigError]:
        if self.momentum:
            yield ConfigError(
                f"compression.momentum={self.momentum} and the outer momentum of runner=diloco would both be applied",
                "nearest: compression.momentum=0",
            )
        yield from super().check_differences()

    def check_shards(self, plan: Plan) -> Iterator[ConfigError]:
        if self.density < 1 or self.quantise.one_bit:
            yield from super().check_shards(plan)
        elif self.local_clip:
            yield not_in_shards(
                "compression.local_clip=true", "measures whole gradients", "compression.local_clip=false"
            )
        elif self.probe_every is not None:
            yield not_in_shards("compression.probe_every", "compares whole gradients", "compression.probe_every=null")
        elif self.error_feedback and plan.precision.product == "fp16":
            what = "error feedback with precision=fp16"
            yield not_in_shards(what, "does not follow a loss scale that changes", "compression.error_feedback=false")

    def in_shards(self, learner: nn.Module) -> ShardCompression:
        from lmctl.compression.gradient_layout import sent_whole
        from lmctl.compression.reduce_scatter import ShardCompression

        whole = sent_whole(learner, self.dense_below, self.exclude, self.pays)
        return ShardCompression(self.quantise, self.error_feedback, whole, self.describe)

    def remarks(self, optim: OptimSpec) -> list[str]:
        harsh = self.density <= AGGRESSIVE or self.quantise.one_bit
        if not (harsh and optim.adaptive):
            return []
        advice = "optim=sgd with momentum suits it better; or raise compression.density, compression.warmup_steps"
        return [f"so little of the gradient costs an Adam-like optimiser quality (Tang et al. 2021): {advice}"]

    def density_at(self, step: int) -> float:
        """Density in the step after `step` steps."""
        if step >= self.warmup_steps:
            return self.density
        return self.warmup_density * (self.density / self.warmup_density) ** (step / self.warmup_steps)

    @property
    def correction(self) -> tuple[float, bool]:
        return self.momentum, self.mask_momentum

    @property
    def describe(self) -> str:
        pruned = f"top {self.density:.3g} of each " if self.density < 1 else ""
        feedback = "error feedback" if self.error_feedback else "no error feedback"
        return f"{pruned}in {type(self.quantise).__name__.lower()}, {feedback}"

    def method(self, layout: GradientLayout, wire: Wire, memory: ErrorFeedback) -> Method:
        if self.density < 1:
            from lmctl.compression.sparse import Pruned

            sampled = self.threshold == "sampled"
            return Pruned(layout.compressed, wire, self.density_at, sampled, self.quantise, memory)
        from lmctl.compression.dense import Dense

        return Dense(layout.compressed, wire, self.quantise, memory)
