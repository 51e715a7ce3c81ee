"""The contract of the group `distill`: what a student learns from a teacher."""

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


class Answers(NamedTuple):
    """A teacher's logits for n targets of one term."""

    logits: Tensor
    """float32 [n, K]."""
    pieces: Tensor | None = None
    """int64 [n, K]: the student's outputs that the columns are about; None: all of the student's, in order (of a
    vocabulary: the first K)."""


@dataclass(frozen=True)
class LossContext:
    """What a distillation loss is told besides the logits."""

    kind: LabelKind
    """What the logits are of: one class (or piece) of several, any number of classes, a number."""
    progress: float
    """Share of the budget that is spent."""


class DistillTerm(Component):
    """One term of `distill.terms`: a loss on logits or on features, or one that changes the texts."""

    @abstractmethod
    def weight_at(self, progress: float) -> float:
        """What the term counts for when `progress` of the budget, from 0 to 1, is spent."""


class LogitLoss(DistillTerm):
    """A loss between the student's and the teacher's logits, target by target (KD loss, "soft targets")."""

    @abstractmethod
    def loss(self, student: Tensor, teacher: Answers, context: LossContext) -> Tensor:
        """The loss of the student's logits float32 [n, C] against the teacher's, summed over the targets; a scalar with
        a gradient for the student. It is called in chunks, so the losses of two halves of the targets must add up to
        the loss of all."""


class ModelShape(NamedTuple):
    """Layers, width and heads of a network, for matching a student's layers with a teacher's."""

    what: str
    """The network's name, for messages."""
    layers: dict[str, int]
    """Number of layers by stack: "layers"; "encoder" and "decoder" of those that have both."""
    width: int
    """Units of a hidden state."""
    heads: int
    """Attention heads; 0 where no attention can be recorded."""
    embedding: int | None = None
    """Units of what goes into the first layer, where they are not `width`."""


class AttentionInputs(NamedTuple):
    """Inputs of one layer's self-attention."""

    query: Tensor
    """[R, A, L, D], as keys and values are: A heads of D units, rotated where positions are rotated in."""
    key: Tensor
    value: Tensor
    scale: float
    """What products of queries and keys are multiplied by."""
    allowed: Tensor | None
    """Who may look at whom: bool [R or 1, A or 1, L, L] (query, key); None: all at all."""
    bias: Tensor | None
    """What is added to the scaled products besides: [R or 1, A or 1, L, L], T5's positions; None: nothing."""


@dataclass(frozen=True)
class States:
    """Hidden states and attention inputs, recorded during one forward pass."""

    hidden: dict[str, list[Tensor]]
    """By stack: [R, L, H] the embeddings, then what each layer gave."""
    attended: dict[str, list[AttentionInputs]]
    """By stack, one per layer; empty unless attention was recorded."""
    real: dict[str, Tensor]
    """By stack: bool [R, L], what is not padding."""


class FeatureLoss(DistillTerm):
    """A loss between inner states of student and teacher (feature distillation): hidden states or attention."""

    attends: ClassVar[bool] = False
    """Whether it needs attention inputs besides hidden states."""

    @abstractmethod
    def build(self, student: ModelShape, teacher: ModelShape) -> Any:
        """The `nn.Module` that computes it from (student: States, teacher: States): a scalar, summed over real
        positions. It owns parameters that are learnt for the loss alone, such as projections. Its `shown` are lines
        for people: which layers are compared. Raises ConfigError if the two networks cannot be compared."""


class Distiller(Component):
    """Group `distill`: the losses that a student learns by from its teacher, besides the objective's own. Defaults are
    those of a run without a teacher."""

    terms: Mapping[str, DistillTerm]
    """By name; none: there is no teacher."""

    @property
    def teacher_precision(self) -> Precision | None:
        """In which precision the teacher computes; None: float32."""
        return None

    @property
    def control(self) -> bool:
        """Whether `lmctl distill` trains the student without a teacher, too."""
        return False

    @property
    def chunk_bytes(self) -> int | None:
        """Bytes of one network's logits that are in memory at a time; None: as without a teacher."""
        return None

    def task_weight_at(self, progress: float) -> float:
        """Weight of the objective's own (hard-label) losses when `progress` of the budget is spent."""
        return 1.0


class TeacherOutput(ABC):
    """A teacher's logits and states for one micro-batch."""

    @abstractmethod
    def answers(self, term: str, head: str, rows: slice) -> Answers:
        """Its logits for the targets `rows` of a term, for which the student uses its `head`."""

    @property
    def states(self) -> States:
        """Its recorded states, if a feature loss needs them."""
        raise NotImplementedError


class Teacher(ABC):
    """Where a run gets a teacher's outputs from: a model in memory, or a cache of its logits."""

    fingerprints: Mapping[str, str]
    """What must be the same for a run to go on."""

    @property
    def model_shape(self) -> ModelShape | None:
        """Layers and widths of the teacher; None if no feature loss needs them."""
        return None

    @abstractmethod
    def look(self, batch: Batch, predictions: Mapping[str, Prediction]) -> TeacherOutput:
        """Its outputs for a micro-batch on its device: for the inputs that the student's `predictions` encoded, at the
        same targets, without an adversary's shift on the embeddings."""
