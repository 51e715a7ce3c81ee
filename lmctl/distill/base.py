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
    """What a teacher says of n targets of one term."""

    logits: Tensor
    """float32 [n, K]."""
    pieces: Tensor | None = None
    """int64 [n, K]: the student's outputs that the columns are about; None: all of the student's, in order (of a
    vocabulary: the first K)."""


@dataclass(frozen=True)
class Asked:
    """What a lesson is about, besides the numbers."""

    kind: LabelKind
    """What the answers are: one class (or piece) of several, any number of classes, a number."""
    progress: float
    """Share of the budget that is spent."""


class Lesson(Component):
    """One term of the lesson: a `LogitLesson`, a `StateLesson`, or one that changes the texts."""

    @abstractmethod
    def weight_at(self, progress: float) -> float:
        """What the term counts for when `progress` of the budget, from 0 to 1, is spent."""


class LogitLesson(Lesson):
    """A term that compares answers, target by target."""

    @abstractmethod
    def apart(self, student: Tensor, teacher: Answers, asked: Asked) -> Tensor:
        """How far the student's logits float32 [n, C] are from the teacher's answers, summed over the targets; a
        scalar with a gradient for the student. Whatever it gives for two halves of the targets adds up to what it
        gives for all: it is asked in chunks."""


class Anatomy(NamedTuple):
    """What there is to see of a network's inside, for whoever matches layers."""

    what: str
    """The network's name, for messages."""
    layers: dict[str, int]
    """Number of layers by stack: "layers"; "encoder" and "decoder" of those that have both."""
    width: int
    """Units of a hidden state."""
    heads: int
    """Attention heads; 0 where there is no attention to be seen."""
    embedding: int | None = None
    """Units of what goes into the first layer, where they are not `width`."""


class Attended(NamedTuple):
    """What the self-attention of one layer computed with."""

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
    """What was seen inside of a network while it read a batch."""

    hidden: dict[str, list[Tensor]]
    """By stack: [R, L, H] the embeddings, then what each layer gave."""
    attended: dict[str, list[Attended]]
    """By stack, layer by layer; empty unless it was asked for."""
    real: dict[str, Tensor]
    """By stack: bool [R, L], what is not padding."""


class StateLesson(Lesson):
    """A term that compares what happens inside of the networks."""

    attends: ClassVar[bool] = False
    """Whether it looks at attention, too."""

    @abstractmethod
    def pupil(self, student: Anatomy, teacher: Anatomy) -> Any:
        """An `nn.Module` of (student: States, teacher: States): how far they are apart, summed over real positions,
        a scalar. It owns what is learned for the comparison alone, such as projections. ConfigError if these two
        cannot be compared. Its `shown` are lines for people: what is compared with what."""


class Distiller(Component):
    """Group `distill`: what a student learns from its teacher, besides what the text says. Defaults are those of a run
    without a teacher."""

    @property
    @abstractmethod
    def lessons(self) -> Mapping[str, Lesson]:
        """The terms by name; none: there is no teacher."""

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

    def hard_at(self, progress: float) -> float:
        """What the objective's own losses count for when `progress` of the budget is spent."""
        return 1.0


class TeacherOutput(ABC):
    """What a teacher makes of one micro-batch."""

    @abstractmethod
    def answers(self, term: str, head: str, rows: slice) -> Answers:
        """Its answers to the targets `rows` of a term, which the student gives with its `head`."""

    @property
    def states(self) -> States:
        """Its inside, if the lessons look at that."""
        raise NotImplementedError


class Teacher(ABC):
    """Who is asked for every micro-batch: a model, or the answers that one gave earlier."""

    fingerprints: Mapping[str, str]
    """What must be the same for a run to go on."""

    @property
    def anatomy(self) -> Anatomy | None:
        """What is to be seen of its inside; None if nobody looks there."""
        return None

    @abstractmethod
    def look(self, batch: Batch, predictions: Mapping[str, Prediction]) -> TeacherOutput:
        """Read a micro-batch, on its device: what the student's `predictions` say was encoded, no shift on the
        embeddings, and at the same targets."""
