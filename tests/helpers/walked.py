"""Every key of a group, from the dataclasses themselves, and what a run shows of it.

A table of tests says for each key another legal value. A key that no table names fails a test, and so does one that
changes nothing.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf

from lmctl.config import table
from lmctl.config.groups import TrainConfig
from lmctl.parallel.processes import Processes
from lmctl.parallel.simulate import as_workers
from lmctl.plan import Plan
from lmctl.train.prepare import Prepared
from lmctl.train.trainer import Trainer

CONF = Path(__file__).parents[2] / "conf"

Key = tuple[str, str]
"""A class and one of its fields."""


@dataclass(frozen=True)
class Other:
    """Another legal value of a key."""

    value: Any
    given: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the same component that must be set for this one to have a meaning."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """What the run must be besides."""
    shown: bool = False
    """Whether what is said of the steps changes, and not the weights."""


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a config, however deep."""
    if isinstance(node, DictConfig):
        for key in node:
            if key == "_target_":
                yield node[key]
            elif not OmegaConf.is_interpolation(node, key):
                yield from targets(node[key])


@cache
def classes(group: str) -> dict[str, Any]:
    """The components of a group, and those inside them, by name."""
    found = {}
    for file in sorted((CONF / group).glob("*.yaml")):
        for target in targets(OmegaConf.load(file)):
            module, _, name = target.rpartition(".")
            found[name] = getattr(importlib.import_module(module), name)
    return found


def keys_of(*made: Any) -> set[Key]:
    return {(one.__name__, field.name) for one in made for field in dataclasses.fields(one)}


def keys_in(*groups: str) -> set[Key]:
    """Every key of every component of these groups."""
    return keys_of(*(made for group in groups for made in classes(group).values()))


def ids(key: Any) -> str:
    return "-".join(key) if isinstance(key, tuple) else str(key)


@cache
def alone() -> Processes:
    return Processes(on_cpu=True)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().float().flatten() for p in trainer.network.state_dict().values()])


@dataclass(frozen=True)
class Seen:
    """A run of a few steps, as values that can be compared."""

    weights: bytes
    said: list[Any]
    """What is known of each step, and at the end."""


def trained(some: Plan, text: Prepared) -> Seen:
    return as_workers(some.simulated_workers, alone(), lambda worker: seen(Trainer(some, text, worker)))


def seen(trainer: Trainer) -> Seen:
    said: list[Any] = []
    for report in trainer.steps():
        terms = {name: float(value) for name, value in report.losses.totals.items()}
        said += [report.step, report.lr, terms, report.counts, report.tokens, trainer.strategy.figures()]
    state = trainer.state
    said += [
        state.bytes_sent,
        state.micro_batches,
        state.passes,
        trainer.step.scaler.value,
        trainer.copied_layers,
    ]
    return Seen(weights(trainer).numpy().tobytes(), said)


def keys() -> set[str]:
    """Every key of `lmctl train` that is not a component's."""
    hints, own = get_type_hints(TrainConfig), table.rows(TrainConfig).keys() - set(table.groups_of(TrainConfig))
    sections = {name: hints[name] for name in own if is_dataclass(hints[name])}
    inner = {f"{name}.{field.name}" for name, section in sections.items() for field in fields(section)}
    return set(own - sections.keys() | inner)
