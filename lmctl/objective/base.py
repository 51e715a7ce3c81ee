"""Base classes of the group `objective`: what is predicted from which rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """Everything that the examples of a task are made from."""

    task: str
    store: TokenStore
    vocabulary: Vocabulary
    family: Family
    seq_len: int
    """Sequence length: positions per row, special tokens included; of each side of an encoder-decoder."""
    batch_rows: int = 1
    """Rows of the task per optimiser step; the number of tracks where state is carried from row to row."""
    rewrite: Rewrite | None = None
    seq_len_at: Callable[[float], int] | None = None
    """Sequence length by progress, for rows that are cut from a stream; None: always `seq_len`."""


class Examples(ABC):
    """The training rows that an objective makes from its material."""

    material: Material

    @property
    def lengths(self) -> np.ndarray | None:
        """int64 [len]: length of each row, for bucketing by length. None: all equal."""
        return None

    @property
    def tracks(self) -> int | None:
        """Number of tracks if rows must be read in order in every epoch, because each continues the row before it in
        its track; row r is in track r % `tracks`. None: rows may be shuffled."""
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def tokens_per_row(self) -> float:
        """Mean number of tokens of a row without padding, for mixing tasks by tokens; augmentation need not be
        included."""

    def at(self, progress: float) -> Examples:
        """The same rows as they are learnt from when `progress` (0 to 1) of the budget is spent: a pure function of it,
        and a cheap one. Where nobody says, as in validation, they are as at the end."""
        return self

    @abstractmethod
    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        """Collate rows int64 [R] of epochs int64 [R] into a batch; all random numbers come from `draws`."""


@dataclass(frozen=True)
class Prediction:
    """Hidden states and labels of one loss term, before the head is applied."""

    head: str
    """The name of the network's head."""
    hidden: Tensor
    """[N, H]: hidden states at the targets."""
    labels: Tensor
    """The labels, as in `Targets`."""
    inputs: Mapping[str, Tensor]
    """The network's inputs, so that a teacher can encode the same."""
    at: Tensor | None
    """int64 [N]: flattened positions of the hidden states; None: one pooled state per row."""


@dataclass(frozen=True)
class Metric:
    """A metric of one batch, as a sum and a count that are added up over batches."""

    sum: Any
    """Sum over the targets: a scalar, or a tensor that `finish` reduces."""
    count: float
    """Number of targets."""
    higher_is_better: bool
    share: bool = False
    """Whether every target counts 0 or 1, so that the mean is a binomial proportion."""
    finish: Callable[[np.ndarray], float] | None = None
    """Final function from the mean over all targets, float64 of the shape of `sum`, to a number; a module-level
    function (picklable)."""


def added(parts: Sequence[Metric]) -> Metric:
    """A metric over parts of its targets together."""
    first, *others = parts
    for other in others:
        first = replace(first, sum=first.sum + other.sum, count=first.count + other.count)
    return first


LOSS = "loss"
"""Name of the loss among the metrics; it is reported under the name of its term."""


class Objective(Component):
    """Group `objective`: a training objective.

    It applies no head for a loss, divides by nothing, and knows of no chunks, adversaries or teachers: see
    `lmctl.train.learner`.
    """

    carries_state: ClassVar[bool] = False
    """Whether its network carries a hidden state from row to row."""
    pairs_sentences: ClassVar[bool] = False
    """Whether it needs documents of more than one sentence."""

    cuts_rows: ClassVar[bool] = False
    """Whether its rows are cut from a stream of text, and so may be shorter (`Examples.at`)."""

    needs_generator: ClassVar[bool] = False
    """Whether its network has a generator beside it."""

    @property
    def end_of(self) -> str:
        """Where [SEP] marks an end: after each "document" or "sentence"."""
        return "document"

    @property
    def separate_documents(self) -> bool:
        """Whether attention between documents packed in one row is masked."""
        return False

    @property
    def pieces(self) -> Sequence[str]:
        """Special tokens that the tokenizer must have for it, besides the usual five."""
        return ()

    @property
    def label_kind(self) -> LabelKind | None:
        """The kind of the labels of whole rows; None if it uses no labels."""
        return None

    @property
    @abstractmethod
    def reads(self) -> Kind:
        """The kind of rows that it needs."""

    @property
    @abstractmethod
    def families(self) -> tuple[Family, ...]:
        """The network families that it can train."""

    @abstractmethod
    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        """The heads that the network needs, with their numbers of outputs: "mlm", "lm" and "generator" [V], "pair" [2],
        "rtd" [1], a head named after the task [number of classes]. `store` is the training split."""

    @abstractmethod
    def examples(self, material: Material) -> Examples: ...

    def head(self, task: str, term: str) -> str:
        """The head of `term`."""
        return term

    def weight(self, term: str) -> float:
        """What the loss of `term` counts for beside those of its other terms, in training; losses are reported without
        it."""
        return 1.0

    def predict(self, network: Network, batch: Batch) -> dict[str, Prediction]:
        """One prediction per term of `batch.targets`, in that order; by default from one forward pass, at the targets
        of all terms."""
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
        """The loss *summed* over the targets, in nats (squared error for regression); by default cross-entropy of
        logits [N, C], in float32, against labels int64 [N]."""
        from lmctl.kernels.cross_entropy import cross_entropy

        return cross_entropy(logits, labels)

    def metrics(self, term: str, logits: Tensor, labels: Tensor) -> dict[str, Metric]:
        """Validation metrics: `LOSS`, and others that are sums over the targets of `term`. By default top-1
        accuracy."""
        right = (logits.argmax(dim=-1) == labels).sum()
        return {
            LOSS: Metric(self.loss(term, logits, labels), len(labels), higher_is_better=False),
            "accuracy": Metric(right, len(labels), higher_is_better=True, share=True),
        }

    @abstractmethod
    def baseline(self, term: str, labels: Tensor, train: TokenStore) -> dict[str, Metric]:
        """The same metrics, or some of them, of the best constant guess, which ignores the text. `train` is the
        training split with the labels of the validation rows: no constant guess is better on these."""
