"""A rehearsal of the optimiser step: `lmctl.train.step.TrainStep` itself, with stand-ins for what it has around it.

Learner, precision, optimiser, exchange, adversary and step are the run's own. Stand-ins are its processes (`Alone`),
DDP (`FakeDdp`), the network between workers (`FakeWire`), and rows, which the adversary may ask for noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lmctl.augment.base import Augment
from lmctl.compression.traffic import all_reduce_bytes
from lmctl.compression.wire import Wire
from lmctl.core.batch import Batch
from lmctl.cost.memory_tracker import FEEDBACK, GRADIENTS, ROWS, STATES, WEIGHTS, Live
from lmctl.cost.rows import Sample
from lmctl.cost.validate import Checked, build
from lmctl.mix.stream import Position, Window
from lmctl.optim.adamw import AdamW
from lmctl.parallel.strategy import Exchanged, Single, Strategy
from lmctl.precision.base import Precision
from lmctl.train.learner import Learner
from lmctl.train.perturbations import Perturbations, rewrites_of
from lmctl.train.precision_proof import ROWS as PROOF_ROWS
from lmctl.train.precision_proof import both_ways
from lmctl.train.setup import train_step
from lmctl.train.step import Moment
from lmctl.train.weight_memory import tensors_in

LATER = 1_000_000_000
"""Steps after which no warm-up is going on."""


class Stage:
    """A step whose tensors have no contents; to be made and used where `on_paper` and `live` are in force."""

    def __init__(
        self, run: Checked, precision: Precision, samples: Mapping[str, Sample], checkpointing: bool, live: Live
    ) -> None:
        self.run, self.samples, self.live = run, samples, live
        optim = run.plan.optim
        if run.machine is not None and isinstance(optim, AdamW):
            optim = replace(optim, paged=False)  # states that only a GPU that is there could page
        with run.there():
            self.plan = replace(run.plan, precision=precision, optim=optim, compile=False)
        if run.known.prepared.tokenizer is not None:  # else it is not known yet
            rewrites_of(self.plan.adversary.augments, run.known.prepared)
        strategy = self._strategy()
        with torch.device(run.paper):
            network = build(run.plan, run.known, checkpointing)
            rows = [sample.batch for sample in samples.values()]
            perturbations = FakePerturbations(network, run.paper)
            self.step, _ = train_step(self.plan, network, None, rows, strategy, perturbations)
        self.learner = self.step.learner
        terms = [f"{batch.task}/{term}" for batch in rows for term in self.learner.counts(batch)]
        self.counts = dict.fromkeys(terms, 1.0)
        live.recount()
        for tensor in (*self.learner.parameters(), *self.learner.buffers()):
            live.call(tensor, WEIGHTS)
        for tensor in tensors_in(strategy.state_dict()):
            live.call(tensor, FEEDBACK)
        live.follow(self.learner.parameters())

    def prove(self) -> None:
        """What `train/precision_proof.py` does with the first rows."""
        rows = min(PROOF_ROWS, self.plan.batch.rows)
        reference, logits, _ = both_ways(self.learner, next(iter(self.samples.values())).shaped(self._tensor, rows))
        (logits - reference).norm()

    def prepare(self) -> None:
        """Have the optimiser make its states, which its first step does; from gradients of nothing."""
        self._play([])
        for tensor in tensors_in(self.step.optimizer.state_dict()):
            self.live.call(tensor, STATES)

    def rehearse(self) -> None:
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
        return self.step.strategy.sent, self.step.strategy.dense

    def _play(self, batches: list[Batch], step: int = 0) -> None:
        """One step after `step` others, half of the budget being spent."""
        window = Window(batches, dict.fromkeys(self.samples, 1.0), Position())
        self.step(window, self.counts, Moment(step, step, 0.5, self.plan.optim.lr))
        self.step.zero_grad()

    def _strategy(self) -> Strategy:
        """That of the first of the run's workers, the others being elsewhere."""
        run, plan = self.run, self.plan
        processes: Any = Alone(run.workers, run.paper, run.world == 1 and run.workers > 1)
        if plan.compression.sends or processes.simulated:
            return Exchanged(processes, plan.compression, plan.clip_norm)
        return FakeDdp(processes, self.live) if run.world > 1 else Single(processes)

    def export(self) -> None:
        """Make room for a plain copy of the network, which is what stored weights, and those under adapters, are
        written as."""
        if self.plan.precision.storage is not None or self.plan.model.lora_rank:
            _ = [torch.empty(p.shape, device=p.device) for p in self.learner.network.parameters()]

    def _batches(self, task: str) -> list[Batch]:
        sample = self.samples[task]
        micros = -(-round(sample.rows_per_step / self.run.workers) // sample.rows)
        return [sample.shaped(self._tensor) for _ in range(min(2, max(1, micros)))]

    def _tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.run.paper)


class Alone:
    """`Processes` of which there is only one here, whatever it is told."""

    rank = 0

    def __init__(self, world: int, device: torch.device, simulated: bool) -> None:
        self.world, self.device, self.simulated = world, device, simulated

    def wire(self) -> Wire:
        return FakeWire(0, self.world)

    def sum(self, values: list[float]) -> list[float]:
        return values

    def agree(self, value: Any) -> Any:
        return value


class FakeDdp(Single):
    """DDP: a bucket for every gradient, there from the beginning. In the pass that exchanges gradients each goes into
    its bucket as soon as it is there (`gradient_as_bucket_view`)."""

    def __init__(self, processes: Any, live: Live) -> None:
        super().__init__(processes)
        self.live, self.exchanges = live, True

    def prepare(self, learner: Learner) -> None:
        super().prepare(learner)
        learns = [p for p in learner.parameters() if p.requires_grad]
        with self.live.born(GRADIENTS):
            self.buckets = {p: torch.empty_like(p) for p in learns}
        for parameter in self.buckets:
            parameter.register_post_accumulate_grad_hook(self._came)
        self.sent = all_reduce_bytes(sum(p.numel() * p.element_size() for p in learns), self.workers)
        self.dense = all_reduce_bytes(sum(4 * p.numel() for p in learns), self.workers)

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        self.exchanges = last
        yield

    def _came(self, parameter: Any) -> None:
        if self.exchanges:
            parameter.grad = self.buckets[parameter]


class FakeWire(Wire):
    """Counts what would be sent."""

    def _summed(self, vector: Tensor) -> Tensor:
        return vector.clone()

    def _swapped(self, messages: Tensor) -> Tensor:
        return torch.empty_like(messages)

    def _gathered(self, message: Tensor) -> Tensor:
        return message.new_empty((self.world, len(message)))


class FakePerturbations(Perturbations):
    """Rows without text."""

    def random_shift(self, batch: Batch, window: int) -> Tensor:
        return self.zeros(batch).detach()

    def rewritten(self, batch: Batch, augment: Augment, window: int) -> Batch:
        return batch
