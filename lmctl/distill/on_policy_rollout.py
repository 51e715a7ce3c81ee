"""On-policy rollouts: steps in which the student generates the texts it is trained on (`lmctl.distill.on_policy`).

Random numbers depend on seed and step for the choice of steps, and on seed, step and row content for tokens; prompt and
generation length of a row depend on its own length. So an interrupted run repeats the same texts, in any micro-batches.
Sampling uses the Gumbel-max trick (Gumbel 1954): the token with the largest logit / T - log(-log u), with u uniform in
(0, 1), is a sample of softmax(logit / T).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmctl.core.batch import Batch, Family, pad_rows
from lmctl.core.counter_rng import CounterRng
from lmctl.core.vocabulary import Vocabulary
from lmctl.distill.on_policy import OnPolicy
from lmctl.mix.stream import Window
from lmctl.model.generation import generate
from lmctl.objective.base import Examples, Material
from lmctl.objective.clm import next_piece_batch
from lmctl.objective.translate import seq2seq_batch
from lmctl.train.learner import Learner
from lmctl.train.rows import real_positions, row_generators


class OnPolicyRollout:
    """Generates training rows with the student."""

    def __init__(
        self, how: OnPolicy, learner: Learner, examples: Mapping[str, Examples], family: Family, seed: int
    ) -> None:
        self.how, self.learner, self.examples, self.family = how, learner, examples, family
        self.draws = CounterRng(seed, "on_policy")

    def is_rollout_step(self, step: int) -> bool:
        """Whether the student generates the window of step `step`."""
        return bool(self.draws.generator(step, 0).random() < self.how.share)

    def rewritten(self, window: Window, step: int) -> Window:
        """The window of a step, with generated texts in a rollout step."""
        if not self.is_rollout_step(step):
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
        return replace(write(batch, material, generators), generated=True)

    def _translation(self, batch: Batch, material: Material, generators: list[np.random.Generator]) -> Batch:
        source, mask = batch.inputs["input_ids"], batch.inputs.get("attention_mask")
        mask = torch.ones_like(source, dtype=torch.bool) if mask is None else mask
        room = min(material.seq_len, self.how.max_new_tokens or material.seq_len)
        written = self._generate(source, mask, room, material.vocabulary, generators)[:, 1:]
        lengths = _lengths(written, material.vocabulary.sep)
        return seq2seq_batch(material, source.numpy(), mask.sum(dim=1).numpy(), written, lengths)

    def _continuation(self, batch: Batch, material: Material, generators: list[np.random.Generator]) -> Batch:
        vocabulary, objective = material.vocabulary, self.learner.objectives[batch.task]
        apart = objective.separate_documents
        rows, real = whole_rows(batch)
        # Lengths depend on each row's own length, not on the batch. No row gets longer than the longest row of the
        # batch: prompt and room both grow with the row's length.
        stays = np.maximum(1, (self.how.prompt * real).astype(np.int64))
        room = np.minimum(real - stays, self.how.max_new_tokens or real.max())
        beginnings = [row[:count] for row, count in zip(rows, stays, strict=True)]
        contexts = [self._context(beginning, apart, vocabulary) for beginning in beginnings]
        written: list[np.ndarray] = [np.empty(0)] * len(rows)
        for some in self._batched_rows(contexts):
            mine = [generators[row] for row in some]
            lines = self._generated_after([contexts[row] for row in some], int(room[some].max()), vocabulary, mine)
            for row, line, own in zip(some, lines, _lengths(lines, vocabulary.sep), strict=True):
                written[row] = line[: min(own, room[row])]
        whole = [np.concatenate(parts) for parts in zip(beginnings, written, strict=True)]
        return next_piece_batch(material, *pad_rows(whole, vocabulary.pad), apart, first=stays - 1)

    def _batched_rows(self, contexts: list[np.ndarray]) -> list[list[int]]:
        """Row numbers grouped for generation in one batch: all rows; for a recurrent network, which would read the left
        padding, rows of equal length."""
        lengths = [len(context) for context in contexts]
        if _of_transformers(self.learner.network):
            return [list(range(len(contexts)))]
        return [[row for row, own in enumerate(lengths) if own == length] for length in sorted(set(lengths))]

    def _generated_after(
        self, contexts: list[np.ndarray], room: int, vocabulary: Vocabulary, generators: list[np.random.Generator]
    ) -> np.ndarray:
        """Generated tokens after the `contexts`, which are left-padded: int64 [R, T]."""
        width = max(map(len, contexts))
        ids = np.full((len(contexts), width), vocabulary.pad)
        for row, context in zip(ids, contexts, strict=True):
            row[width - len(context) :] = context
        mask = np.arange(width) >= width - np.array([[len(context)] for context in contexts])
        return self._generate(torch.from_numpy(ids), torch.from_numpy(mask), room, vocabulary, generators)[:, width:]

    def _context(self, beginning: np.ndarray, apart: bool, vocabulary: Vocabulary) -> np.ndarray:
        """The context of the next token: the document it belongs to. A recurrent network reads the row from its
        beginning, as in training."""
        if not apart or not _of_transformers(self.learner.network):
            return beginning
        starts = np.flatnonzero(beginning == vocabulary.sep)
        return beginning[starts[-1] :] if len(starts) else beginning

    def _generate(
        self, ids: Tensor, mask: Tensor, room: int, vocabulary: Vocabulary, generators: list[np.random.Generator]
    ) -> np.ndarray:
        """transformers' `generate`, int64 [R, T]: up to `room` new tokens, padded after the first [SEP]."""
        model, device = self.learner.network.pretrained(), self.learner.device
        noisy = GumbelNoise([int(g.integers(1 << 62)) for g in generators], self.how.temperature, vocabulary, device)
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


class GumbelNoise:
    """Gumbel-max sampling: noisy logits float32 [R, V] whose argmax samples softmax(logits / T), per row."""

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
    """Undo next-token shifting: the rows int64 [R, L + 1] of a batch, and their real lengths, int64 [R]."""
    inputs, target = batch.inputs["input_ids"].numpy(), batch.targets["lm"]
    rows = np.concatenate([inputs, inputs[:, -1:]], axis=1)
    row, place = np.divmod(target.positions.numpy(), inputs.shape[1])
    rows[row, place + 1] = target.labels.numpy()
    return rows, np.bincount(row, minlength=len(rows)) + 1


def _lengths(written: np.ndarray, end: int) -> np.ndarray:
    """Number of tokens up to and including the first `end`, int64 [R]; all if there is none."""
    ended = written == end
    return np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, written.shape[1])


def _of_transformers(network: Any) -> bool:
    return type(network.pretrained()).__module__.startswith("transformers.")
