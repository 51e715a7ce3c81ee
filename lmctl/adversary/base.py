"""The contract of the group `adversary`: how a micro-batch is made more difficult to learn from."""

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
    """The rows of a micro-batch as the network is to see them in one pass.

    Every view has the same units dropped out as the first one unless it is `fresh`, and starts from the state that a
    recurrent network had before the first one.
    """

    shift: Tensor | None = None
    """float32 [R, L, H], added to the word embeddings (of the encoder's side, where there are two); at padding it
    changes nothing and its gradient is 0."""
    weight: float = 1.0
    """What the losses of the view count for; with 0 they are not computed."""
    fresh: bool = False
    augment: Augment | None = None
    """Rewrites the texts, drawn anew in every step; the targets stay the same."""
    fixed: bool = False
    """Its answers are compared with others' and taken as they are: no gradient goes into them."""


class LossReport(NamedTuple):
    """What the passes over a micro-batch in one `forward_backward` gave; detached sums over its targets."""

    losses: Sequence[Terms]
    """Of each view, by term."""
    disagreement: Terms
    """By term: how far the answers of the first two views are apart."""


class Outcome(NamedTuple):
    """What an adversary reports of a micro-batch, for the record."""

    losses: Terms
    """On the rows as they are."""
    adversarial: Terms
    """By term: the losses on rows made difficult, or how far apart two views' answers are."""


class AttackedBatch(Protocol):
    """One micro-batch, which an adversary may run forward and backward any number of times."""

    def zeros(self) -> Tensor:
        """A shift of zeros that `forward_backward` gives a gradient."""
        ...

    def random_shift(self) -> Tensor:
        """Even draws from -1 to 1 over the root of their number in the row, so that no row is longer than 1 (Zhu et
        al. 2020, algorithm 1); the same for a row in whatever micro-batch, others in every step."""
        ...

    def forward_backward(self, *views: View, agree: float = 0.0, last: bool = False) -> LossReport:
        """Add to the gradients of parameters, and of shifts that want one: the weighed losses of all views and, times
        `agree`, how far the answers of two views are apart. Exactly one call is the `last`: in it gradients cross the
        network. Gradients come out multiplied by the loss scale: only a shift's direction means anything."""
        ...

    def gradient(self, shift: Tensor, *views: View, agree: float = 0.0) -> Tensor:
        """The gradient of the same by `shift`, that of one of the `views`, times the loss scale; parameters get
        none."""
        ...


class Adversary(Component):
    """Group `adversary`: how a micro-batch is made more difficult to learn from."""

    needs_dropout: bool = False
    """Whether it does nothing for a network that drops nothing out."""

    @property
    def passes(self) -> float:
        """Forward and backward passes per micro-batch, against one without an adversary; over views that are fixed
        there is no backward pass, and they are not counted."""
        return 1.0

    @property
    def augments(self) -> Mapping[str, Augment]:
        """The augmentations that its views ask for, by the key that they are set with."""
        return {}

    @abstractmethod
    def forward_backward(self, micro: AttackedBatch) -> Outcome:
        """Run the micro-batch forward and backward."""
