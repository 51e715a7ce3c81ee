"""Adversarial robustness of a classifier: accuracy under a shift of its embeddings (Miyato et al. 2017, section 3).

Each row is shifted along the gradient of its own loss with respect to its word embeddings, by increasing radii (L2 norm
over the whole row). One gradient step does not find the worst case: the accuracy is an upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lmctl.adversary.ascent import normalise
from lmctl.inference.heads import Classifier, classifier_of
from lmctl.inference.length_batches import by_length
from lmctl.inference.suites.classification import answered
from lmctl.inference.suites.job import Figures, SuiteJob

RADII = (0.1, 0.3, 1.0)


def in_the_ball(job: SuiteJob) -> Figures:
    """`accuracy_embedding_<radius>`; {} for regression models."""
    classifier = classifier_of(job.loaded, job.task)
    if classifier.kind == "number":
        return {}
    right = by_length(
        answered(job, classifier),
        lambda one: sum(map(len, one[0])),
        job.config.batch,
        lambda batch: attacked(classifier, batch, job.length),
    )
    shares = np.mean(list(right), axis=0)
    return {f"accuracy_embedding_{radius:g}": float(share) for radius, share in zip(RADII, shares, strict=True)}


def attacked(classifier: Classifier, batch: Sequence[tuple[list[str], np.ndarray]], length: int) -> list[np.ndarray]:
    """For each labelled text, bool [len(RADII)]: whether the prediction is correct at each radius."""
    rows, device = [texts for texts, _ in batch], classifier.embeddings.weight.device
    labels = torch.from_numpy(np.stack([answer for _, answer in batch])).to(device)
    # A list, so that the hook sees changes; None: use the embeddings themselves.
    shift: list[Tensor | None] = [None]
    kept: list[Tensor] = []

    def hook(module: Any, inputs: Any, output: Tensor) -> Tensor:
        if shift[0] is not None:
            return output + shift[0]
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    handle = classifier.embeddings.register_forward_hook(hook)
    try:
        loss = _loss(classifier.kind, classifier.answer(rows, length), labels)
        away = normalise(torch.autograd.grad(loss, kept[0])[0])
        found = []
        for radius in RADII:
            shift[0] = radius * away
            with torch.no_grad():
                found.append(_is_correct(classifier.kind, classifier.answer(rows, length), labels))
    finally:
        handle.remove()
    return list(torch.stack(found, dim=1).cpu().numpy())


def _loss(kind: str, logits: Tensor, labels: Tensor) -> Tensor:
    if kind == "class":
        return F.cross_entropy(logits.float(), labels[:, 0].long(), reduction="sum")
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="sum")


def _is_correct(kind: str, logits: Tensor, labels: Tensor) -> Tensor:
    """bool [R]."""
    if kind == "class":
        return logits.argmax(dim=-1) == labels[:, 0]
    return ((logits > 0) == (labels > 0.5)).all(dim=-1)
