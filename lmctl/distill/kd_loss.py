"""KL and Jensen-Shannon divergences from log-probabilities, summed over everything except classes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.distill.base import TeacherLogits


def aligned(student: Tensor, teacher: TeacherLogits, top_k: int | None) -> tuple[Tensor, Tensor]:
    """Logits of both networks for the same K outputs, float32 [n, K]: those that the teacher has, or the `top_k` most
    likely of these."""
    theirs, pieces = teacher
    if top_k is not None and top_k < theirs.shape[-1]:
        theirs, places = theirs.topk(top_k, dim=-1)
        pieces = places if pieces is None else pieces.gather(-1, places)
    if pieces is not None:
        return student.gather(-1, pieces), theirs
    return student[..., : theirs.shape[-1]], theirs


def of_one_class(logits: Tensor) -> Tensor:
    """Log-probabilities [n, K] of one class of K (softmax), from logits [n, K]."""
    return logits.log_softmax(dim=-1)


def of_each_class(logits: Tensor) -> Tensor:
    """Log-probabilities [n, K, 2] of each class and its complement (sigmoid), from logits [n, K]."""
    return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=-1)


def forward(student: Tensor, teacher: Tensor) -> Tensor:
    """Forward divergence KL(teacher, student)."""
    return F.kl_div(student, teacher, log_target=True, reduction="sum")


def reverse(student: Tensor, teacher: Tensor) -> Tensor:
    """Reverse divergence KL(student, teacher)."""
    return F.kl_div(teacher, student, log_target=True, reduction="sum")


def jensen_shannon(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """Generalised Jensen-Shannon divergence: beta KL(teacher, mixture) + (1 - beta) KL(student, mixture), where mixture
    = beta teacher + (1 - beta) student."""
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * forward(mixture, teacher) + (1 - beta) * forward(mixture, student)
