"""Time of `lmctl compare` on many runs, whose records are made up: processor and wall-clock seconds, size of the page.

python scripts/bench/compare.py --runs 1000 --lines 360
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lmctl.config.compose import Composer
from lmctl.config.saved import config_text, resolved

SETTINGS = {
    "precision": ("fp32", "bf16", "int8"),
    "model.layers": ("1", "2", "4"),
    "optim.lr": ("1e-3", "2e-3", "4e-3"),
}


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--runs", type=int, default=1000)
    options.add_argument(
        "--lines", type=int, default=360, help="training log points of a run; a validation for each 30"
    )
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_sweep(Path(folder), given.runs, given.lines)
        began, before = time.perf_counter(), os.times()
        subprocess.run([sys.executable, "-m", "lmctl", "compare", folder], stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        wall, size = time.perf_counter() - began, (Path(folder) / "compare.html").stat().st_size / 1e6
        print(f"{given.runs:,} runs: {spent:.1f} s of a processor, {wall:.1f} s in all, page {size:.1f} MB")


def write_sweep(folder: Path, runs: int, lines: int) -> None:
    """Runs of a grid, over as many seeds as it takes, in a folder each, and the record of their sweep."""
    composer, jobs = Composer("train"), list[dict[str, object]]()
    texts: dict[tuple[str, ...], str] = {}
    grid = ((seed, cell) for seed in itertools.count(1) for cell in itertools.product(*SETTINGS.values()))
    for seed, cell in itertools.islice(grid, runs):
        words = [f"{key}={value}" for key, value in zip(SETTINGS, cell, strict=True)]
        if cell not in texts:
            texts[cell] = config_text(resolved(composer.task(["mix=mlm", "name=made_up", *words])))
        name = ",".join([*words, f"seed={seed}"])
        run = folder / name
        run.mkdir()
        (run / "config.yaml").write_text(texts[cell].replace("seed: 1\n", f"seed: {seed}\n"))
        (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in record(lines, seed)))
        loss = 4 + seed / 1000 + len(name) / 100
        summary = {"status": "completed", "steps": 10 * lines, "seconds": 60.0 + seed, "valid": {"loss": loss}}
        (run / "summary.json").write_text(json.dumps(summary | {"peak_memory_bytes": 1 << 29, "model_bytes": 5 << 20}))
        jobs.append({"name": name, "overrides": [*words, f"seed={seed}"], "status": "completed"})
    (folder / "summary.json").write_text(json.dumps(jobs))


def record(lines: int, seed: int) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl as a masked language model's."""
    found: list[dict[str, Any]] = []
    for number in range(lines):
        place = {"step": 10 * number, "tokens": 10240 * number, "seconds": 0.25 * number}
        loss = 4 + seed / 1000 + 5 / (1 + number / 10)
        losses = {"loss": loss, "loss/corpus/mlm": loss}
        if number % 30 == 0:
            found.append(place | {"split": "valid"} | losses | {"corpus/mlm_accuracy": 1 / loss, "rows": 512})
        rest = {"lr": 1e-3, "grad_norm": 1.0, "tokens_per_s": 1e4, "peak_memory_bytes": 1 << 29, "loss_scale": 1.0}
        found.append(place | {"split": "train"} | losses | rest | {"skipped_steps": 0, "bytes_sent": 4096 * number})
    return found


if __name__ == "__main__":
    main()
