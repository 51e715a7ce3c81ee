"""Base classes of the group `distill`: distillation losses, teacher outputs, recorded states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from lmctl.core.component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from lmctl.core.batch import Batch, LabelKind
    from lmctl.objective.base import Prediction
    from lmctl.precision.base import Precision


class TeacherLogits(NamedTuple):
    """A teacher's logits for the n targets of one term."""

    logits: Tensor
    """float32 [n, K]."""
    pieces: Tensor | None = None
    """int64 [n, K]: the student's vocabulary ids (or classes) of the columns; None: ids in order (of a vocabulary: the
    first K)."""


@dataclass(frozen=True)
class LossContext:
    """Inputs of a distillation loss besides the logits."""

    kind: LabelKind
    """What the logits predict: one class (or token) of several, several classes, or a number."""
    progress: float
    """Share of the budget that is spent."""


class DistillTerm(Component):
    """One term of `distill.terms`: a loss on logits or features, or a method that changes the texts."""

    @abstractmethod
    def weight_at(self, progress: float) -> float:
        """Weight of the term when `progress` of the budget, from 0 to 1, is spent."""


class LogitLoss(DistillTerm):
    """A loss between the student's and the teacher's logits, per target (KD loss, "soft targets")."""

    @abstractmethod
    def loss(self, student: Tensor, teacher: TeacherLogits, context: LossContext) -> Tensor:
        """Loss of the student's logits float32 [n, C] against the teacher's, summed over targets; a scalar with a
        gradient for the student. It is called in chunks, so it must be additive: the loss of all targets is the sum of
        the losses of two halves."""


class ModelShape(NamedTuple):
    """Layers, hidden size and heads of a network, for layer mapping."""

    what: str
    """The network's name, for messages."""
    layers: dict[str, int]
    """Number of layers by stack: "layers"; "encoder" and "decoder" of those that have both."""
    width: int
    """Hidden size."""
    heads: int
    """Attention heads; 0 if attention cannot be recorded."""
    embedding: int | None = None
    """Embedding size (input of the first layer), if it is not `width`."""


class AttentionInputs(NamedTuple):
    """Queries, keys, values and mask of one layer's self-attention."""

    query: Tensor
    """[R, A, L, D], like keys and values: A heads of D units, with rotary embeddings applied."""
    key: Tensor
    value: Tensor
    scale: float
    """Factor of the products of queries and keys."""
    allowed: Tensor | None
    """Attention mask bool [R or 1, A or 1, L, L] (query, key); None: no mask."""
    bias: Tensor | None
    """Additive bias of the scaled products [R or 1, A or 1, L, L], T5's relative positions; None: no bias."""


@dataclass(frozen=True)
class States:
    """Hidden states and attention inputs, recorded during one forward pass."""

    hidden: dict[str, list[Tensor]]
    """By stack, [R, L, H]: the embeddings, then the output of each layer."""
    attended: dict[str, list[AttentionInputs]]
    """By stack, one per layer; empty unless attention was recorded."""
    real: dict[str, Tensor]
    """By stack, bool [R, L]: True where not padding."""


class FeatureLoss(DistillTerm):
    """A loss between hidden states or attention of student and teacher (feature distillation)."""

    attends: ClassVar[bool] = False
    """Whether it needs attention inputs in addition to hidden states."""

    @abstractmethod
    def build(self, student: ModelShape, teacher: ModelShape) -> Any:
        """The loss as an `nn.Module`: (student: States, teacher: States) -> a scalar, summed over real positions. It
        may have trainable parameters of its own, such as projections. Its `shown` are lines for people: the layer
        pairs. Raises ConfigError if the two networks cannot be compared."""


class Distiller(Component):
    """Group `distill`: distillation losses and their weights. The defaults are those of a run without a teacher."""

    terms: Mapping[str, DistillTerm]
    """Distillation terms by name; empty without a teacher."""

    @property
    def teacher_precision(self) -> Precision | None:
        """Precision of the teacher's forward pass; None: float32."""
        return None

    @property
    def control(self) -> bool:
        """Whether `lmctl distill` also trains a control: the same student without a teacher."""
        return False

    @property
    def chunk_bytes(self) -> int | None:
        """Memory limit of one network's logits, in bytes per chunk; None: the same as without a teacher."""
        return None

    def task_weight_at(self, progress: float) -> float:
        """Weight of the objective's own (hard-label) losses when `progress` of the budget is spent."""
        return 1.0


class TeacherOutput(ABC):
    """A teacher's logits and hidden states for one micro-batch."""

    @abstractmethod
    def answers(self, term: str, head: str, rows: slice) -> TeacherLogits:
        """Logits for the targets `rows` of a term, from the teacher's `head`."""

    @property
    def states(self) -> States:
        """Recorded states, if a feature loss needs them."""
        raise NotImplementedError


class Teacher(ABC):
    """Source of a teacher's outputs: a model in memory, or a cache of its logits."""

    fingerprints: Mapping[str, str]
    """Fingerprints that must not change when a run is resumed."""

    @property
    def model_shape(self) -> ModelShape | None:
        """Layers and hidden size of the teacher; None if no feature loss needs them."""
        return None

    @abstractmethod
    def outputs(self, batch: Batch, predictions: Mapping[str, Prediction]) -> TeacherOutput:
        """Teacher outputs for a micro-batch on its device: for the inputs of the student's `predictions`, at the same
        targets, without adversarial perturbation."""
