"""Perturbations for adversarial training: shifted word embeddings and augmented texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmctl.augment.base import Augment
from lmctl.core.batch import Batch
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.vocabulary import Rewrite
from lmctl.plan import Plan
from lmctl.train.noisy_rows import Rewriting
from lmctl.train.prepare import Prepared
from lmctl.train.rows import real_positions, row_generators


class Embeddings:
    """Forward hook on an embedding module that adds a perturbation to its output."""

    def __init__(self, module: Any) -> None:
        self.width = int(module.embedding_dim)
        self._waiting: Tensor | None = None
        module.register_forward_hook(self._shift)

    def _shift(self, module: Any, inputs: Any, output: Tensor) -> Tensor | None:
        # Encoder and decoder may share the module; the encoder calls it first.
        shift, self._waiting = self._waiting, None
        return None if shift is None else output + shift.to(output.dtype)

    @contextmanager
    def shifted(self, shift: Tensor) -> Iterator[None]:
        """Context in which `shift` [R, L, H] is added to the module's next output."""
        self._waiting = shift
        try:
            yield
            if self._waiting is not None:
                raise LmctlError("adversary: the network did not read through its word embeddings; nothing was shifted")
        finally:
            self._waiting = None


class Perturbations(ABC):
    """Perturbations of a micro-batch; `window` is the number of the step, skipped steps included."""

    def __init__(self, network: Any, device: torch.device) -> None:
        self.network, self.device = network, device

    @cached_property
    def embeddings(self) -> Embeddings:
        """The hook on the network's word embeddings."""
        return Embeddings(self.network.word_embeddings())

    def real(self, batch: Batch) -> Tensor:
        """Mask bool [R, L], in host memory: True where not padding."""
        return real_positions(batch)

    def zeros(self, batch: Batch) -> Tensor:
        """A perturbation of zeros, float32 [R, L, H], with `requires_grad`."""
        shape = (*batch.inputs["input_ids"].shape, self.embeddings.width)
        return torch.zeros(shape, device=self.device, requires_grad=True)

    @abstractmethod
    def random_shift(self, batch: Batch, window: int) -> Tensor:
        """As `AttackedBatch.random_shift`, for rows in host memory."""

    @abstractmethod
    def rewritten(self, batch: Batch, augment: Augment, window: int) -> Batch:
        """The rows, in host memory, with augmented texts and unchanged targets."""


class TextPerturbations(Perturbations):
    """The perturbations of a run."""

    def __init__(self, plan: Plan, prepared: Prepared, network: Any, device: torch.device) -> None:
        super().__init__(network, device)
        self.plan, self.vocabulary = plan, prepared.vocabulary
        if plan.compile:  # hooks must be registered before compilation
            _ = self.embeddings
        self.rewrites = rewrites_of(plan.adversary.augments, prepared)

    def random_shift(self, batch: Batch, window: int) -> Tensor:
        generators = self._generators("start", batch, window)
        return random_start(self.real(batch), generators, self.embeddings.width, self.device)

    def rewritten(self, batch: Batch, augment: Augment, window: int) -> Batch:
        plan, on_rows = self.plan, self.plan.mix.tasks[batch.task].objective.label_kind is not None
        causal = plan.model.family == "decoder"
        rewriting = Rewriting(self.rewrites[id(augment)], self.vocabulary, plan.batch.seq_len, on_rows, causal)
        return rewriting(batch, self.real(batch), self._generators("noise", batch, window))

    def _generators(self, purpose: str, batch: Batch, window: int) -> list[np.random.Generator]:
        draws = CounterRng(self.plan.seed, f"{batch.task}/adversary/{purpose}")
        return row_generators(batch, self.real(batch), draws, window)


def rewrites_of(augments: Mapping[str, Augment], prepared: Prepared) -> dict[int, Rewrite]:
    """Prepare each augmentation, by its `id()`; ConfigError if it changes no text, before any work."""
    ready = {}
    for key, augment in augments.items():
        rewrite = augment.rewriter(prepared.tokenizer, prepared.vocabulary)
        if rewrite is None:
            raise ConfigError(
                f"adversary.{key}: {type(augment).__name__} changes no text, so there is nothing to hold out against",
                f"adversary.{key}=char_noise, or adversary=none",
            )
        ready[id(augment)] = rewrite
    return ready


def random_start(real: Tensor, generators: list[np.random.Generator], width: int, device: torch.device) -> Tensor:
    """Random perturbation float32 [R, L, width]: uniform from -1 to 1, divided by the square root of the number of
    values in the row; 0 where `real` bool [R, L] (in host memory) is False. Drawn on the device, with one seed per
    row."""
    start = torch.zeros(*real.shape, width, device=device)
    source = torch.Generator(device)
    for row, generator in enumerate(generators):
        places = real[row].nonzero().squeeze(-1).to(device)
        source.manual_seed(int(generator.integers(1 << 62)))
        numbers = torch.rand(len(places), width, generator=source, device=device) * 2 - 1
        start[row].index_copy_(0, places, numbers / max(1, numbers.numel()) ** 0.5)
    return start
