"""Vocabulary mapping between teacher and student, by token strings, before any weights are loaded.

A teacher's logits can be compared only for tokens that both have. If one vocabulary is a permutation or a subset of the
other, the teacher reads the student's rows by its own ids, and both distributions are compared over the shared tokens,
renormalised: p(v | v is shared). Otherwise logits cannot be compared; losses on hidden states and training on texts
that the teacher generates still work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from lmctl.core.errors import ConfigError
from lmctl.core.vocabulary import NO_PIECE

if TYPE_CHECKING:
    from torch import Tensor

Relation: TypeAlias = Literal["same", "permutation", "student is a part", "teacher is a part"]


@dataclass(frozen=True)
class SharedPieces:
    """Mapping between the vocabularies of a teacher (T tokens) and a student (S tokens)."""

    relation: Relation
    to_student: np.ndarray
    """int64 [T]: the student's id of each teacher token; NO_PIECE if it has none."""
    to_teacher: np.ndarray
    """int64 [S]: the teacher's id of each student token; NO_PIECE if it has none."""

    @property
    def same(self) -> bool:
        """Whether both vocabularies have the same ids: no translation is needed."""
        return self.relation == "same"

    @property
    def of_student(self) -> np.ndarray:
        """int64 [n]: the student's ids of the shared tokens, ascending."""
        return np.flatnonzero(self.to_teacher != NO_PIECE)

    @property
    def of_teacher(self) -> np.ndarray:
        """int64 [n]: the teacher's ids of the same tokens in the same order."""
        return self.to_teacher[self.of_student]

    def describe(self) -> str:
        """One line for people."""
        shared, teacher, student = len(self.of_student), len(self.to_student), len(self.to_teacher)
        if self.same:
            return f"the teacher's and the student's {student:,} pieces are the same"
        if self.relation == "permutation":
            return f"the same {student:,} pieces under other numbers: translated by their strings"
        return (
            f"{shared:,} pieces are shared (teacher {teacher:,}, student {student:,}): probabilities are "
            "renormalised over these"
        )

    def read(self, ids: Tensor, unknown: int) -> Tensor:
        """Translate the student's ids int64 [...] to the teacher's; `unknown` where it has none."""
        import torch

        table = torch.from_numpy(np.where(self.to_teacher == NO_PIECE, unknown, self.to_teacher))
        return table.to(ids.device)[ids]

    def compared(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """Select the shared tokens of logits [N, T or more] and [N, S or more] (more: embeddings are often padded): [N,
        n] each, over which any softmax is renormalised. With equal vocabularies only the padding is cut off."""
        import torch

        size = len(self.to_teacher)
        if self.same:
            return teacher[..., :size], student[..., :size]
        places = torch.from_numpy(self.of_teacher).to(teacher.device)
        teacher = teacher.index_select(-1, places)
        if len(places) == size:
            return teacher, student[..., :size]
        return teacher, student.index_select(-1, torch.from_numpy(self.of_student).to(student.device))


def shared_pieces(teacher: Mapping[str, int], student: Mapping[str, int]) -> SharedPieces | None:
    """Map two vocabularies (token to id); None if neither is a subset of the other."""
    size_of_teacher, size_of_student = (max(pieces.values(), default=-1) + 1 for pieces in (teacher, student))
    to_student = np.full(size_of_teacher, NO_PIECE, dtype=np.int64)
    to_teacher = np.full(size_of_student, NO_PIECE, dtype=np.int64)
    shared = [(number, student[piece]) for piece, number in teacher.items() if piece in student]
    for theirs, ours in shared:
        to_student[theirs], to_teacher[ours] = ours, theirs
    whole_teacher, whole_student = len(shared) == len(teacher), len(shared) == len(student)
    if not shared or not (whole_teacher or whole_student):
        return None
    relation: Relation
    if whole_teacher and whole_student:
        relation = "same" if all(theirs == ours for theirs, ours in shared) else "permutation"
    else:
        relation = "student is a part" if whole_student else "teacher is a part"
    return SharedPieces(relation, to_student, to_teacher)


def match(
    teacher: Mapping[str, int],
    student: Mapping[str, int],
    where: str,
    unknown: str | None = None,
    terms: tuple[str, ...] = ("hidden", "sequence"),
) -> SharedPieces:
    """Map the vocabularies, or raise ConfigError. `where`: the teacher; `unknown`: the token it reads for one that it
    does not have (None: it has none); `terms`: options of `distill` that need no shared tokens."""
    found = shared_pieces(teacher, student)
    remedy = (
        f"take the teacher's tokenizer: tokenizer=pretrained tokenizer.path={where}; with tokenizers that differ: "
        + " or ".join(f"distill={term}" for term in terms)
    )
    if found is None:
        lacking = sum(piece not in student for piece in teacher)
        example = next(piece for piece in student if piece not in teacher)
        raise ConfigError(
            f"distill: the vocabularies differ: {lacking:,} of the {len(teacher):,} pieces of teacher={where} are not "
            f"the student's, and the teacher has no {example!r}; their logits cannot be compared",
            remedy,
        )
    if found.relation == "teacher is a part" and unknown is None:
        example = next(piece for piece in student if piece not in teacher)
        raise ConfigError(
            f"distill: teacher={where} has no piece {example!r} of the student's, and none for the unknown", remedy
        )
    return found
