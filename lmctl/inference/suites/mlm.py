"""`suite=mlm`: masked language modelling: loss and accuracy at masks, and pseudo-perplexity.

15 % of the tokens of each row are masked (all by the mask token: none is replaced or kept as in training), always the
same ones. Pseudo-perplexity masks one token at a time (Salazar et al. 2020, section 2.3). Next-sentence accuracy is
measured if the model was trained for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np

from lmctl.core import progress
from lmctl.core.counter_rng import CounterRng
from lmctl.core.typing_errors import words
from lmctl.inference.length_batches import by_length
from lmctl.inference.likelihood import masked, pad_texts, target_scores, vocabulary_logits
from lmctl.inference.load import Loaded
from lmctl.inference.suites.job import Figures, SuiteJob, nothing
from lmctl.inference.suites.next_sentence import next_sentence

SHARE = 0.15


def evaluate(job: SuiteJob) -> Figures:
    """Loss in nats and accuracy at masked positions, pseudo-perplexity, next-sentence accuracy."""
    loaded, draws = job.loaded, CounterRng(job.config.seed, "eval/mlm")
    count = nats = right = 0.0
    answers = by_length(
        enumerate(_rows(job)),
        lambda row: len(row[1]),
        job.config.batch,
        lambda batch: _fill(loaded, batch, draws),
    )
    for masks, loss, hits in answers:
        count, nats, right = count + masks, nats + loss, right + hits
    if not count:
        raise nothing("mlm")
    figures: Figures = {"loss": nats / count, "accuracy": right / count, "masked": int(count)}
    return figures | _pseudo(job) | next_sentence(job, draws.named("nsp"))


def _rows(job: SuiteJob) -> Iterator[list[int]]:
    """Each document in parts that fit between the special tokens."""
    room = max(1, job.length - sum(map(len, job.loaded.frame)))
    for row in job.rows():
        pieces = job.loaded.document(row.texts)
        yield from (pieces[start : start + room] for start in range(0, len(pieces), room))


def _fill(loaded: Loaded, batch: list[tuple[int, list[int]]], draws: CounterRng) -> list[tuple[int, float, int]]:
    """Per row: number of masked tokens, their loss, and the number predicted correctly."""
    import torch

    before, behind = loaded.frame
    framed = [[*before, *pieces, *behind] for _, pieces in batch]
    ids, mask = pad_texts(framed, loaded.pad)
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    for place, (number, pieces) in enumerate(batch):
        some = max(1, round(SHARE * len(pieces)))
        order = draws.generator(0, number).permutation(len(pieces))[:some]
        chosen[place, torch.from_numpy(order) + len(before)] = True
    wanted = ids[chosen]
    ids[chosen] = loaded.mask
    with torch.no_grad():
        output = loaded.model(input_ids=ids.to(loaded.device), attention_mask=mask.to(loaded.device))
    logits = vocabulary_logits(output)[chosen.to(loaded.device)]
    nats = -target_scores(logits, wanted.to(loaded.device))
    right = (logits.argmax(dim=-1).cpu() == wanted).numpy()
    ends = np.cumsum(chosen.sum(dim=1).numpy())[:-1]
    return [
        (len(losses), float(losses.sum()), int(hits.sum()))
        for losses, hits in zip(np.split(nats, ends), np.split(right, ends), strict=True)
    ]


def _pseudo(job: SuiteJob) -> Figures:
    """Pseudo-perplexity over the sentences of the first rows."""
    rows = list(islice(job.rows(), job.config.limit))
    sentences = [sentence for row in rows for sentence in row.texts]
    number = sum(len(words(sentence)) for sentence in sentences)
    count, nats = 0, 0.0
    masks = sum(map(len, job.loaded.pieces(sentences)))
    with progress.stage(f"pseudo-perplexity of {len(rows):,} rows", masks, "masks"):
        for line in masked(job.loaded, sentences, job.config.batch, job.length):
            nats -= float(line.sum())
            count += len(line)
    return {
        "pseudo_perplexity": math.exp(nats / max(1, count)),
        "pseudo_perplexity_per_word": math.exp(min(700.0, nats / max(1, number))),
        "pseudo_perplexity_rows": len(rows),
    }
