"""Factory of the optimiser step: network, losses, precision, strategy and optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmctl.core.batch import Batch
from lmctl.distill.base import Teacher
from lmctl.distill.distillation import Distillation
from lmctl.distill.teacher import recorder_for
from lmctl.kernels import backend, cross_entropy
from lmctl.model.counter_dropout import use_counter_dropout
from lmctl.parallel.strategy import Strategy
from lmctl.plan import Plan
from lmctl.train.build_parts import check_network
from lmctl.train.learner import Learner
from lmctl.train.loss_balance import Uncertainty
from lmctl.train.perturbations import Perturbations
from lmctl.train.step import Guard, TrainStep


def train_step(
    plan: Plan,
    network: Any,
    teacher: Teacher | None,
    examples: Sequence[Batch],
    strategy: Strategy,
    perturbations: Perturbations,
    guard: Guard,
) -> tuple[TrainStep, list[str]]:
    """Build the `TrainStep` of `plan` over `network`, on the device of `strategy`; also returns lines about the
    conversion by the precision. `examples`: one batch of every task."""
    backend.use_compiled(plan.kernels != "torch")
    cross_entropy.use(plan.cross_entropy)
    device, objectives = strategy.processes.device, {name: task.objective for name, task in plan.mix.tasks.items()}
    check_network(plan, network)
    converted = plan.precision.convert(network, device)
    if device.type == "cpu" and not plan.compile:  # compiled code draws its own random numbers
        use_counter_dropout(network)
    losses = [f"{batch.task}/{term}" for batch in examples for term in batch.targets]
    squared = [name for name in losses if objectives[name.rsplit("/", 1)[0]].label_kind == "number"]
    balance = Uncertainty(losses, squared) if plan.mix.balance == "uncertainty" else None
    distillation = None
    if teacher is not None:
        distillation = Distillation(teacher, plan.distill, objectives, recorder_for(plan.distill, network))
    learner = Learner(network, objectives, plan.precision, device, balance, distillation, plan.z_loss)
    learner.train()
    if plan.compile:
        network.compile_body()
    strategy.prepare(learner)
    optimizer = plan.precision.optimiser(plan.optim, learner, strategy.storage, plan.seed)
    scaler = plan.precision.scaler(device)
    average = strategy.weights(network, plan.average)
    adversary, idle = plan.adversary, examples[0].by_itself()
    step = TrainStep(
        learner, optimizer, scaler, strategy, adversary, perturbations, plan.clip_norm, guard, average, idle
    )
    return step, converted
