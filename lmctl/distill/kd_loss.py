"""Divergences of distributions that are given by their logarithms, summed over whatever is not a class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.distill.base import Answers


def aligned(student: Tensor, teacher: Answers, top_k: int | None) -> tuple[Tensor, Tensor]:
    """Logits of both for the same outputs, float32 [n, K]: those that the teacher answered, and of these the `top_k`
    likeliest."""
    theirs, pieces = teacher
    if top_k is not None and top_k < theirs.shape[-1]:
        theirs, places = theirs.topk(top_k, dim=-1)
        pieces = places if pieces is None else pieces.gather(-1, places)
    if pieces is not None:
        return student.gather(-1, pieces), theirs
    return student[..., : theirs.shape[-1]], theirs


def of_one_class(logits: Tensor) -> Tensor:
    """[n, K] -> log-probabilities [n, K] of one class out of K."""
    return logits.log_softmax(dim=-1)


def of_each_class(logits: Tensor) -> Tensor:
    """[n, K] -> log-probabilities [n, K, 2] that a class holds, and that it does not."""
    return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=-1)


def forward(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher, student)."""
    return F.kl_div(student, teacher, log_target=True, reduction="sum")


def reverse(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student, teacher)."""
    return F.kl_div(teacher, student, log_target=True, reduction="sum")


def jensen_shannon(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """beta KL(teacher, mixture) + (1 - beta) KL(student, mixture), the mixture being beta of the teacher and the rest
    of the student."""
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * forward(mixture, teacher) + (1 - beta) * forward(mixture, student)
