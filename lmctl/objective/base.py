"""The contract of the group `objective`: what is predicted from what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lmctl.core.component import Component

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from lmctl.core.batch import Batch, Family, Kind, LabelKind
    from lmctl.core.counter_rng import CounterRng
    from lmctl.core.token_store import TokenStore
    from lmctl.core.vocabulary import Rewrite, Vocabulary
    from lmctl.model.base import Network


@dataclass(frozen=True)
class Material:
    """All that the examples of a task are made of."""

    task: str
    store: TokenStore
    vocabulary: Vocabulary
    family: Family
    seq_len: int
    """Positions per row, special pieces included; on either side, where there are two."""
    batch_rows: int = 1
    """Rows of the task in one optimiser step: as many tracks where state is carried from row to row."""
    rewrite: Rewrite | None = None


class Examples(ABC):
    """The rows that an objective makes of its material."""

    material: Material

    @property
    def lengths(self) -> np.ndarray | None:
        """int64 [len]: positions of each row; rows of similar length are then put side by side. None: all alike."""
        return None

    @property
    def tracks(self) -> int | None:
        """Where rows must come in the order of their numbers, in every epoch, because each goes on where the one before
        it in its track ended: how many tracks there are; row r is of track r % `tracks`. None: in any order."""
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def tokens_per_row(self) -> float:
        """Mean number of real tokens of a row as `collate` makes it, for mixing tasks by tokens; augmentation need not
        be counted."""

    @abstractmethod
    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        """Rows int64 [R], each as it is in its own epoch (int64 [R]); all randomness comes from `draws`."""


@dataclass(frozen=True)
class Prediction:
    """The hidden states from which one head answers the targets of one term."""

    head: str
    """The network's head that answers."""
    hidden: Tensor
    """[N, H]: states at the targets."""
    labels: Tensor
    """The right answers, as in `Targets`."""
    inputs: Mapping[str, Tensor]
    """What was encoded, so that a teacher can be asked about exactly the same."""
    at: Tensor | None
    """int64 [N]: flattened positions that the states were read at; None: one summary of each row."""


@dataclass(frozen=True)
class Metric:
    """A figure of one batch of targets, before it is averaged."""

    sum: Any
    """Summed over the targets: a scalar, or a tensor of any shape that `finish` makes one number of."""
    count: float
    """Number of targets."""
    higher_is_better: bool
    share: bool = False
    """Whether every target counts 0 or 1, so that the mean is a share of trials."""
    finish: Callable[[np.ndarray], float] | None = None
    """What makes the figure of the mean over all targets, float64 of the shape of `sum`; a function of a module."""


LOSS = "loss"
"""The name among metrics of what is minimised; it is reported under the name of its term."""


class Objective(Component):
    """Group `objective`: what is predicted from what.

    It calls no head for a loss, divides by nothing, and knows of no chunks, adversaries or teachers: see
    `lmctl.train.learner`.
    """

    carries_state: ClassVar[bool] = False
    """Whether its network carries a state from row to row."""
    pairs_sentences: ClassVar[bool] = False
    """Whether nothing can be made of documents of one sentence."""

    needs_generator: ClassVar[bool] = False
    """Whether its network has a generator beside it."""

    @property
    def end_of(self) -> str:
        """What of a text [SEP] closes: "document" or "sentence"."""
        return "document"

    @property
    def separate_documents(self) -> bool:
        """Whether documents that share a row see nothing of each other."""
        return False

    @property
    def pieces(self) -> Sequence[str]:
        """Special tokens that the tokenizer must have for it, besides the usual five."""
        return ()

    @property
    def label_kind(self) -> LabelKind | None:
        """What the labels of its rows are, which are asked about as a whole; None where it reads none."""
        return None

    @property
    @abstractmethod
    def reads(self) -> Kind:
        """The kind of rows it is made of."""

    @property
    @abstractmethod
    def families(self) -> tuple[Family, ...]:
        """The families of networks that can learn it."""

    @abstractmethod
    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        """The heads the network needs and how many outputs each has: "mlm", "lm" and "generator" [V], "pair" [2], "rtd"
        [1], a head named after the task [number of classes]. `store` is the training split."""

    @abstractmethod
    def examples(self, material: Material) -> Examples: ...

    def head(self, task: str, term: str) -> str:
        """The head that answers the targets of `term`."""
        return term

    def weight(self, term: str) -> float:
        """What the loss of `term` counts for beside those of its other terms, in training; losses are reported without
        it."""
        return 1.0

    def predict(self, network: Network, batch: Batch) -> dict[str, Prediction]:
        """One prediction per term of `batch.targets`, in that order; here from one pass of the network over the inputs,
        at the targets of all terms."""
        import torch

        rows = self.label_kind is not None
        at = None if rows else torch.cat([target.positions for target in batch.targets.values()])
        hidden = network.encode(batch.inputs, at).split(list(batch.counts().values()))
        return {
            term: Prediction(
                self.head(batch.task, term), states, target.labels, batch.inputs, None if rows else target.positions
            )
            for (term, target), states in zip(batch.targets.items(), hidden, strict=True)
        }

    def loss(self, term: str, logits: Tensor, labels: Tensor) -> Tensor:
        """What is minimised, *summed* over the targets, in nats (squared error for numbers); here the cross-entropy of
        logits [N, C], taken in float32, against labels int64 [N]."""
        import torch.nn.functional as F

        return F.cross_entropy(logits.float(), labels, reduction="sum")

    def metrics(self, term: str, logits: Tensor, labels: Tensor) -> dict[str, Metric]:
        """What a validation reports: `LOSS`, and whatever else can be summed over the targets of `term`. Here the share
        of them that have the highest logit."""
        right = (logits.argmax(dim=-1) == labels).sum()
        return {
            LOSS: Metric(self.loss(term, logits, labels), len(labels), higher_is_better=False),
            "accuracy": Metric(right, len(labels), higher_is_better=True, share=True),
        }

    @abstractmethod
    def baseline(self, term: str, labels: Tensor, train: TokenStore) -> dict[str, Metric]:
        """The same metrics, or some of them, for the best guess that never looks at the text. `train` is the training
        split, but its labels are those of the rows that are validated on: no one answer for all of them is better than
        theirs."""
