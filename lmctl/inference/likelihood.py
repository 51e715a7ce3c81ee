"""Log-likelihood of texts token by token, in nats: causal, and masked (pseudo-likelihood)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lmctl.core import progress
from lmctl.core.errors import ConfigError
from lmctl.core.pretrained_files import BROKEN
from lmctl.inference.length_batches import by_length, in_pools
from lmctl.inference.load import Loaded
from lmctl.inference.stride_windows import ContextWindow, windows

if TYPE_CHECKING:
    from torch import Tensor

LogProbs = np.ndarray
"""float64 [n]: the log-probability of each token of a text."""

Question: TypeAlias = "tuple[list[int], int]"
"""Token ids of a text with special tokens, and the position to mask."""


def causal(loaded: Loaded, texts: Iterable[list[int]], rows: int, length: int, stride: int) -> Iterator[LogProbs]:
    """log p(token | tokens before it) of each token of each text and of its end token. A text longer than the model's
    maximum length is split into windows."""

    def cut() -> Iterator[ContextWindow]:
        for pieces in texts:
            yield from windows([loaded.begin, *pieces, loaded.end], length, stride)

    parts: list[LogProbs] = []
    # Delayed by one window: a text is complete when the next one starts.
    for window, scores in scored(loaded, cut(), rows):
        if window.first and parts:
            yield np.concatenate(parts)
            parts = []
        parts.append(scores)
    if parts:
        yield np.concatenate(parts)


def scored(loaded: Loaded, stream: Iterable[ContextWindow], rows: int) -> Iterator[tuple[ContextWindow, LogProbs]]:
    """Each window with its log-probabilities, `rows` windows at a time."""

    def answer(batch: list[ContextWindow]) -> list[tuple[ContextWindow, LogProbs]]:
        found = window_scores(loaded, batch)
        progress.advance(sum(window.first for window in batch), "texts")
        return list(zip(batch, found, strict=True))

    return by_length(stream, lambda window: len(window.ids), rows, answer)


def window_scores(loaded: Loaded, batch: Sequence[ContextWindow]) -> list[LogProbs]:
    """The log-probabilities of each window; padding is at the end, where a causal model cannot see it."""
    import torch

    ids, mask = pad_texts([window.ids for window in batch], loaded.pad)
    ids, mask = ids.to(loaded.device), mask.to(loaded.device)
    inputs = {"input_ids": ids[:, :-1]}
    if not bool(mask.all()):
        inputs["attention_mask"] = mask[:, :-1]
    with torch.no_grad():
        logits = loaded.model(**inputs, use_cache=False).logits
    scores = target_scores(logits, ids[:, 1:])
    return [
        line[window.skip : len(window.ids) - 1] for line, window in zip(scores, batch, strict=True)
    ]  # fmt: skip


def carried(loaded: Loaded, stream: Iterable[ContextWindow]) -> Iterator[LogProbs]:
    """As `scored` for one text in windows without overlap, by a recurrent model that carries its state."""
    import torch

    state = None
    for window in stream:
        ids = torch.tensor([window.ids], device=loaded.device)
        with torch.no_grad():
            output = loaded.model(input_ids=ids[:, :-1], state=None if window.first else state, use_cache=True)
        state = output.state
        yield target_scores(output.logits, ids[:, 1:])[0]


def masked(loaded: Loaded, texts: Iterable[str], rows: int, length: int) -> Iterator[LogProbs]:
    """log p(token | all others) of each token of each text, masked one at a time (Salazar et al. 2020, section 2):
    their sum is the pseudo-log-likelihood. A text longer than `length` positions is split into independent parts."""
    before, behind = loaded.frame
    room = max(1, length - len(before) - len(behind))
    for pool in in_pools(texts, rows):
        questions: list[Question] = []
        counts = []
        for pieces in loaded.pieces(pool):
            for start in range(0, len(pieces), room):
                stretch = pieces[start : start + room]
                ids = [*before, *stretch, *behind]
                questions += [(ids, len(before) + place) for place in range(len(stretch))]
            counts.append(len(pieces))
        answers = by_length(questions, lambda question: len(question[0]), rows, lambda b: _masked_batch(loaded, b))
        found = np.split(np.fromiter(answers, np.float64), np.cumsum(counts)[:-1])
        progress.advance(len(pool), "texts")
        yield from found


def _masked_batch(loaded: Loaded, questions: Sequence[Question]) -> list[float]:
    """The log-probability of one masked token of each text."""
    import torch

    ids, mask = pad_texts([ids for ids, _ in questions], loaded.pad)
    lines, places = torch.arange(len(ids)), torch.tensor([place for _, place in questions])
    wanted = ids[lines, places]
    ids[lines, places] = loaded.mask
    with torch.no_grad():
        output = loaded.model(input_ids=ids.to(loaded.device), attention_mask=mask.to(loaded.device))
    progress.advance(len(questions), "masks")
    return list(target_scores(vocabulary_logits(output)[lines, places], wanted.to(loaded.device)).tolist())


def texts(loaded: Loaded, lines: Iterable[str], rows: int, length: int) -> Iterator[LogProbs]:
    """Log-probabilities of texts by a causal or masked language model."""
    if loaded.family == "encoder":
        return masked(loaded, lines, rows, length)
    encoded = (ids for pool in in_pools(lines, rows) for ids in loaded.pieces(pool))
    return causal(loaded, encoded, rows, length, max(1, length // 2))


def vocabulary_logits(output: Any) -> Tensor:
    """The logits over the vocabulary, under either name in the model's output."""
    logits = getattr(output, "prediction_logits", None)
    return output.logits if logits is None else logits


def target_scores(logits: Tensor, targets: Tensor) -> LogProbs:
    """log softmax of `logits` [..., V] at `targets` int64 [...], float64 on the host. ConfigError for NaN."""
    import torch

    flat = logits.reshape(-1, logits.shape[-1]).float()
    nats = torch.nn.functional.cross_entropy(flat, targets.reshape(-1), reduction="none")
    if nats.isnan().any():
        raise ConfigError(BROKEN)
    return -nats.reshape(targets.shape).double().cpu().numpy()


def pad_texts(texts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Texts padded at the end: ids int64 [R, L] and attention mask int64 [R, L]."""
    import torch

    width = max(map(len, texts))
    ids = torch.full((len(texts), width), pad)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return ids, mask
