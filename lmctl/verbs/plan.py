"""`lmctl plan`: whether a run, or a whole grid of them, is legal, and what it costs, before any work."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, open_dict

from lmctl.config.build import build, check_root
from lmctl.config.groups import PlanConfig
from lmctl.config.mistakes import UnknownKey
from lmctl.core.errors import ConfigError
from lmctl.core.files import write_json
from lmctl.core.json_lines import emit
from lmctl.plan import Plan
from lmctl.run.unfinished import with_models
from lmctl.runner.base import Where

if TYPE_CHECKING:
    from lmctl.cost.estimate import Estimate
    from lmctl.cost.machine import Machine
    from lmctl.cost.show import Cell


@dataclass(frozen=True)
class Wanted:
    """What `plan` takes besides what `train` takes."""

    measure: bool
    bandwidth_gbps: float
    gpu: str | None
    gpu_memory_gib: float | None
    gpus: int | None
    out: str | None
    format: str


def run(cfg: DictConfig) -> None:
    """Print what `lmctl train` with the same words would cost; refused as it would be, in JSON with a line of its own
    on standard output besides."""
    _check_place(cfg.get("out"))
    try:
        rest, wanted = taken_apart(cfg)
        machine = _machine(rest, wanted)
        from lmctl.cost.show import print_one
        from lmctl.run.display import quiet_libraries

        quiet_libraries()
        estimate = _estimated(rest, wanted, machine, alternative=True)
    except UnknownKey:  # a slip of the pen, not a property of the run
        raise
    except ConfigError as error:
        if cfg.get("format") == "json":
            emit({"name": None, "overrides": []} | _verdict(error))
        raise
    if wanted.format == "json":
        emit({"name": None, "overrides": []} | _verdict(None) | estimate.as_dict())
    else:
        print_one(estimate, wanted.bandwidth_gbps)
    if wanted.out is not None:
        write_json(Path(wanted.out), {"legal": True} | estimate.as_dict())


def run_grid(jobs: Iterable[tuple[str, list[str], DictConfig]]) -> int:
    """One table of many cells: (name, overrides, config) each; in JSON every cell is a line, as soon as it is known.
    Returns how many are not legal."""
    from lmctl.cost.show import Cell, print_grid
    from lmctl.run.display import quiet_libraries

    quiet_libraries()
    cells, out, as_json = [], None, False
    for name, overrides, cfg in jobs:
        _check_place(cfg.get("out"))
        as_json = cfg.get("format") == "json"
        try:
            rest, wanted = taken_apart(cfg)
            out = wanted.out
            estimate = _estimated(rest, wanted, _machine(rest, wanted), alternative=False)
            cells.append(Cell(name, overrides, estimate, None))
        except UnknownKey:  # a slip of the pen, not a property of the cell
            raise
        except ConfigError as error:
            cells.append(Cell(name, overrides, None, error))
        if as_json:
            emit(_record(cells[-1]))
    if not as_json:
        print_grid(cells)
    if out is not None:
        write_json(Path(out), [_record(cell) for cell in cells])
    return sum(cell.refusal is not None for cell in cells)


def _check_place(out: str | None) -> None:
    """Before anything is reckoned: there must be a folder for `out`."""
    if out is not None and not Path(out).parent.is_dir():
        raise ConfigError(f"out={out}: there is no directory {Path(out).parent}")


def taken_apart(cfg: DictConfig) -> tuple[DictConfig, Wanted]:
    """The config of the training run, and what is wanted of the plan."""
    check_root(cfg, PlanConfig)
    rest = cfg.copy()
    own = Wanted(**{key: cfg[key] for key in Wanted.__dataclass_fields__})
    with open_dict(rest):
        for key in Wanted.__dataclass_fields__:
            del rest[key]
    return with_models(rest), own


def _machine(rest: DictConfig, wanted: Wanted) -> Machine | None:
    """The machine that the run is planned for, if it is not this one."""
    from lmctl.cost.machine import machine_for

    machine = machine_for(build(rest.runner, Where), wanted.gpu, wanted.gpu_memory_gib, wanted.gpus)
    if machine is not None and wanted.measure:
        raise ConfigError("measure=true takes real steps, which only the machine itself can", "measure=false")
    return machine


def _estimated(rest: DictConfig, wanted: Wanted, machine: Machine | None, alternative: bool) -> Estimate:
    from lmctl.cost.estimate import estimate

    with nullcontext() if machine is None else machine.pretended():
        plan = Plan.from_config(rest)
    return estimate(plan, wanted.bandwidth_gbps, wanted.measure, alternative, machine)


def _record(cell: Cell) -> dict[str, Any]:
    row = {"name": cell.name, "overrides": cell.overrides} | _verdict(cell.refusal)
    return row if cell.estimate is None else row | cell.estimate.as_dict()


def _verdict(refusal: ConfigError | None) -> dict[str, Any]:
    """Whether a run is legal; if not why, and what comes nearest to it."""
    if refusal is None:
        return {"legal": True, "why": None, "nearest": None}
    return {"legal": False, "why": str(refusal), "nearest": refusal.hint}
