"""A runner on paper: `lmctl.run.runner` itself, with stand-ins for what it has around it.

Network, precision, optimiser, exchange and adversary are the run's own. Stand-ins are its processes (`Alone`), DDP
(`Together`), the network between workers (`PaperWire`), and rows, which the adversary may ask for noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.augment.base import Augment
from lmctl.compression.wire import Wire
from lmctl.core.batch import Batch
from lmctl.core.steps import Exchange
from lmctl.core.vocabulary import Rewrite
from lmctl.cost.legal import Checked, build
from lmctl.cost.live import FEEDBACK, GRADIENTS, ROWS, STATES, WEIGHTS, Live
from lmctl.cost.rows import Sample
from lmctl.mix.stream import Position, Window
from lmctl.optim.adamw import AdamW
from lmctl.precision.base import Precision
from lmctl.run.memory import tensors_in
from lmctl.run.passes import MicroBatch, Part, Passes
from lmctl.run.proof import ROWS as PROOF_ROWS
from lmctl.run.proof import both_ways
from lmctl.run.runner import Runner, Step
from lmctl.run.state import TrainState

LATER = 1_000_000_000
"""Steps after which no warm-up is going on."""


class PaperRunner(Runner):
    """A run whose tensors have no contents; to be made and used where `on_paper` and `live` are in force."""

    def __init__(
        self, run: Checked, precision: Precision, samples: Mapping[str, Sample], checkpointing: bool, live: Live
    ) -> None:
        self.run, self.samples, self.live = run, samples, live
        optim = run.plan.optim
        if run.machine is not None and isinstance(optim, AdamW):
            optim = replace(optim, paged=False)  # states that only a GPU that is there could page
        with run.there():
            self.plan = replace(run.plan, precision=precision, optim=optim, compile=False)
        self.prepared, self.state = run.known.prepared, TrainState()
        self.processes = Alone(run.world, run.paper, live)  # type: ignore[assignment]
        with torch.device(run.paper):
            self._equip(build(run.plan, run.known, checkpointing), None, [s.batch for s in samples.values()])
        live.recount()
        for tensor in (*self.learner.parameters(), *self.learner.buffers()):
            live.call(tensor, WEIGHTS)
        for tensor in tensors_in(self.exchange.state_dict()):
            live.call(tensor, FEEDBACK)
        live.follow(self.learner.parameters())
        self.passes = PaperPasses(self)

    def prove(self) -> None:
        """What `run/proof.py` does with the first rows."""
        rows = min(PROOF_ROWS, self.plan.batch.rows)
        reference, logits, _ = both_ways(self.learner, next(iter(self.samples.values())).shaped(self._tensor, rows))
        (logits - reference).norm()

    def prepare(self) -> None:
        """Have the optimiser make its states, which its first step does; from gradients of nothing."""
        self._play([])
        for tensor in tensors_in(self.optimizer.state_dict()):
            self.live.call(tensor, STATES)

    def step(self) -> None:
        """An optimiser step: of its micro-batches the first two of every task, in this process's last worker; the
        others bring gradients of nothing."""
        with self.live.born(ROWS):
            batches = [batch for task in self.samples for batch in self._batches(task)]
        with self.live.keeping():
            self._play(batches)

    def traffic(self) -> tuple[int, int]:
        """Bytes of gradients that a worker sends in a step when no warm-up is going on, and what it would send in
        float32, uncompressed."""
        self._play([], step=LATER)
        return self.exchange.sent, self.exchange.dense

    def _play(self, batches: list[Batch], step: int = 0) -> None:
        """One step after `step` others."""
        self.state = TrainState(step=step)
        factors, idle = dict.fromkeys(self.samples, 1.0), len(self.exchange.places) - 1
        shares: list[list[Batch]] = [*([] for _ in range(idle)), batches]
        windows = [Window(share, factors, Position()) for share in shares]
        self._step(windows, dict.fromkeys(self.terms, 1.0), dict.fromkeys(self.samples, 0))

    def export(self) -> None:
        """Make room for a plain copy of the network, which is what stored weights, and those under adapters, are
        written as."""
        if self.plan.precision.storage is not None or self.plan.model.lora_rank:
            _ = [torch.empty(p.shape, device=p.device) for p in self.network.parameters()]

    def spent(self, of: Step | None = None, part: float = 1.0) -> float:
        """Half of the budget: the learning rate changes no size."""
        return 0.5

    def _batches(self, task: str) -> list[Batch]:
        sample = self.samples[task]
        micros = -(-round(sample.rows_per_step / self.run.workers) // sample.rows)
        return [sample.shaped(self._tensor) for _ in range(min(2, max(1, micros)))]

    def _exchange(self) -> Exchange:
        wire = PaperWire(0, self.run.world, self.run.workers if self.run.world == 1 else None)
        exchange = self.plan.compression.over(wire, self.learner, self.plan.clip_norm)
        return super()._exchange() if exchange is None else exchange

    def _tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.run.paper)


class Alone:
    """`Processes` of which there is only one here, whatever it is told."""

    def __init__(self, world: int, device: torch.device, live: Live) -> None:
        self.rank, self.world, self.device, self.live = 0, world, device, live

    def wrap(self, learner: nn.Module) -> Any:
        return learner if self.world == 1 else Together(learner, self.live)

    @contextmanager
    def unsynchronised(self, wrapped: Any) -> Iterator[None]:
        if not isinstance(wrapped, Together):
            yield
            return
        wrapped.exchanges = False
        try:
            yield
        finally:
            wrapped.exchanges = True


class Together:
    """DDP: a bucket for every gradient, there from the beginning. In the pass that exchanges gradients each goes into
    its bucket as soon as it is there (`gradient_as_bucket_view`)."""

    def __init__(self, learner: nn.Module, live: Live) -> None:
        self.learner, self.exchanges = learner, True
        with live.born(GRADIENTS):
            self.buckets = {p: torch.empty_like(p) for p in learner.parameters() if p.requires_grad}
        for parameter in self.buckets:
            parameter.register_post_accumulate_grad_hook(self._came)

    def __call__(self, batch: Batch | None) -> Any:
        return self.learner(batch)

    def _came(self, parameter: Any) -> None:
        if self.exchanges:
            parameter.grad = self.buckets[parameter]

    def register_comm_hook(self, state: Any, hook: Any) -> None:
        """Nothing is sent here anyway."""


class PaperWire(Wire):
    """Counts what would be sent."""

    def _summed(self, vector: Tensor) -> Tensor:
        return vector.clone()

    def _swapped(self, message: Tensor) -> Tensor:
        return torch.empty_like(message)

    def _gathered(self, message: Tensor) -> Tensor:
        return message.new_empty((self.world, len(message)))


class PaperPasses(Passes):
    """Micro-batches without text."""

    def _rewrite(self, augment: Augment) -> Rewrite:
        if self.runner.prepared.tokenizer is None:  # not known yet, and nothing will be rewritten
            return lambda pieces, generator: pieces
        return super()._rewrite(augment)

    def over(self, batch: Batch, part: Part) -> MicroBatch:
        return PaperMicroBatch(self, batch, part)


class PaperMicroBatch(MicroBatch):
    """Passes over rows that lie on the device and say nothing."""

    @cached_property
    def batch(self) -> Batch:
        return self.origin

    def start(self) -> Tensor:
        return self.zeros().detach()

    def noisy(self, augment: Augment) -> MicroBatch:
        return PaperMicroBatch(self.passes, self.origin, self.part, self.ledger)
