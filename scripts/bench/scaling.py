"""How time and memory of a training step grow with length, width, vocabulary, number of tasks, and processes.

Masked words with a BERT of four layers; each cell is the command `lmctl train`, all cells of a table take turns. "Work"
is multiply-adds, relative to the first row; time over work should not grow, and memory no faster than what is kept.

    python scripts/bench/scaling.py                      # all five tables, some minutes each
    python scripts/bench/scaling.py --of length tasks --repeats 5
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from page import machine, show, table
from turns import Figures, environment, in_turns, turns_parser

TOKENS = 2048
"""Of a step."""
LAYERS, MASKED = 4, 0.15


@dataclass(frozen=True)
class Cell:
    """One run: words, and what its work depends on."""

    words: tuple[str, ...] = ()
    length: int = 128
    hidden: int = 256
    vocabulary: int = 8192

    @property
    def overrides(self) -> list[str]:
        return [
            "mix=mlm",
            "model=bert_mini",
            f"model.hidden={self.hidden}",
            f"model.heads={self.hidden // 64}",
            f"model.feed_forward={4 * self.hidden}",
            f"model.max_positions={max(512, self.length)}",
            f"model.pad_vocabulary_to={self.vocabulary}",
            f"batch.size={TOKENS // self.length}",
            f"batch.seq_len={self.length}",
            *self.words,
        ]

    @property
    def work(self) -> float:
        """Multiply-adds per token, forward: linear layers, attention, and the head at the masked tokens."""
        linear, attention = 12 * self.hidden**2, 2 * self.length * self.hidden
        return LAYERS * (linear + attention) + MASKED * self.hidden * (self.vocabulary + self.hidden)


def tasks(count: int) -> Cell:
    """`count` tasks with the same text."""
    return Cell(tuple(f"+mix.tasks.task{n}=${{mix.tasks.corpus}}" for n in range(1, count)))


def processes(count: int) -> Cell:
    """One step's rows, shared out."""
    if count == 1:
        return Cell(("runner=cpu",))
    return Cell(("runner=ddp", f"runner.processes={count}", "runner.device=cpu"))


TABLES: dict[str, tuple[tuple[int, ...], Callable[[int], Cell]]] = {
    "length": ((64, 128, 256, 512, 1024), lambda n: Cell(length=n)),
    "width": ((128, 256, 512, 768), lambda n: Cell(hidden=n)),
    "vocabulary": ((8192, 32_768, 131_072), lambda n: Cell(vocabulary=n)),
    "tasks": ((1, 2, 4, 8), tasks),
    "processes": ((1, 2, 4), processes),
}


def measured(cell: Cell, args: Namespace, folder: Path) -> Figures:
    """One run, by its summary."""
    run = Path(tempfile.mkdtemp(dir=folder))
    own = [f"budget.steps={args.steps}", "eval.rows=16", "eval.every=100000", f"precision={args.precision}"]
    if not any(word.startswith("runner=") for word in cell.words):
        own.append("runner=cpu")
    command = [sys.executable, "-m", "lmctl", "train", *cell.overrides, *own, f"run_dir={run / 'run'}"]
    around = environment(args) | {"LMCTL_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=around, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    summary = json.loads((run / "run" / "summary.json").read_text(encoding="utf-8"))
    return {
        "cpu_ms_per_step": 1000 * summary["tokens"] / summary["tokens_per_cpu_second"] / summary["steps"],
        "ms_per_step": 1000 * summary["tokens"] / summary["training_tokens_per_second"] / summary["steps"],
        "peak_mb": summary["peak_memory_bytes"] / 2**20,
    }


def main() -> None:
    p = turns_parser(__doc__)
    p.add_argument("--of", nargs="+", choices=TABLES, default=list(TABLES), help="tables")
    p.set_defaults(repeats=3)
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmctl-bench-") as folder:
        for name in args.of:
            show(f"scaling {name}", list(table_of(name, args, Path(folder))), args.write)


def table_of(name: str, args: Namespace, folder: Path) -> Iterator[str]:
    values, cell_of = TABLES[name]
    cells = {f"{value:,}": cell_of(value) for value in values}
    runs = in_turns(list(cells), args.repeats, lambda key: measured(cells[key], args, folder))
    first, rows = next(iter(cells)), []
    for key, cell in cells.items():
        pairs = zip(runs[key], runs[first], strict=True)
        grown = median(one["cpu_ms_per_step"] / other["cpu_ms_per_step"] for one, other in pairs)
        work = cell.work / cells[first].work
        cpu, wall, peak = (median(run[what] for run in runs[key]) for what in runs[key][0])
        rows.append([key, f"{cpu:.0f}", f"{wall:.0f}", f"{work:.2f}", f"{grown / work:.2f}", f"{peak:,.0f}"])
    threads = f"{args.threads} thread{'s' * (args.threads != 1)}"
    yield (
        f"{TOKENS} tokens a step, {args.steps} steps, {args.precision}, {threads}, medians of {args.repeats} runs, on "
        f"{machine(args.isa)}:"
    )
    yield ""
    yield from table([name, "CPU ms a step", "ms a step", "work", "CPU time / work", "peak memory MB"], rows)


if __name__ == "__main__":
    main()
