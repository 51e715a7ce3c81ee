"""Multi-task mix: named tasks on one network, with sampling shares and loss weights. A task may use names of options:
`corpus: {objective: mlm_nsp, data: pydocs, weight: 0.8}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from lmctl.augment.base import Augment
from lmctl.core.component import Component
from lmctl.core.errors import ConfigError
from lmctl.core.piecewise import check_curve, curve_at, points_of
from lmctl.data.base import Source
from lmctl.model.base import A_FAMILY, NEAREST_MODEL, ModelSpec
from lmctl.objective.base import Objective

if TYPE_CHECKING:
    from lmctl.plan import Plan

UNITS = ("examples", "tokens")
BALANCES = ("fixed", "uncertainty")


@dataclass(frozen=True)
class Task:
    """One task: an objective on a data source."""

    objective: Objective
    data: Source
    augment: Optional[Augment] = None
    weight: Any = 1.0
    """Sampling weight, relative to the other tasks, of rows (or tokens): a number, or a curriculum of points
    `[[progress, weight], ...]` over the budget, with progress from 0 to 1."""
    between: str = "linear"
    """Interpolation between the points: "linear", or constant until the next one."""
    loss_weight: float = 1.0
    """Factor of the task's losses, in addition to its share."""

    def __post_init__(self) -> None:
        check_curve("weight", self.weight, self.between)
        if self.loss_weight <= 0:
            raise ValueError(f"loss_weight must be above 0, got {self.loss_weight}")
        if any(weight < 0 for _, weight in self.points) or not any(weight > 0 for _, weight in self.points):
            raise ValueError(f"weight must be above 0, got {self.weight}")

    @property
    def points(self) -> list[tuple[float, float]]:
        """The curriculum as (progress, weight); one point if the weight is constant."""
        return points_of("weight", self.weight)

    def weight_at(self, progress: float) -> float:
        """The sampling weight when `progress` of the budget, from 0 to 1, is spent."""
        return curve_at(self.points, progress, self.between)


@dataclass(frozen=True)
class Sampling:
    """Sampling: from weights to shares of a run."""

    unit: str = "examples"
    """Whether weights are shares of rows ("examples") or of real tokens."""
    alpha: float = 0.0
    """Exponent of size-based sampling: weights are multiplied by (rows of the task) ** alpha. 0: no effect; 1: sampling
    by size; 0.3 to 0.7 upsamples small tasks (Conneau et al. 2020, XLM-R, section 3.1)."""

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {self.unit!r}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be from 0 (weights alone) to 1 (by size), got {self.alpha}")


@dataclass(frozen=True)
class Mix(Component):
    """Group `mix`: the tasks of a run, by name."""

    tasks: dict[str, Task]
    sampling: Sampling = field(default_factory=Sampling)
    balance: str = "fixed"
    """Loss balance: fixed shares and `loss_weight`, or learned factors from the uncertainty of each term (Kendall et
    al. 2018)."""
    conflict_every: Optional[int] = None
    """Steps between measurements of the cosine similarity of the tasks' gradients; null: never."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks must name at least one task")
        if self.balance not in BALANCES:
            raise ValueError(f"balance must be one of {', '.join(BALANCES)}, got {self.balance!r}")
        if self.conflict_every is not None and self.conflict_every < 1:
            raise ValueError(f"conflict_every must be above 0, got {self.conflict_every}")
        for progress in sorted({place for task in self.tasks.values() for place, _ in task.points} | {0.0, 1.0}):
            if not any(task.weight_at(progress) > 0 for task in self.tasks.values()):
                raise ValueError(f"tasks all have weight 0 when {progress:.0%} of the budget is spent")

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        yield from self.check_model(plan.model)
        for task in self.tasks.values():
            yield from task.objective.check(plan)
        if plan.z_loss and all(task.objective.label_kind is not None for task in self.tasks.values()):
            yield ConfigError(
                f"z_loss={plan.z_loss:g} is for losses over the vocabulary, and no task of this mix predicts words",
                "z_loss=0, or a mix such as mlm, clm or translate",
            )
        for name, task in self.tasks.items():
            yield from self._check_ramps(plan, name, task.objective)
        for name in self.streams:
            what = f"mix.tasks.{name} is streamed"
            if plan.budget.epochs is not None:
                yield ConfigError(
                    f"budget.epochs={plan.budget.epochs:g}: {what}, so nobody knows how long an epoch is",
                    "give budget.steps or budget.tokens, or data.streaming=false",
                )
            if self.sampling.alpha > 0:
                yield ConfigError(
                    f"mix.sampling.alpha={self.sampling.alpha:g} goes by the sizes of the tasks, and {what}",
                    "mix.sampling.alpha=0 and weights, or data.streaming=false",
                )
            objective = self.tasks[name].objective
            if objective.carries_state:
                yield ConfigError(
                    f"{what}, in shuffled blocks, and {type(objective).__name__} carries a state from row to row",
                    "nearest: objective clm (a decoder such as model=gpt2_tiny), or data.streaming=false",
                )

    def _check_ramps(self, plan: Plan, name: str, objective: Objective) -> Iterator[ConfigError]:
        """Errors for ramps of the batch that the rows of the task `name` cannot follow."""
        kind, batch = type(objective).__name__, plan.batch
        if batch.ramp is not None and objective.carries_state:
            yield ConfigError(
                f"batch.ramp: mix.tasks.{name} carries its state from row to row, one track for each of batch.size",
                "batch.ramp=null, or nearest: mix=clm (a decoder such as model=gpt2_tiny)",
            )
        if batch.length_ramp is not None and not objective.cuts_rows:
            yield ConfigError(
                f"batch.length_ramp: the rows of mix.tasks.{name} ({kind}) are as long as their texts",
                "batch.length_ramp=null, or objective mlm, rtd or clm, whose rows are cut from a stream",
            )
        if batch.length_ramp is not None and plan.teacher_cache != "off":
            yield ConfigError(
                f"teacher_cache={plan.teacher_cache}: answers are kept by row, and with batch.length_ramp its length "
                "depends on when it is seen",
                "teacher_cache=off, or batch.length_ramp=null",
            )

    def check_model(self, model: ModelSpec) -> Iterator[ConfigError]:
        """Errors for tasks that the model cannot be trained on."""
        for name, task in self.tasks.items():
            what, families = f"mix.tasks.{name}: {type(task.objective).__name__}", task.objective.families
            if model.family not in families:
                yield ConfigError(
                    f"{what} needs {' or '.join(A_FAMILY[family] for family in families)}, and "
                    f"{type(model).__name__} is {A_FAMILY[model.family]}",
                    f"nearest: model={NEAREST_MODEL[families[0]]}, or for this model {model.nearest_mix}",
                )
            elif task.objective.carries_state and not model.carries_state:
                yield ConfigError(
                    f"{what} carries a state from row to row, and {type(model).__name__} has none",
                    "nearest: mix=clm, or for this mix model=lstm_tiny",
                )
            elif task.objective.needs_generator and not model.has_generator:
                yield ConfigError(
                    f"{what} needs a generator beside the model, and {type(model).__name__} has none",
                    "nearest: mix=mlm, or for this mix model=electra_tiny",
                )

    @property
    def streams(self) -> list[str]:
        """Names of the tasks with streamed data."""
        return [name for name, task in self.tasks.items() if task.data.streamed]

    def shares(self, progress: float, rows: Mapping[str, int]) -> dict[str, float]:
        """Sampling share of each task, of rows or tokens, when `progress` of the budget is spent; their sum is 1."""
        weights = {
            name: task.weight_at(progress) * rows[name] ** self.sampling.alpha for name, task in self.tasks.items()
        }
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}
