"""Next-sentence accuracy (Devlin et al. 2019, section 3.1), part of `suite=mlm`.

Each document is split between two sentences; with equal probability its first half is followed by its own second half
or by that of the document before it, both cut to the same length before their ends, so that neither lengths nor final
words reveal the label.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lmctl.core.counter_rng import CounterRng
from lmctl.inference.length_batches import by_length
from lmctl.inference.likelihood import pad_texts
from lmctl.inference.load import Loaded
from lmctl.inference.suites.job import Figures, SuiteJob


class SentencePair(NamedTuple):
    first: list[int]
    second: list[int]
    foreign: bool
    """Whether `second` is from another document."""


def next_sentence(job: SuiteJob, draws: CounterRng) -> Figures:
    """Accuracy over all documents of two or more sentences; {} if the model was not trained for it."""
    if not _trained_for_it(job.loaded):
        return {}
    answers = by_length(
        _pairs(job, draws),
        lambda pair: len(pair.first) + len(pair.second),
        job.config.batch,
        lambda batch: _are_correct(job.loaded, batch),
    )
    right = count = 0
    for hit in answers:
        right, count = right + hit, count + 1
    return {"nsp_accuracy": right / count, "nsp_pairs": count} if count else {}


def _trained_for_it(loaded: Loaded) -> bool:
    """Whether its head for pairs was trained on next-sentence prediction: recorded for models of lmctl, assumed for
    others."""
    if not hasattr(getattr(loaded.model, "cls", None), "seq_relationship"):
        return False
    return loaded.tasks is None or any("NextSentence" in task["objective"] for task in loaded.tasks.values())


def _pairs(job: SuiteJob, draws: CounterRng) -> Iterator[SentencePair]:
    room = (job.length - 3) // 2
    before: list[int] | None = None
    for number, row in enumerate(job.rows()):
        half = len(row.texts) // 2
        if not half:
            continue
        first, own = job.loaded.document(row.texts[:half])[-room:], job.loaded.document(row.texts[half:])[:room]
        foreign = before is not None and draws.generator(0, number).random() < 0.5
        if first and own:
            shorter = min(len(own), len(before or own))
            second = before if foreign and before else own
            yield SentencePair(first, second[: max(1, shorter - 1 - shorter // 8)], foreign)
            before = own


def _are_correct(loaded: Loaded, batch: list[SentencePair]) -> list[bool]:
    import torch

    ids, mask = pad_texts([[loaded.begin, *a, loaded.end, *b, loaded.end] for a, b, _ in batch], loaded.pad)
    starts = torch.tensor([len(a) + 2 for a, _, _ in batch])
    types = (torch.arange(ids.shape[1]) >= starts[:, None]).long() * mask
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    with torch.no_grad():
        output = loaded.model(**{name: value.to(loaded.device) for name, value in inputs.items()})
    predicted = output.seq_relationship_logits.argmax(dim=-1).tolist()  # 1: another document
    return [bool(answer) == pair.foreign for answer, pair in zip(predicted, batch, strict=True)]
