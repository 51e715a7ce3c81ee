"""Base class of the group `adversary`: perturbed forward and backward passes over one micro-batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lmctl.core.component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from lmctl.augment.base import Augment
    from lmctl.core.batch import Terms


@dataclass(frozen=True)
class View:
    """One forward pass over a micro-batch: which perturbation, augmentation and loss weight it has.

    Every view uses the dropout masks of the first one unless it is `fresh`, and starts from the recurrent state that
    the network had before the first one.
    """

    shift: Tensor | None = None
    """Perturbation float32 [R, L, H], added to the word embeddings (of the encoder, if there are encoder and decoder).
    At padding it has no effect and its gradient is 0."""
    weight: float = 1.0
    """Weight of this view's losses; with 0 they are not computed."""
    fresh: bool = False
    augment: Augment | None = None
    """Augmentation of the texts, sampled again in every step; the targets stay the same."""
    fixed: bool = False
    """Stop-gradient: its logits are only compared with those of other views, without a backward pass through them."""


class LossReport(NamedTuple):
    """The losses of all views in one `forward_backward`: detached sums over the targets."""

    losses: Sequence[Terms]
    """Losses of each view, by term."""
    disagreement: Terms
    """Divergence between the predictions of the first two views, by term."""


class Outcome(NamedTuple):
    """Clean and adversarial losses of a micro-batch, for the metrics."""

    losses: Terms
    """Losses on the unperturbed rows."""
    adversarial: Terms
    """By term: losses on perturbed rows, or the divergence between the predictions of two views."""


class AttackedBatch(Protocol):
    """One micro-batch, with the forward and backward passes that an adversary may run any number of times."""

    def zeros(self) -> Tensor:
        """A perturbation of zeros with `requires_grad`."""
        ...

    def random_shift(self) -> Tensor:
        """A uniform random perturbation: from -1 to 1, divided by the square root of the number of values in the row,
        so that each row's norm is at most 1 (Zhu et al. 2020, algorithm 1). A row has the same one in any micro-batch,
        and another one in every step."""
        ...

    def forward_backward(self, *views: View, agree: float = 0.0, last: bool = False) -> LossReport:
        """Accumulate gradients of the parameters, and of shifts with `requires_grad`: those of the weighted losses of
        all views plus `agree` times the divergence between the predictions of two views. Exactly one call per
        micro-batch has `last`: gradients are all-reduced in it. Gradients are multiplied by the loss scale, so only the
        direction of a shift's gradient is meaningful."""
        ...

    def gradient(self, shift: Tensor, *views: View, agree: float = 0.0) -> Tensor:
        """The gradient of the same loss with respect to `shift`, which belongs to one of the `views`, times the loss
        scale. Parameters get no gradient."""
        ...


class Adversary(Component):
    """Group `adversary`: perturbed forward and backward passes over a micro-batch."""

    needs_dropout: bool = False
    """Whether it has no effect on a network without dropout."""

    @property
    def passes(self) -> float:
        """Cost: forward and backward passes per micro-batch, where plain training has one. Views that are `fixed` have
        no backward pass and are not counted."""
        return 1.0

    @property
    def augments(self) -> Mapping[str, Augment]:
        """The augmentations that its views use, by config key."""
        return {}

    @abstractmethod
    def forward_backward(self, micro: AttackedBatch) -> Outcome:
        """Run all passes over the micro-batch and accumulate gradients."""
