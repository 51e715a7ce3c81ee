"""Steps in which the student writes the texts it learns from (`lmctl.distill.on_policy`).

The lot is drawn by seed and step, each row's pieces by seed, step and what stands in the row, and how much of it stays
and how much may be written goes by its own length: a run that was interrupted draws the same again, in whatever
micro-batches. Drawing is greedy choice among noisy logits: the piece with the largest logit / T - log(-log u), u even
in (0, 1), is a draw from softmax(logit / T) (Gumbel 1954).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmctl.core.batch import Batch, Family
from lmctl.core.counter_rng import Draws
from lmctl.core.vocabulary import Vocabulary
from lmctl.distill.on_policy import OnPolicy
from lmctl.mix.stream import Window
from lmctl.model.generation import generate
from lmctl.objective.base import Examples, Material
from lmctl.objective.batching import rectangle
from lmctl.objective.clm import next_piece_batch
from lmctl.objective.translate import seq2seq_batch
from lmctl.train.learner import Learner
from lmctl.train.rows import real_positions, row_generators


class OwnTexts:
    """What the student writes."""

    def __init__(
        self, how: OnPolicy, learner: Learner, examples: Mapping[str, Examples], family: Family, seed: int
    ) -> None:
        self.how, self.learner, self.examples, self.family = how, learner, examples, family
        self.draws = Draws(seed, "on_policy")

    def turn(self, step: int) -> bool:
        """Whether the student writes in the `step`-th window."""
        return bool(self.draws.generator(step, 0).random() < self.how.share)

    def rewritten(self, window: Window, step: int) -> Window:
        """The window of a step, on the student's own texts if it is its turn."""
        if not self.turn(step):
            return window
        network = self.learner.network
        trained = network.training
        network.eval()
        try:
            with torch.no_grad(), self.learner.products():
                return replace(window, batches=[self._rewritten(batch, step) for batch in window.batches])
        finally:
            network.train(trained)

    def _rewritten(self, batch: Batch, step: int) -> Batch:
        material = self.examples[batch.task].material
        generators = row_generators(batch, real_positions(batch), self.draws.named("pieces"), step)
        write = self._translation if self.family == "seq2seq" else self._continuation
        return replace(write(batch, material, generators), own=True)

    def _translation(self, batch: Batch, material: Material, generators: list[np.random.Generator]) -> Batch:
        source, mask = batch.inputs["input_ids"], batch.inputs.get("attention_mask")
        mask = torch.ones_like(source, dtype=torch.bool) if mask is None else mask
        room = min(material.seq_len, self.how.max_new_tokens or material.seq_len)
        written = self._write(source, mask, room, material.vocabulary, generators)[:, 1:]
        lengths = _lengths(written, material.vocabulary.sep)
        return seq2seq_batch(material, source.numpy(), mask.sum(dim=1).numpy(), written, lengths)

    def _continuation(self, batch: Batch, material: Material, generators: list[np.random.Generator]) -> Batch:
        vocabulary, objective = material.vocabulary, self.learner.objectives[batch.task]
        apart = objective.separate_documents
        rows, real = whole_rows(batch)
        # By each row's own length, whatever the others are. No row can outgrow what the longest was: both parts of it
        # grow with its length.
        stays = np.maximum(1, (self.how.prompt * real).astype(np.int64))
        room = np.minimum(real - stays, self.how.max_new_tokens or real.max())
        beginnings = [row[:count] for row, count in zip(rows, stays, strict=True)]
        contexts = [self._context(beginning, apart, vocabulary) for beginning in beginnings]
        written: list[np.ndarray] = [np.empty(0)] * len(rows)
        for some in self._together(contexts):
            mine = [generators[row] for row in some]
            lines = self._behind([contexts[row] for row in some], int(room[some].max()), vocabulary, mine)
            for row, line, own in zip(some, lines, _lengths(lines, vocabulary.sep), strict=True):
                written[row] = line[: min(own, room[row])]
        whole = [np.concatenate(parts) for parts in zip(beginnings, written, strict=True)]
        return next_piece_batch(material, *rectangle(whole, vocabulary.pad), apart, first=stays - 1)

    def _together(self, contexts: list[np.ndarray]) -> list[list[int]]:
        """Rows that may be continued side by side, by their numbers: all; of a recurrent network, which would read the
        padding before the shorter ones, those of one length."""
        lengths = [len(context) for context in contexts]
        if _of_transformers(self.learner.network):
            return [list(range(len(contexts)))]
        return [[row for row, own in enumerate(lengths) if own == length] for length in sorted(set(lengths))]

    def _behind(
        self, contexts: list[np.ndarray], room: int, vocabulary: Vocabulary, generators: list[np.random.Generator]
    ) -> np.ndarray:
        """int64 [R, T]: what follows the `contexts`, which are padded at their beginnings."""
        width = max(map(len, contexts))
        ids = np.full((len(contexts), width), vocabulary.pad)
        for row, context in zip(ids, contexts, strict=True):
            row[width - len(context) :] = context
        mask = np.arange(width) >= width - np.array([[len(context)] for context in contexts])
        return self._write(torch.from_numpy(ids), torch.from_numpy(mask), room, vocabulary, generators)[:, width:]

    def _context(self, beginning: np.ndarray, apart: bool, vocabulary: Vocabulary) -> np.ndarray:
        """What the next piece may look at: the document that it belongs to. A recurrent network reads all rows from
        their beginning, whatever stands there."""
        if not apart or not _of_transformers(self.learner.network):
            return beginning
        starts = np.flatnonzero(beginning == vocabulary.sep)
        return beginning[starts[-1] :] if len(starts) else beginning

    def _write(
        self, ids: Tensor, mask: Tensor, room: int, vocabulary: Vocabulary, generators: list[np.random.Generator]
    ) -> np.ndarray:
        """transformers' `generate`, int64 [R, T]: up to `room` new pieces, padded behind the first [SEP]."""
        model, device = self.learner.network.pretrained(), self.learner.device
        noisy = Noisy([int(g.integers(1 << 62)) for g in generators], self.how.temperature, vocabulary, device)
        settings = {
            "max_new_tokens": room,
            "do_sample": False,
            "use_cache": True,
            "eos_token_id": vocabulary.sep,
            "pad_token_id": vocabulary.pad,
        }
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.long().to(device)}
        written: Tensor = generate(model, inputs, settings, logits_processor=[noisy])
        return written.cpu().numpy()


class Noisy:
    """Logits float32 [R, V] such that the largest is a draw from softmax(logits / T), for each row by itself."""

    def __init__(self, seeds: Sequence[int], temperature: float, vocabulary: Vocabulary, device: Any) -> None:
        self.sources = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.temperature, self.vocabulary = temperature, vocabulary

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        size = self.vocabulary.size
        even = torch.stack([torch.rand(size, generator=source, device=scores.device) for source in self.sources])
        noise = -torch.log(-torch.log(even.clamp(1e-20, 1 - 1e-7)))
        noisy = torch.full_like(scores, -torch.inf)  # embeddings may be padded beyond the vocabulary
        noisy[:, :size] = scores[:, :size].float() / self.temperature + noise
        if self.vocabulary.pad != self.vocabulary.sep:
            noisy[:, self.vocabulary.pad] = -torch.inf
        return noisy


def whole_rows(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """The rows int64 [R, L + 1] that a batch of next pieces was made of, and how many of each are real, int64 [R]."""
    inputs, target = batch.inputs["input_ids"].numpy(), batch.targets["lm"]
    rows = np.concatenate([inputs, inputs[:, -1:]], axis=1)
    row, place = np.divmod(target.positions.numpy(), inputs.shape[1])
    rows[row, place + 1] = target.labels.numpy()
    return rows, np.bincount(row, minlength=len(rows)) + 1


def _lengths(written: np.ndarray, end: int) -> np.ndarray:
    """int64 [R]: pieces up to the first `end`, that one included; all if there is none."""
    ended = written == end
    return np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, written.shape[1])


def _of_transformers(network: Any) -> bool:
    return type(network.pretrained()).__module__.startswith("transformers.")
