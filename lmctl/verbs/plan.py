"""`lmctl plan`: say whether a run or a grid is legal, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmctl.config.groups import PlanConfig, TrainConfig
from lmctl.config.table import rows
from lmctl.config.verb import OWN_TEXT, GridVerb
from lmctl.core.errors import ConfigError
from lmctl.core.files import write_json
from lmctl.core.json_lines import emit

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lmctl.cost.estimate import Estimate
    from lmctl.cost.machine import Machine
    from lmctl.cost.show import Cell


@dataclass(frozen=True)
class Request:
    """A run to plan, and options of the plan."""

    run: DictConfig
    """Its config, as for `train`. Components are built later, while the planned machine is simulated."""
    wanted: PlanConfig

    @classmethod
    def of(cls, cfg: DictConfig) -> Request:
        """Split the verb's config into the run's and the plan's."""
        from omegaconf import open_dict

        from lmctl.config.build import read_root

        wanted, run = read_root(cfg, PlanConfig), cfg.copy()
        with open_dict(run):
            for key in rows(PlanConfig).keys() - rows(TrainConfig).keys():
                del run[key]
        return cls(run, wanted)


class PlanVerb(GridVerb[Request]):
    purpose = "Say whether a run, or with -m a grid, is legal, and its cost in memory and traffic; nothing is run."
    examples = (
        "lmctl plan data=text data.path=corpus/ model=bert_mini batch.size=256 batch.micro=32",
        "lmctl plan -m precision=fp32,bf16 model=bert_base batch.size=256",
        "lmctl plan runner=ddp runner.processes=2 measure=true out=plan.json",
    )
    often = (
        "model", "mix", "precision", "batch.size", "batch.micro", "batch.seq_len", "runner", "measure", "out",
        "gradient_checkpointing",
    )  # fmt: skip
    schema = PlanConfig
    alone = OWN_TEXT

    def read(self, cfg: DictConfig) -> Request:
        """The request; keys and values are checked here, the legality of the run is not."""
        return Request.of(cfg)

    def run(self, config: Request) -> None:
        """Print the cost of `lmctl train` with the same overrides. A run that `train` refuses is refused alike, with
        format=json also as a line on standard output."""
        from lmctl.config.mistakes import UnknownKey
        from lmctl.cost.show import print_one
        from lmctl.train.display import quiet_libraries
        from lmctl.train.unfinished import with_models

        wanted = config.wanted
        try:
            run = with_models(config.run)
            machine = _machine(wanted)
            quiet_libraries()
            estimate = _estimated(run, wanted, machine, alternative=True)
        except UnknownKey:  # a typing mistake, not an illegal run
            raise
        except ConfigError as error:
            if wanted.format == "json":
                emit({"name": None, "overrides": []} | _verdict(error))
            raise
        if wanted.format == "json":
            emit({"name": None, "overrides": []} | _verdict(None) | estimate.as_dict())
        else:
            print_one(estimate, f"{wanted.bandwidth_gbps:g} Gbit/s and {wanted.latency_us:g} us")
        if wanted.out is not None:
            write_json(Path(wanted.out), {"legal": True} | estimate.as_dict())

    def run_grid(self, jobs: Sequence[tuple[str, list[str], DictConfig]]) -> int:
        """Print one table of many cells (name, overrides, config); with format=json one line per cell as soon as it is
        planned. Returns how many are illegal."""
        from lmctl.config.mistakes import UnknownKey
        from lmctl.cost.show import Cell, print_grid
        from lmctl.train.display import quiet_libraries
        from lmctl.train.unfinished import with_models

        quiet_libraries()
        cells, out, as_json = [], None, False
        for name, overrides, cfg in jobs:
            out, as_json = cfg.get("out"), cfg.get("format") == "json"
            try:
                request = Request.of(cfg)
                run = with_models(request.run)
                estimate = _estimated(run, request.wanted, _machine(request.wanted), alternative=False)
                cells.append(Cell(name, overrides, estimate, None))
            except UnknownKey:  # a typing mistake, not an illegal cell
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


def _machine(wanted: PlanConfig) -> Machine | None:
    """The machine that the run is planned for, if it is another one."""
    from lmctl.cost.machine import machine_for

    machine = machine_for(wanted.runner, wanted.gpu, wanted.gpu_memory_gib, wanted.gpus)
    if machine is not None and wanted.measure:
        raise ConfigError("measure=true takes real steps, which only the machine itself can", "measure=false")
    return machine


def _estimated(run: DictConfig, wanted: PlanConfig, machine: Machine | None, alternative: bool) -> Estimate:
    from lmctl.cost.communication import link_of
    from lmctl.cost.estimate import estimate
    from lmctl.plan import Plan

    with nullcontext() if machine is None else machine.pretended():
        plan = Plan.from_config(run)
    return estimate(plan, link_of(wanted.bandwidth_gbps, wanted.latency_us), wanted.measure, alternative, machine)


def _record(cell: Cell) -> dict[str, Any]:
    row = {"name": cell.name, "overrides": cell.overrides} | _verdict(cell.refusal)
    return row if cell.estimate is None else row | cell.estimate.as_dict()


def _verdict(refusal: ConfigError | None) -> dict[str, Any]:
    """Whether a run is legal; if not, the reason and the nearest legal choice."""
    if refusal is None:
        return {"legal": True, "why": None, "nearest": None}
    return {"legal": False, "why": str(refusal), "nearest": refusal.hint}
