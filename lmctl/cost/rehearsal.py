"""Rehearsal: one optimiser step on fake tensors, while `MemoryTracker` counts the memory.

The step is `lmctl.train.step.TrainStep` itself; learner, precision, optimiser, exchange and adversary are the run's
own. Stand-ins are its processes (`FakeProcesses`), DDP (`FakeDdp`), the network between workers (`FakeWire`), and rows,
which the adversary may need for noise. The optimiser's states are created beforehand, as in the first step of a run.
Outside the step, two things may need more memory: the precision's proof before the first step, and the plain copy of
stored weights for export. Validation saves nothing for a backward pass and is smaller.

Two things differ from a real step. If all rows are full and of one document, transformers detects from their values
that a decoder needs no mask; here it makes one, and attention saves one more tensor per layer. And a component that
calls a library of its own may need real values (see `rehearse`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.augment.base import Augment
from lmctl.config.schema import SpikeGuard
from lmctl.core.batch import Batch
from lmctl.core.collectives import Collective
from lmctl.core.errors import LmctlError
from lmctl.cost.fake_processes import FakeDdp, FakeProcesses
from lmctl.cost.fake_tensors import fake_tensor_mode, on_gpu
from lmctl.cost.memory_tracker import FEEDBACK, ROWS, STATES, WEIGHTS, MemoryTracker, Peak
from lmctl.cost.rows import Sample
from lmctl.cost.sharding import FakeFsdp
from lmctl.cost.validate import Checked, build
from lmctl.mix.stream import Position, Window
from lmctl.optim.adamw import AdamW
from lmctl.parallel.strategy import DdpStrategy, Strategy
from lmctl.precision.base import Precision
from lmctl.precision.fp32 import Fp32
from lmctl.precision.half_linear import half_copies
from lmctl.train.build_step import train_step
from lmctl.train.perturbations import Perturbations, rewrites_of
from lmctl.train.precision_proof import ROWS as PROOF_ROWS
from lmctl.train.precision_proof import logits_in_both_precisions
from lmctl.train.step import StepContext
from lmctl.train.step_guard import StepGuard
from lmctl.train.weight_memory import tensors_in

STEP, BEFORE, AFTER = "a step", "the beginning", "the export"
"""Phases of a run."""
LATER = 1_000_000_000
"""A step number after the end of any warm-up."""


@dataclass(frozen=True)
class Rehearsal:
    """The result of a rehearsal."""

    peak: Peak
    most: dict[str, int]
    """Maximum bytes of each kind of tensor at any time of the step."""
    moment: str
    """The phase of the peak."""
    sent: int
    """Bytes of gradients that one worker sends per step, after any warm-up."""
    dense: int
    """Bytes that it would send in float32 without compression."""
    products: int
    """Number of half-precision matrix products of different shapes."""
    collectives: tuple[Collective, ...] = ()
    """The operations of a sharded step."""
    host: int = 0
    """Bytes of shards that are in host memory, and not on the GPU."""
    remarks: tuple[str, ...] = ()
    """What could not be rehearsed, and its replacement."""


def rehearse(run: Checked, samples: Mapping[str, Sample], checkpointing: bool) -> Rehearsal:
    """Rehearse a step of `run`. A precision that does not work on fake tensors is replaced by fp32, with a remark.
    ConfigError as in `train` if a component refuses the run."""
    precision = run.plan.precision
    try:
        return _rehearsal(run, precision, samples, checkpointing)
    except LmctlError:
        raise
    except Exception as error:
        if isinstance(precision, Fp32):
            raise
        rehearsal = _rehearsal(run, Fp32(), samples, checkpointing)
        why = f"{type(precision).__name__} is counted as fp32: {_first(error)}"
        return replace(rehearsal, remarks=(*rehearsal.remarks, why))


def _rehearsal(run: Checked, precision: Precision, samples: Mapping[str, Sample], checkpointing: bool) -> Rehearsal:
    live, peaks = MemoryTracker(_vocabulary(run)), {}
    with fake_tensor_mode(), nullcontext() if run.machine is None else on_gpu(), live:
        stage = StepRehearsal(run, precision, samples, checkpointing, live)
        if run.device.type != "cpu":  # networks are built on the CPU
            live.restart()
        stage.prove()
        peaks[BEFORE] = live.seen()
        stage.prepare()
        live.restart()
        stage.rehearse()
        peaks[STEP], most, products = live.seen(), live.most, len(live.products)
        sent, dense = stage.traffic()
        live.restart()
        stage.export()
        peaks[AFTER] = live.seen()
    collectives: tuple[Collective, ...] = ()
    host = 0
    if isinstance(strategy := stage.step.strategy, FakeFsdp):
        peaks = {name: strategy.of_shards(peak) for name, peak in peaks.items()}
        host, most, collectives = strategy.host(most), strategy.kinds(most), strategy.collectives()
    moment = max(peaks, key=lambda name: peaks[name].total)
    return Rehearsal(peaks[moment], most, moment, sent, dense, products, collectives, host)


def _vocabulary(run: Checked) -> int:
    """Width of the vocabulary's logits: its size, or the padded size of the model."""
    size = run.known.vocabulary.size
    tables = (module.num_embeddings for module in run.outline.modules() if isinstance(module, nn.Embedding))
    return min((rows for rows in tables if rows >= size), default=size)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class StepRehearsal:
    """A train step on fake tensors; to be built and used inside `fake_tensor_mode` and `live`."""

    def __init__(
        self,
        run: Checked,
        precision: Precision,
        samples: Mapping[str, Sample],
        checkpointing: bool,
        live: MemoryTracker,
    ) -> None:
        self.run, self.samples, self.live = run, samples, live
        optim = run.plan.optim
        if run.machine is not None and isinstance(optim, AdamW):
            optim = replace(optim, paged=False)  # paged states need a real GPU
        with run.there():
            # What a guard decides depends on values, which fake tensors have not.
            unguarded: dict[str, Any] = {"on_nonfinite": "stop", "spike": SpikeGuard()}
            self.plan = replace(run.plan, precision=precision, optim=optim, compile=False, **unguarded)
        if run.known.prepared.tokenizer is not None:  # None if it is not known
            rewrites_of(self.plan.adversary.augments, run.known.prepared)
        strategy = self._strategy()
        with torch.device(run.fake_device):
            network = build(run.plan, run.known, checkpointing)
            rows = [sample.batch for sample in samples.values()]
            perturbations = FakePerturbations(network, run.fake_device)
            guard = StepGuard(self.plan, strategy.processes)
            self.step, _ = train_step(self.plan, network, None, rows, strategy, perturbations, guard)
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
        """The forward pass of `train/precision_proof.py` on the first rows."""
        rows = min(PROOF_ROWS, self.plan.batch.rows)
        reference, logits, _ = logits_in_both_precisions(
            self.learner, next(iter(self.samples.values())).shaped(self._tensor, rows)
        )
        (logits - reference).norm()
        for copy in half_copies(self.learner):
            if copy.values is not None:
                self.live.call(copy.values, WEIGHTS)

    def prepare(self) -> None:
        """Create the optimiser's states, as its first step does, from zero gradients."""
        self._run_step([])
        outer = tensors_in(self.step.strategy.shared_state_dict())
        for tensor in (*tensors_in(self.step.optimizer.state_dict()), *outer, *self.step.average.mean.values()):
            self.live.call(tensor, STATES)

    def rehearse(self) -> None:
        """An optimiser step, with the first two micro-batches of every task, in this process's last worker; the others
        only contribute zero gradients."""
        with self.live.born(ROWS):
            batches = [batch for task in self.samples for batch in self._batches(task)]
        with self.live.keeping():
            self._run_step(batches)

    def traffic(self) -> tuple[int, int]:
        """Bytes that a worker sends per step after any warm-up, and in float32 without compression; where not every
        step ends with an exchange, the mean."""
        strategy = self.step.strategy
        with_exchange = self._run_step([], LATER)
        without = self._run_step([], LATER, last=False) if strategy.every > 1 else with_exchange
        return without + (with_exchange - without) // strategy.every, strategy.dense

    def _run_step(self, batches: list[Batch], step: int = 0, last: bool = True) -> int:
        """One step, as step number `step`, with half of the budget spent; returns the bytes that it sent. It ends as
        the `last` one does, or as the first of several between two exchanges."""
        window = Window(batches, dict.fromkeys(self.samples, 1.0), Position())
        self.step(window, self.counts, StepContext(step, step, 0.5, self.plan.optim.lr))
        self.step.zero_grad()
        self.step.strategy.after_step(True, last)
        return self.step.strategy.sent

    def _strategy(self) -> Strategy:
        """The strategy of the run's first worker; the other workers do not exist."""
        run, plan = self.run, self.plan
        processes: Any = FakeProcesses(run.workers, run.fake_device, run.world == 1 and run.workers > 1)
        if (shards := plan.runner.shards(run.world)) > 1:
            micros = sum(self._micro_batches(sample) for sample in self.samples.values())
            passes = round(micros * plan.adversary.passes)
            return FakeFsdp(processes, shards, passes, plan.compression, plan.runner.offload)
        strategy = plan.runner.strategy(processes, plan.compression, plan.clip_norm)
        return FakeDdp(processes, self.live) if isinstance(strategy, DdpStrategy) else strategy

    def export(self) -> None:
        """Allocate a plain copy of the network, as made for the export of stored weights and of weights under
        adapters; shards are merged one by one."""
        sharded = isinstance(self.step.strategy, FakeFsdp)
        if self.plan.precision.storage is not None or (self.plan.model.lora_rank and not sharded):
            _ = [torch.empty(p.shape, device=p.device) for p in self.learner.network.parameters()]

    def _batches(self, task: str) -> list[Batch]:
        sample = self.samples[task]
        return [sample.shaped(self._tensor) for _ in range(min(2, self._micro_batches(sample)))]

    def _micro_batches(self, sample: Sample) -> int:
        """Number of micro-batches of a task that a worker has in a step."""
        return max(1, -(-round(sample.rows_per_step / self.run.workers) // sample.rows))

    def _tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.run.fake_device)


class FakePerturbations(Perturbations):
    """Perturbations of rows without text."""

    def random_shift(self, batch: Batch, window: int) -> Tensor:
        return self.zeros(batch).detach()

    def rewritten(self, batch: Batch, augment: Augment, window: int) -> Batch:
        return batch
