"""A suite's figures of a model as it is, and beside them those of the same model in other number formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lmctl.inference.load import Loaded
from lmctl.inference.number_formats import dtypes, in_float
from lmctl.inference.speed import Speed, measure
from lmctl.inference.suites import job as suites
from lmctl.inference.suites.job import Figures, Job
from lmctl.train.weight_memory import weight_bytes


@dataclass(frozen=True)
class Comparison:
    """One suite, twice."""

    names: tuple[str, str]
    """Of the two sides."""
    original: Figures
    changed: Figures
    weight_bytes: tuple[int, int]
    speed: Speed
    in_float: list[str]
    """Modules that the change left in float, where it left any."""
    report: list[str]
    """The same, and what it changed, in words."""

    def record(self) -> dict[str, Any]:
        """For eval.json."""
        sides = {}
        for place, side in enumerate(("original", "changed")):
            sides[side] = (self.original, self.changed)[place] | {
                "weight_bytes": self.weight_bytes[place],
                "tokens_per_second": round(self.speed.per_second(place), 1),
            }
        return {
            "numerics": dict(zip(("original", "changed"), self.names, strict=True)),
            **sides,
            "size_ratio": round(self.size_ratio, 4),
            "speed_ratio": round(self.speed.ratio, 3),
            "speed_ratio_by_round": [round(ratio, 3) for ratio in self.speed.ratios],
            "signal_to_noise_db": None if self.speed.decibel is None else round(self.speed.decibel, 1),
            "low_products": dict(self.speed.products),
            "in_float": self.in_float,
        }

    @property
    def size_ratio(self) -> float:
        return self.weight_bytes[1] / self.weight_bytes[0]

    def lines(self) -> Iterator[tuple[str, str, str, str]]:
        """Name, both values and the change, of everything that is counted."""
        for name, value in self.original.items():
            other = self.changed.get(name)
            if isinstance(value, float) and isinstance(other, float):
                yield name, f"{value:.4f}", f"{other:.4f}", f"{other - value:+.4f}"
            elif isinstance(value, int):
                yield name, f"{value:,}", f"{other:,}", ""
        sizes = [f"{size:,}" for size in self.weight_bytes]
        yield "weight_bytes", sizes[0], sizes[1], f"x {self.size_ratio:.3f}"
        speeds = [f"{self.speed.per_second(side):,.0f}" for side in range(2)]
        low, high = self.speed.middle_half
        yield "tokens_per_second", speeds[0], speeds[1], f"x {self.speed.ratio:.2f} ({low:.2f} to {high:.2f})"


def compare(name: str, job: Job, original: Figures, other: Loaded) -> Comparison:
    """Suite `name` on the model of `job`, whose figures are there already, and on the `other` form of it."""
    changed = suites.run(name, replace(job, loaded=other, mark=f"-{other.numerics.name}"))
    sides = (job.loaded, other)
    return Comparison(
        (f"as it is ({dtypes(job.loaded.model)})", other.numerics.name),
        original,
        changed,
        (weight_bytes(sides[0].model), weight_bytes(sides[1].model)),
        measure(name, job, other),
        in_float(other.model),
        other.report,
    )
