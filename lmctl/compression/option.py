"""Settings common to all gradient compressors: uncompressed tensors, simulated workers, local clipping, and checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from lmctl.compression.base import GradCompressor
from lmctl.core.component import MAY_CHANGE
from lmctl.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from lmctl.compression.error_feedback import ErrorFeedback
    from lmctl.compression.exchange import CompressedExchange, Method
    from lmctl.compression.gradient_layout import GradientLayout
    from lmctl.compression.wire import Wire
    from lmctl.optim.base import OptimSpec


@dataclass(frozen=True, kw_only=True)
class Option(GradCompressor):
    """Base of all compressors; subclasses add their settings and `method`."""

    error_feedback: bool = True
    """Error feedback: add what was not sent to the next gradient."""
    local_clip: bool = False
    """Clip each worker's gradient before compression (local gradient clipping: Lin et al. 2018, section 3.2). A
    worker's share of the mean may have the norm clip_norm / sqrt(workers): then the mean has clip_norm if the shares
    are independent and of equal norm. Clipping of the mean still applies."""
    dense_below: int = 1024
    """Tensors with fewer values, and all vectors, are sent uncompressed, in fp32."""
    exclude: list[str] = field(default_factory=list)
    """Name patterns of parameters that are sent uncompressed."""
    simulate_workers: Optional[int] = None
    """Number of simulated workers in one process: each has what a process has, its share of the rows, weights,
    optimiser, dropout and residual. null: as `runner` says; `runner=simulated` does the same."""
    probe_every: Optional[int] = field(default=None, metadata=MAY_CHANGE)
    """Steps between measurements of the cosine between the received mean and the true one; their bytes do not count."""

    def __post_init__(self) -> None:
        if self.dense_below < 0:
            raise ValueError(f"dense_below must not be negative, got {self.dense_below}")
        for name in ("simulate_workers", "probe_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be above 0, got {value}")

    def check_use(self, workers: int | None, optim: OptimSpec, clip_norm: float | None) -> None:
        if workers is None:
            raise ConfigError(
                "compression: there is no gradient exchange in a single process, it would only damage the gradient",
                "nearest: compression=none, runner=simulated, or runner=ddp runner.processes=2",
            )
        if self.local_clip and clip_norm is None:
            raise ConfigError(
                "compression.local_clip=true takes its norm from clip_norm, which is null", "clip_norm=1.0"
            )

    def check_differences(self) -> Iterator[ConfigError]:
        if self.local_clip:
            yield ConfigError(
                "compression.local_clip=true clips gradients, and runner=diloco sends differences of weights",
                "nearest: compression.local_clip=false (clip_norm clips each worker's gradient)",
            )

    def exchange(self, learner: nn.Module, wire: Wire, clip_norm: float | None) -> CompressedExchange:
        from lmctl.compression.error_feedback import ErrorFeedback
        from lmctl.compression.exchange import CompressedExchange
        from lmctl.compression.gradient_layout import layout_of, size

        layout = layout_of(learner, self.dense_below, self.exclude, self.pays)
        n, momentum, mask = size(layout.compressed), *self.correction
        memory = ErrorFeedback(n, layout.device, self.error_feedback, momentum, mask)
        # Gradients are those of the mean loss, W times a worker's share of the mean: so is the norm.
        clip = clip_norm * wire.world**0.5 if self.local_clip and clip_norm is not None else None
        method = self.method(layout, wire, memory)
        return CompressedExchange(layout, wire, method, self.describe, clip, momentum, self.probe_every)

    @property
    def correction(self) -> tuple[float, bool]:
        """Momentum correction: its momentum, and whether momentum factor masking is on."""
        return 0.0, False

    @property
    @abstractmethod
    def describe(self) -> str:
        """The method in a few words."""

    def pays(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of two or more dimensions gets smaller by compression."""
        return True

    @abstractmethod
    def method(self, layout: GradientLayout, wire: Wire, memory: ErrorFeedback) -> Method:
        """The method with its state, over `layout.compressed`."""
