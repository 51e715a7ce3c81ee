"""Printing cost estimates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from lmctl.core.errors import ConfigError
from lmctl.core.progress import duration
from lmctl.cost.budget import Spending
from lmctl.cost.estimate import Estimate
from lmctl.cost.memory_tracker import ACTIVATIONS
from lmctl.train.display import console, print_lines, print_whole


@dataclass(frozen=True)
class Cell:
    """One config of a grid, with its estimate or its refusal."""

    name: str
    overrides: list[str]
    estimate: Estimate | None
    refusal: ConfigError | None


def size(count: float) -> str:
    """Bytes as readable text: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" or count >= 10 else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.2f} GiB"


def print_one(estimate: Estimate, link: str) -> None:
    """Print everything about one run."""
    print_lines(head(estimate))
    console().print(components(estimate))
    print_lines(tail(estimate, link))


def head(estimate: Estimate) -> Iterator[str]:
    p = estimate.parameters
    learn = "" if p.trainable == p.total else f", {p.trainable:,} learn"
    yield (
        "legal" if estimate.fits is not False else f"legal, but too large for the {size(estimate.room or 0)} there are"
    )
    yield f"parameters  {p.total:,}{learn}  ({p.embeddings:,} in embeddings, {p.rest:,} elsewhere)"


def components(estimate: Estimate) -> Table:
    memory, other = estimate.memory, estimate.other
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"memory ({memory.device})", no_wrap=True)
    for column in ("at the peak", "at most"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for c in memory.components:
        if c.peak or c.most or c.name in ("error feedback", "teacher", "master weights"):
            table.add_row(*(Text(cell) for cell in (c.name, size(c.peak), size(c.most), c.note)))
    table.add_row(*(Text(cell, style="bold") for cell in ("peak", size(memory.peak), "", f"in {memory.moment}")))
    if memory.host:
        table.add_row("host memory", size(memory.host), size(memory.host), "shards of weights, gradients and states")
    if other is not None:
        kept, word = size(other.of(ACTIVATIONS).most), "without" if _recomputed(estimate) else "with"
        note = f"activations {kept} at most"
        table.add_row(*(Text(cell) for cell in (f"  {word} checkpointing", size(other.peak), "", note)))
    return table


def _recomputed(estimate: Estimate) -> bool:
    return "recomputed" in estimate.memory.of(ACTIVATIONS).note


def tail(estimate: Estimate, link: str) -> Iterator[str]:
    wire, spent, measured = estimate.wire, estimate.spending, estimate.measured
    if not wire.bytes:
        yield "wire        nothing: one process"
    else:
        less = "" if wire.bytes == wire.dense else f" ({size(wire.dense)} in fp32)"
        who = f"each of {wire.workers} workers that one process plays" if wire.simulated else "process"
        yield f"wire        {size(wire.bytes)} per step and {who}{less}, {wire.seconds:.3g} s at {link}"
        for one in wire.collectives:
            when = f"during {one.behind}" if one.behind else "after the backward pass, which waits for it"
            yield f"            {one.name} of {one.of}: {size(one.bytes)}, {one.messages:,.3g} messages in turn, {when}"
    yield f"step        {spent.rows_per_step:,.0f} rows, about {spent.tokens_per_step:,.0f} tokens"
    yield f"budget      {budget(spent)}"
    if measured is not None:
        yield (
            f"measured    {measured.seconds_per_step:.3g} s per step, {measured.tokens_per_second:,.0f} tokens/s per "
            f"process ({measured.steps} steps); peak {size(measured.peak)}, predicted {size(estimate.memory.peak)}"
        )
        if spent.steps is not None:
            yield f"time        {duration(spent.steps * measured.seconds_per_step)} for the budget's steps"
    else:
        yield "time        not measured: measure=true runs a few steps"
    for line in estimate.start:
        yield f"start       {line}"
    for line in estimate.remarks:
        yield f"note        {line}"


def budget(spent: Spending) -> str:
    if spent.steps is None or spent.tokens is None:
        what = "the clock" if spent.limit == "budget.minutes" else "the data"
        return f"as many steps as {what} allows ({spent.limit})"
    return f"{spent.steps:,} steps, about {spent.tokens:,} tokens ({spent.limit})"


COLUMNS = ("parameters", "memory", "activations", "wire/step", "tokens/step", "steps")


def print_grid(cells: Sequence[Cell]) -> None:
    """Print one row per cell, and the reasons of the illegal ones."""
    print_whole(_grid(cells, len(COLUMNS)), _grid(cells, 2))
    good = [cell.estimate for cell in cells if cell.estimate is not None]
    bad = [cell for cell in cells if cell.refusal is not None]
    tail = f"; {'this' if len(bad) == 1 else f'these {len(bad)}'} not, because" if bad else ""
    lines = [f"{len(good)} of {len(cells)} legal{tail}"]
    for cell in bad:
        lines.append(f"  {cell.name}: {cell.refusal}")
        if cell.refusal is not None and cell.refusal.hint:
            lines.append(f"    {cell.refusal.hint}")
    remarks = dict.fromkeys(remark for estimate in good for remark in estimate.remarks)
    print_lines([*lines, *(f"note        {remark}" for remark in remarks)])


def _grid(cells: Sequence[Cell], columns: int) -> Table:
    """The table with the first `columns` of COLUMNS."""
    timed = any(cell.estimate and cell.estimate.measured for cell in cells)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell", overflow="fold")
    table.add_column("legal", no_wrap=True)
    for column in (*COLUMNS[:columns], *(("s/step",) if timed else ())):
        table.add_column(column, justify="right", no_wrap=True)
    for cell in cells:
        numbers = _numbers(cell.estimate, columns, timed) if cell.estimate else []
        table.add_row(*(Text(text) for text in (cell.name, _legal(cell), *numbers)))
    return table


def _legal(cell: Cell) -> str:
    if cell.estimate is None:
        return "no"
    return "yes" if cell.estimate.fits is not False else "too large"


def _numbers(estimate: Estimate, columns: int, timed: bool) -> list[str]:
    spent, measured = estimate.spending, estimate.measured
    numbers = [
        f"{estimate.parameters.total:,}",
        size(estimate.memory.peak),
        size(estimate.memory.of(ACTIVATIONS).most),
        size(estimate.wire.bytes),
        f"{spent.tokens_per_step:,.0f}",
        "" if spent.steps is None else f"{spent.steps:,}",
    ]
    return [*numbers[:columns], *([f"{measured.seconds_per_step:.3g}" if measured else ""] if timed else [])]
