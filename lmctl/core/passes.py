"""A micro-batch in the hands of an adversary: the group `adversary`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from lmctl.augment.base import Augment
    from lmctl.core.batch import Batch, Terms


class Seen(NamedTuple):
    """What one forward pass of a micro-batch gave."""

    terms: Terms
    logits: dict[str, Tensor]
    """Per term [N, C] for its N targets; empty unless they were asked for."""


class Outcome(NamedTuple):
    """What an adversary reports of a micro-batch, for the record."""

    terms: Terms
    """The losses on the rows as they are."""
    adversarial: Terms
    """By term: the losses on rows made difficult, or how far apart two passes' answers are."""


class Pass(Protocol):
    """One micro-batch in an adversary's hands, which may run it forward and backward any number of times.

    A shift float32 [R, L, H] is added to the word embeddings of the rows (of the encoder's side, where there are
    two); at padding it changes nothing and its gradient is 0. Every pass drops out the same units as the first one
    unless it is `fresh`, and starts from the state that a recurrent network had before the first one.
    """

    @property
    def batch(self) -> Batch: ...

    def zeros(self) -> Tensor:
        """A shift of nothing that `backward` gives a gradient."""
        ...

    def start(self) -> Tensor:
        """A random shift: even draws from -1 to 1 over the root of their number in the row, so that no row is longer
        than 1 (Zhu et al. 2020, algorithm 1); the same for a row in whatever micro-batch, others in every step."""
        ...

    def forward(
        self, shift: Tensor | None = None, *, last: bool = False, fresh: bool = False, logits: bool = False
    ) -> Seen:
        """A pass that parameters may learn from. Exactly one is the `last`: in the backward pass that follows it,
        which no other may follow, gradients cross the network."""
        ...

    def loss(self, terms: Terms) -> Tensor:
        """What `terms` of this micro-batch add to the loss of the step: each over the global count of its targets."""
        ...

    def penalty(self, terms: Terms) -> Tensor:
        """The same for terms that come on top of the losses."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add to the gradients of parameters, and of shifts that want one. It comes out multiplied by the loss scale:
        only a shift's direction means anything."""
        ...

    def gradient(self, shift: Tensor, loss: Callable[[Seen], Tensor], logits: bool = False) -> Tensor:
        """The gradient of `loss` of a pass by its shift, up to the loss scale; parameters get none."""
        ...

    def noisy(self, augment: Augment) -> Pass:
        """The same micro-batch with its texts rewritten and its targets the same, drawn anew in every step."""
        ...


@runtime_checkable
class Adversary(Protocol):
    """Group `adversary`: how a micro-batch is made more difficult to learn from."""

    @property
    def needs_dropout(self) -> bool:
        """Whether it does nothing for a network that drops nothing out."""
        ...

    @property
    def backwards(self) -> float:
        """Forward and backward passes per micro-batch, against one without an adversary."""
        ...

    def drive(self, micro: Pass) -> Outcome:
        """Run the micro-batch forward and backward."""
        ...
