"""The space of a search: which values each setting may take, typed in Hydra's own grammar of sweeps.

optim.lr=interval(1e-4,1e-2)              a number in between; tag(log,interval(...)) by its logarithm
model.layers=int(interval(1,8))           a whole number
model.hidden=range(64,257,64)             one of these numbers
precision=fp32,bf16    choice(fp32,bf16)  one of these words
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from lmctl.core.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value: TypeAlias = "str | float"


@dataclass(frozen=True)
class Axis:
    """One setting that is searched, and its values: words to choose from, or the numbers from `low` to `high`."""

    key: str
    words: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values that must be legal if all are to be: every word, the least and the greatest number."""
        return self.words or (self.low, self.high)

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def word(self, value: Value) -> str:
        """The override that sets it to `value`."""
        return f"{self.key}={value if isinstance(value, str) else repr(value)}"

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.words:
            return CategoricalDistribution(self.words)
        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


def axes_and_rest(words: Sequence[str]) -> tuple[list[Axis], list[str]]:
    """The axes among the overrides `words`, and the overrides that all trials share. ConfigError if there is no axis,
    or one that cannot be searched."""
    parsed = OverridesParser.create().parse_overrides(list(words))
    axes = [_axis(one) for one in parsed if one.is_sweep_override()]
    if not axes:
        raise ConfigError(
            "there is nothing to search: no setting has several values",
            "such as 'optim.lr=tag(log,interval(1e-4,1e-2))' or model.layers=1,2,4",
        )
    return axes, [str(one.input_line) for one in parsed if not one.is_sweep_override()]


def _axis(override: Override) -> Axis:
    key, sweep = override.get_key_element(), override.value()
    assert isinstance(sweep, ChoiceSweep | RangeSweep | IntervalSweep)
    log = "log" in sweep.tags
    if isinstance(sweep, ChoiceSweep):
        words = tuple(word.partition("=")[2] for word in _each(override))
        return Axis(key, words)
    if isinstance(sweep, RangeSweep):
        numbers = list(sweep.range())
        if not numbers:
            raise ConfigError(f"{override.input_line} stands for no value at all")
        first, last = sorted((_number(numbers[0]), _number(numbers[-1])))
        return Axis(key, (), first, last, abs(_number(sweep.step)), log)
    assert sweep.start is not None
    assert sweep.end is not None
    low, high = sorted((sweep.start, sweep.end))
    if log and low <= 0:
        raise ConfigError(f"{override.input_line}: a logarithm needs numbers above 0", f"from {high / 1000:g}, say")
    return Axis(key, (), low, high, None, log)


def _number(value: Any) -> float:
    """A number as Python has it: ranges of Hydra are made of decimals."""
    return value if isinstance(value, int) else float(value)


def _each(override: Override) -> list[str]:
    return [f"{override.get_key_element()}={word}" for word in override.sweep_string_iterator()]


def fingerprint(axes: Sequence[Axis], fixed: Sequence[str], metric: str) -> str:
    """What two searches must have in common to be one."""
    spaces = {axis.key: [*axis.ends, axis.step, axis.log] for axis in axes}
    return json.dumps({"axes": spaces, "fixed": sorted(fixed), "metric": metric}, sort_keys=True)


def words_of(axes: Sequence[Axis], values: Mapping[str, Any]) -> list[str]:
    """The overrides that a trial has for the `values` that were proposed."""
    return [axis.word(values[axis.key]) for axis in axes]


def title_of(axes: Sequence[Axis], values: Mapping[str, Any]) -> str:
    """The values in short, for a folder's name."""
    shown = {key: f"{value:.3g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    return ",".join(f"{axis.key}={shown[axis.key]}" for axis in axes)
