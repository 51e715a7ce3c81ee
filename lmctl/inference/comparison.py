"""Comparison of a suite's metrics between a model and the same model in other number formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lmctl.inference.load import Loaded
from lmctl.inference.number_formats import dtypes, in_float
from lmctl.inference.speed import Speed, measure
from lmctl.inference.suites import job as suites
from lmctl.inference.suites.job import Figures, SuiteJob
from lmctl.train.weight_memory import weight_bytes


@dataclass(frozen=True)
class Comparison:
    """The results of one suite on both models."""

    names: tuple[str, str]
    """Names of the two models."""
    original: Figures
    changed: Figures
    weight_bytes: tuple[int, int]
    speed: Speed
    in_float: list[str]
    """Modules that stayed in float, if any did."""
    report: list[str]
    """The same and the converted modules, as text."""

    def record(self) -> dict[str, Any]:
        """The comparison as JSON values for eval.json."""
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
        """Name, both values and the change of each metric."""
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


def compare(name: str, job: SuiteJob, original: Figures, other: Loaded) -> Comparison:
    """Run suite `name` on `other`, a version of `job`'s model, whose metrics are `original`, and compare."""
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
