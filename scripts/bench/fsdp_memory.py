"""Peak memory of a process by runner and number of processes, over that of a model that has no size.

python scripts/bench/fsdp_memory.py --layers 12 --hidden 512
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS = 3
RUNNERS = (("cpu", 1), ("ddp", 2), ("ddp", 4), ("fsdp", 2), ("fsdp", 4))


def summary(folder: Path, layers: int, hidden: int, heads: int, *words: str) -> dict[str, Any]:
    """summary.json of a short run of a language model on rows of 32 positions."""
    run = folder / "-".join((str(hidden), *words)).replace("=", "-")
    command = [sys.executable, "-m", "lmctl", "train", "mix=clm", "model=gpt2_tiny", f"model.layers={layers}"]
    command += [f"model.hidden={hidden}", f"model.heads={heads}", f"budget.steps={STEPS}", "batch.size=4"]
    command += ["batch.seq_len=32", "eval.rows=4", "kernels=torch", f"run_dir={run}", *words]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads((run / "summary.json").read_text(encoding="utf-8"))


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--layers", type=int, default=12)
    options.add_argument("--hidden", type=int, default=512)
    given = options.parse_args()
    print("| runner | processes | MiB above an empty run | weights, gradients, states: bytes per weight |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for runner, processes in RUNNERS:
            words = [f"runner={runner}"] + ([f"runner.processes={processes}"] if processes > 1 else [])
            empty = summary(Path(folder), 1, 16, 1, *words)
            full = summary(Path(folder), given.layers, given.hidden, given.hidden // 64, *words)
            more = (full["peak_memory_bytes"] - empty["peak_memory_bytes"]) / processes / 2**20
            sizes = full["precision"]["bytes_per_parameter"]
            parts = ", ".join(f"{sizes[part]:.1f}" for part in ("weights", "gradients", "optimiser"))
            print(f"| {runner} | {processes} | {more:,.0f} | {parts} |", flush=True)
    print(f"\n{full['parameters']['total']:,} weights; mean over the processes")


if __name__ == "__main__":
    main()
