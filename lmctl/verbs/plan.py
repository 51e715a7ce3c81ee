"""`lmctl plan`: whether a run, or a whole grid of them, is legal, and what it costs, before any work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, open_dict

from lmctl.config.build import UnknownKey, check_root
from lmctl.config.schema import PlanConfig
from lmctl.core.errors import ConfigError
from lmctl.core.files import write_json
from lmctl.plan import Plan
from lmctl.run.unfinished import with_models

if TYPE_CHECKING:
    from lmctl.cost.estimate import Estimate
    from lmctl.cost.show import Cell


@dataclass(frozen=True)
class Wanted:
    """What `plan` takes besides what `train` takes."""

    measure: bool
    bandwidth_gbps: float
    out: str | None


def run(cfg: DictConfig) -> None:
    """Print what `lmctl train` with the same words would cost; refused as it would be."""
    plan, wanted = taken_apart(cfg)
    _check_place(wanted.out)
    from lmctl.cost.show import print_one
    from lmctl.run.display import quiet_libraries

    quiet_libraries()
    estimate = _estimate(plan, wanted, alternative=True)
    print_one(estimate, wanted.bandwidth_gbps)
    if wanted.out is not None:
        write_json(Path(wanted.out), {"legal": True} | estimate.as_dict())


def run_grid(jobs: Iterable[tuple[str, list[str], DictConfig]]) -> int:
    """One table of many cells: (name, overrides, config) each. Returns how many are not legal."""
    from lmctl.cost.show import Cell, print_grid
    from lmctl.run.display import quiet_libraries

    quiet_libraries()
    cells, out = [], None
    for name, overrides, cfg in jobs:
        _check_place(cfg.get("out"))
        try:
            plan, wanted = taken_apart(cfg)
            out = wanted.out
            cells.append(Cell(name, overrides, _estimate(plan, wanted, alternative=False), None))
        except UnknownKey:  # a slip of the pen, not a property of the cell
            raise
        except ConfigError as error:
            cells.append(Cell(name, overrides, None, error))
    print_grid(cells)
    if out is not None:
        write_json(Path(out), [_record(cell) for cell in cells])
    return sum(cell.refusal is not None for cell in cells)


def _check_place(out: str | None) -> None:
    """Before anything is reckoned: there must be a folder for `out`."""
    if out is not None and not Path(out).parent.is_dir():
        raise ConfigError(f"out={out}: there is no directory {Path(out).parent}")


def taken_apart(cfg: DictConfig) -> tuple[Plan, Wanted]:
    """The training run, and what is wanted of the plan."""
    check_root(cfg, PlanConfig)
    rest = cfg.copy()
    own = Wanted(**{key: cfg[key] for key in Wanted.__dataclass_fields__})
    with open_dict(rest):
        for key in Wanted.__dataclass_fields__:
            del rest[key]
    return Plan.from_config(with_models(rest)), own


def _estimate(plan: Plan, wanted: Wanted, alternative: bool) -> Estimate:
    from lmctl.cost.estimate import estimate

    return estimate(plan, wanted.bandwidth_gbps, wanted.measure, alternative)


def _record(cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {"name": cell.name, "overrides": cell.overrides, "legal": cell.refusal is None}
    if cell.refusal is not None:
        row |= {"why": str(cell.refusal), "nearest": cell.refusal.hint}
    return row if cell.estimate is None else row | cell.estimate.as_dict()
